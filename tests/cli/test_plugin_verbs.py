"""`lmx plugins list | show | schema | check | doctor`, as a person with a few plugins meets them."""

import json
import os
import pty
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

FFN = '''
import attrs
from mlx import nn

print("imported", flush=True)

@attrs.frozen(kw_only=True)
class Options:
    scale: float = attrs.field(default=2.0, validator=attrs.validators.gt(0))
    """What it multiplies with."""

class Scaled(nn.Module):
    """`scale * x W` (arXiv:2002.05202)."""
    Options = Options

    def __init__(self, config, options):
        super().__init__()
        self.scale, self.inner = options.scale, nn.Linear(config.d_model, config.d_model)

    def __call__(self, x):
        return self.scale * self.inner(x)

class Leaky(Scaled):
    """Adds the mean over the sequence."""
    def __call__(self, x):
        return super().__call__(x) + x.mean(axis=1, keepdims=True)
'''


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A directory of installed distributions, written here."""
    folder = tmp_path / "site"
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def install(name, entries, source=FFN):
        module = name.replace("-", "_")
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{key} = {target}\n" for key, target in entries.items())
        (info / "entry_points.txt").write_text(f"[lmx.components]\n{lines}")
        (folder / f"{module}.py").write_text(source)
        return folder / f"{module}.py"

    return install


def states(lmx, *arguments, **environ):
    rows = json.loads(lmx("plugins", "list", *arguments, "--json", **environ))
    return {(row["name"], row["distribution"]): row["state"] for row in rows if row["distribution"].startswith("acme")}


def test_list_tells_states_without_importing(lmx, site):
    file = site("acme-a", {"ffn.scaled": "acme_a:Scaled", "ffn.own": "acme_a:Scaled"})
    site("acme-b", {"ffn.scaled": "acme_b:Scaled", "ffn.gated": "acme_b:Scaled", "nothing": "acme_b:Scaled"})
    site("acme-c", {"ffn.gone": "acme_nowhere:Scaled", "ffn.deep": "acme_c.deep:Scaled"})
    expected = {
        ("scaled", "acme-a"): "clash",
        ("own", "acme-a"): "ok",
        ("scaled", "acme-b"): "clash",
        ("gated", "acme-b"): "refused",
        ("nothing", "acme-b"): "refused",
        ("gone", "acme-c"): "missing",
        ("deep", "acme-c"): "missing",
    }
    assert states(lmx) == expected
    hidden = states(lmx, LMX_DISABLE="acme-b")
    assert hidden == {
        **expected,
        ("scaled", "acme-a"): "ok",
        ("scaled", "acme-b"): "hidden",
    }
    assert states(lmx, LMX_PLUGINS="")["own", "acme-a"] == "hidden"
    text = lmx("list", "ffn")
    assert text == lmx("plugins", "list", "ffn")
    assert "imported" not in text
    row = ["ffn", "own", "acme-a", "1.0", str(file), "ok", "arXiv:2002.05202"]
    assert row in [line.split() for line in text.splitlines()]
    assert text.splitlines()[0].split() == ["KIND", "NAME", "DISTRIBUTION", "VERSION", "FILE", "STATE", "PAPERS"]


def test_files_are_found_below_packages_that_are_not_imported(lmx, site, tmp_path):
    site("acme-a", {"ffn.inner": "acme_pack.sub.inner:Scaled"})
    inner = tmp_path / "site" / "acme_pack" / "sub"
    inner.mkdir(parents=True)
    for package in (inner, inner.parent):
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (inner / "inner.py").write_text("")
    rows = json.loads(lmx("plugins", "list", "ffn", "--json"))
    assert [row["file"] for row in rows if row["name"] == "inner"] == [str(inner / "inner.py")]


def test_a_table_on_a_terminal(tmp_path):
    """Whatever its width, each name stands in one piece."""
    parent, child = pty.openpty()
    command = [sys.executable, "-P", "-m", "lmx_core", "list", "norm"]
    environ = {**os.environ, "COLUMNS": "200", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, stdout=child, stderr=subprocess.PIPE, env=environ, cwd=tmp_path)
    os.close(child)
    text = b""
    while True:
        try:
            part = os.read(parent, 10_000)
        except OSError:  # Linux says so that the other end is closed
            break
        if not part:
            break
        text += part
    os.close(parent)
    assert done.returncode == 0, done.stderr
    assert "rms_norm" in text.decode()
    assert "─" in text.decode()


def test_show_says_what_the_source_says(lmx, site):
    file = site("acme-a", {"ffn.scaled": "acme_a:Scaled"})
    shown = json.loads(lmx("plugins", "show", "scaled", "--json"))
    assert shown["summary"] == "`scale * x W` (arXiv:2002.05202)."
    assert shown["papers"] == ["arXiv:2002.05202"]
    assert (shown["distribution"], shown["entry point"], shown["file"]) == ("acme-a 1.0", "acme_a:Scaled", str(file))
    option = {"name": "scale", "type": "float", "default": 2.0, "rule": "> 0", "doc": "What it multiplies with."}
    assert shown["options"] == [option]
    text = lmx("plugins", "show", "ffn.acme-a/scaled")
    assert "arXiv:2002.05202" in text
    assert ["scale", "float", "2.0", ">", "0", "What", "it", "multiplies", "with."] in map(str.split, text.splitlines())
    assert "sizes         tiny, " in lmx("plugins", "show", "llama")
    assert "no options" in lmx("plugins", "show", "attention.none")
    for name in ("scaled", "ffn.scaled"):
        told = lmx("plugins", "show", name, code=2, LMX_DISABLE="acme-a")
        assert "acme-a offers it, and LMX_DISABLE hides that" in told


def test_schema_is_one(lmx):
    schema = json.loads(lmx("plugins", "schema", "dataset.text"))
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid({"paths": ["a.txt"], "validation_fraction": 0.5})
    assert not Draft202012Validator(schema).is_valid({"paths": ["a.txt"], "validation_fraction": 1})
    assert not Draft202012Validator(schema).is_valid({})


def test_check_runs_the_suite(lmx, site):
    """A component whose author wrote no test: what it keeps, and what it breaks, by name."""
    site("acme-a", {"ffn.scaled": "acme_a:Scaled", "ffn.leaky": "acme_a:Leaky"})
    lines = lmx("plugins", "check", "ffn.scaled", "--set", "scale=3.0").splitlines()
    kept = [line for line in lines if line.endswith("  ok")]
    assert lines[-1] == f"{len(kept)} of {len(kept)} promises kept"
    assert len(kept) >= 12
    rows = json.loads(lmx("plugins", "check", "leaky", "--json", code=1, out=True))
    broken = {row["name"]: row["message"] for row in rows if not row["ok"]}
    assert "treats_positions_alike" in broken
    assert "differ by" in broken["treats_positions_alike"]
    text = lmx("plugins", "check", "leaky", code=1, out=True)
    assert "treats_positions_alike  " in text
    assert f"{len(rows) - len(broken)} of {len(rows)} promises kept" in text


def test_a_component_is_checked_with_the_config_that_it_asks_for(lmx):
    told = lmx("plugins", "check", "mha", code=2)
    assert "n_kv_heads=2 needs" in told
    assert "Build it with another config: --config KEY=VALUE" in told
    assert "FAILED" not in lmx("plugins", "check", "mha", "--config", "n_kv_heads=4")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["gated", "--set", "activation=foo"],
            [
                "Error: 1 problem in the options of ffn 'lmx-core/gated'",
                "  activation: expected 'gelu' or 'gelu_tanh' or 'identity' or 'mish' or 'quick_gelu' or 'relu' or "
                "'relu2' or 'sigmoid' or 'silu' or 'tanh' or 'xielu', got 'foo' (str)",
            ],
        ),
        (
            ["dataset.text", "--set", "validation_fraction=0.5"],
            [
                "Error: 1 problem in the options of dataset 'lmx-core/text'",
                "  paths: is missing",
                "Give it what has no default: --set paths=VALUE",
            ],
        ),
        (
            ["dataset.text", "--set", "paths=a.txt", "--config", "width=3"],
            ["Error: a dataset is built without a config, got config={'width': 3}. Leave it out."],
        ),
    ],
    ids=lambda value: value[0],
)
def test_the_advice_fits_the_mistake(lmx, arguments, lines):
    assert lmx("plugins", "check", *arguments, code=2).splitlines() == lines


UNREADY = (
    FFN
    + """
from lmx_core.errors import DataError, LmxError

class Offline:
    def documents(self, split):
        raise DataError("no network here. Set path to a copy of the file.")

class Lacking:
    vocab_size = 3
    @classmethod
    def fit(cls, texts, *options):
        raise LmxError('it needs a package more: pip install "acme-a[more]"')
    def encode(self, text): ...
    def decode(self, ids): ...
    def decode_bytes(self, ids): ...
    def to_dict(self): ...
    @classmethod
    def from_dict(cls, state): ...

class Unbuildable(Scaled):
    def __init__(self, config, options):
        raise ValueError("no way")

class Forgetful(Offline):
    def documents(self, split):
        yield from ([] if split == "train" else super().documents(split))
"""
)


def test_what_cannot_be_tried_breaks_no_promise(lmx, site):
    """A file, a network or a package is missing: one message that says so, before any promise is tried."""
    entries = {"dataset.a": "Offline", "tokenizer.a": "Lacking", "ffn.a": "Unbuildable", "dataset.half": "Forgetful"}
    site("acme-a", {key: f"acme_a:{cls}" for key, cls in entries.items()}, UNREADY)
    for name, message in {
        "dataset.a": "no network here. Set path to a copy of the file.",
        "tokenizer.a": 'it needs a package more: pip install "acme-a[more]"',
        "ffn.a": "ffn.a from acme-a 1.0 could not be built: ValueError: no way",
    }.items():
        for more in ([], ["--json"]):
            told = lmx("plugins", "check", name, *more, code=2)
            assert told.splitlines()[-1] == f"Error: {message}"
            assert lmx("plugins", "check", name, *more, code=2, out=True) == ""
    assert "promises kept" in lmx("plugins", "check", "dataset.half", code=1, out=True)


def test_an_architecture_is_told_by_every_verb(lmx, site):
    """Its arguments as they are shown are those of the schema; one that returns no config is named."""
    shown = json.loads(lmx("plugins", "show", "config.llama", "--json"))["options"]
    schema = json.loads(lmx("plugins", "schema", "config.llama"))
    assert [*schema["properties"]] == [*(option["name"] for option in shown), "size"]
    assert Draft202012Validator(schema).is_valid({"size": "7b", "d_model": 64})
    site("acme-a", {"config.three": "acme_a:three"}, source="def three(**numbers):\n    return 3\n")
    message = (
        "Error: config.three from acme-a 1.0 returned a value of type int, not a ModelConfig. Its author must mend it."
    )
    for arguments in (["info", "three"], ["diff", "three", "llama"], ["count", "three"]):
        assert lmx(*arguments, code=2).splitlines() == [message]


def test_names_that_hide_nothing_are_told(lmx, site):
    """A name that is misspelt in a variable is a problem, and in `-p no:` a warning; one that is right is neither."""
    site("acme-a", {"ffn.scaled": "acme_a:Scaled"})
    said = "problem: acme-b not installed (LMX_DISABLE): no installed plugin has this name. "
    text = lmx("plugins", "doctor", code=1, out=True, LMX_DISABLE="Acme_B,acme-a")
    assert f"{said}Did you mean 'acme-a'? Correct LMX_DISABLE or unset it." in text.splitlines()
    assert "zorb not installed (LMX_PLUGINS)" in lmx("doctor", code=1, out=True, LMX_PLUGINS="zorb")
    assert "no problems" in lmx("plugins", "doctor", LMX_PLUGINS="acme-a,lmx-core")
    warned = lmx("-p", "no:acme-b", "plugins", "show", "nosuch", code=2).splitlines()[0]
    assert warned == "Warning: -p no:acme-b hides nothing: no installed plugin has this name. Did you mean 'acme-a'?"
    assert "Warning" not in lmx("-p", "no:Acme_A", "plugins", "show", "nosuch", code=2)


def test_a_verb_that_two_offer_is_chosen_at_the_command_line(lmx, site):
    verb = "import click\n\n@click.command()\ndef hello():\n    click.echo(__name__)\n"
    for name in ("acme-a", "acme-b"):
        site(name, {"command.hello": f"{name.replace('-', '_')}:hello"}, source=verb)
    text = lmx("plugins", "doctor", code=1, out=True)
    assert text.count("Write `lmx acme-a/hello` or `lmx acme-b/hello`.") == 2
    assert lmx("acme-b/hello") == "acme_b\n"


def test_doctor_tells_what_is_wrong_and_what_to_do(lmx, site):
    assert "no problems" in lmx("plugins", "doctor", LMX_PLUGINS="")
    site("acme-a", {"ffn.scaled": "acme_a:Nothing"})
    file = site("acme-b", {"ffn.own": "acme_b:Scaled"}, source="print('noise')\nimport nosuchlib\n")
    problems = json.loads(lmx("plugins", "doctor", "--json", code=1, out=True))["problems"]
    assert [problem for problem in problems if problem["dist"] == "acme-b"] == [
        {
            "dist": "acme-b",
            "version": "1.0",
            "file": str(file),
            "what": "ffn.own (acme_b:Scaled) could not be loaded: ModuleNotFoundError: No module named 'nosuchlib'",
            "fix": "Install nosuchlib. Until then hide it with LMX_DISABLE=acme-b, or remove it: pip uninstall acme-b",
        }
    ]
    text = lmx("doctor", code=1, out=True)
    assert "problem: acme-a 1.0 (" in text
    assert "has no attribute 'Nothing'" in text
    shown = lmx("plugins", "doctor", LMX_DISABLE="acme-a,acme-b")
    assert "acme-a 1.0: hidden by LMX_DISABLE" in shown


def test_a_component_that_cannot_be_built_is_named(lmx, site, tmp_path):
    """`lmx config check` says whose it is, where building it for a training would end in a traceback."""
    site("acme-a", {"ffn.scaled": "acme_a:Scaled"}, source=FFN.replace("super().__init__()", "super().__init__(3)"))
    (tmp_path / "a.toml").write_text('[model.block]\nffn = "scaled"\n')
    line = lmx("config", "check", "a.toml", code=2).splitlines()[-1]
    assert line.startswith("  model.block.ffn: ffn.scaled from acme-a 1.0 could not be built: TypeError: ")


def test_requirements_are_those_of_the_file(lmx, site, tmp_path, saved):
    site("acme-a", {"ffn.scaled": "acme_a:Scaled"})
    (tmp_path / "a.toml").write_text('[model.block]\nffn = "scaled"\n')
    assert lmx("requirements", "a.toml").splitlines() == ["lmx-core==0.1.0", "acme-a==1.0"]
    assert lmx("requirements", saved).splitlines() == ["lmx-core==0.1.0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["plugins", "show", "none"],
            "'none' is the name of several components. Write one of: attention.none, ffn.none",
        ),
        (["plugins", "show", "rop"], "no component named 'rop'. Did you mean 'rope'? `lmx plugins list` shows"),
        (["plugins", "show", "atention.gqa"], "no component named 'atention.gqa'. Did you mean 'attention.gqa'?"),
        (["plugins", "schema", "attention.gqq"], "no attention named 'gqq'. Did you mean 'gqa'?"),
        (["plugins", "check", "gated", "--set", "scale"], "expected KEY=VALUE"),
        (["plugins", "check", "gated", "--set", "scale=1"], "scale: unknown option"),
        (["plugins", "check", "gated", "--config", "d_modl=1"], "d_modl"),
        (["plugins", "lst"], "No such command 'lst'"),
        (["config", "check", "nowhere.toml"], "cannot read nowhere.toml: No such file"),
        (["config", "fill", "nowhere.toml"], "cannot read nowhere.toml: No such file"),
        (["config", "diff", "nowhere.toml", "llama"], "cannot read nowhere.toml: No such file"),
        (["requirements", "nowhere"], "no file or directory 'nowhere'. Give a saved model, a run or a config file"),
        (["requirements", "llama"], "no file or directory 'llama'. Give a saved model, a run or a config file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_message(lmx, arguments, message):
    text = lmx(*arguments, code=2)
    assert message in text
    assert len(text.splitlines()) < 24
