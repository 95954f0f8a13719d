"""`lmx plugins new`: a folder that is a whole plugin at once, for every kind that core has."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lmx_core.builtin import BUILTIN
from lmx_core.errors import ConfigError
from lmx_core.scaffold import kinds, scaffold

KINDS = sorted({key.partition(".")[0] for key in BUILTIN})


def register(folder, site):
    """What `pip install -e` does with a plugin's folder: its entry points, and its source on the path."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    for group, entries in project["entry-points"].items():
        lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    return str(folder / "src")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A plugin of every kind, in an environment where all of them are installed."""
    place = tmp_path_factory.mktemp("plugins")
    folders = {kind: scaffold(f"acme-try-{kind}", kind, directory=place) for kind in KINDS}
    sources = [register(folder, place / "site") for folder in folders.values()]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(place / "site"), *sources])}
    return folders, environ


@pytest.fixture
def rival(tmp_path):
    """A directory where another distribution offers the same names."""
    info = tmp_path / "rival" / "acme_rival-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-rival\nVersion: 1.0\n")
    lines = "".join(f"{kind}.try_{kind} = acme_rival:Rival\n" for kind in KINDS)
    (info / "entry_points.txt").write_text(f"[lmx.components]\n{lines}")
    return str(info.parent)


def test_there_is_a_template_for_every_kind():
    assert kinds() == KINDS


def test_its_tests_pass_at_once(installed, rival):
    """Of two kinds, as their own test files run, whoever else has the names.

    `nox -s scaffold` runs those of all kinds, from wheels.
    """
    folders, environ = installed
    environ = {**environ, "PYTHONPATH": f"{environ['PYTHONPATH']}{os.pathsep}{rival}"}
    tests = [str(folders[kind] / "tests") for kind in ("ffn", "schedule")]
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-rA", "-c", os.devnull, "--import-mode=importlib"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *tests],
        cwd=folders["ffn"].parent,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    for kind in ("ffn", "schedule"):
        assert len([line for line in passed if f"test_try_{kind}_keeps_its_promises[" in line]) > 4, kind


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_whole(installed, kind):
    """Nothing is left to fill in, and the files of a package are there; its options are documented."""
    folder = installed[0][kind]
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"}
    assert files == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        ".gitignore",
        ".github/workflows/tests.yml",
        f"src/acme_try_{kind}/__init__.py",
        f"tests/test_try_{kind}.py",
    }
    for file in files:
        text = (folder / file).read_text()
        assert "$" not in text.replace("${{ matrix", ""), file
        assert text.endswith("\n"), file
        assert not text.endswith("\n\n"), file


def test_its_options_are_documented(installed, lmx):
    """`lmx plugins show` and `schema` say of each option what its source says."""
    import json

    for kind in KINDS:
        shown = json.loads(
            lmx("plugins", "show", f"{kind}.try_{kind}", "--json", PYTHONPATH=installed[1]["PYTHONPATH"])
        )
        assert shown["summary"], kind
        assert shown["distribution"] == f"acme-try-{kind} 0.1.0"
        if kind not in ("command", "config"):
            assert [option["doc"] for option in shown["options"] if option["doc"]], kind


def test_one_trains_and_one_runs(installed, lmx, tmp_path):
    """A run of the new components by name, and the new verb."""
    path = {"PYTHONPATH": installed[1]["PYTHONPATH"]}
    (tmp_path / "a.toml").write_text(
        "[model]\nn_layers = 2\n[model.block]\nd_model = 32\nn_heads = 4\nd_ff = 64\nattention = 'try_attention'\n"
        "ffn = 'try_ffn'\nnorm = 'try_norm'\nposition = 'try_position'\nlayout = 'try_layout'\n"
        "[data]\ndataset = 'try_dataset'\ntokenizer = 'try_tokenizer'\nsource = 'try_source'\n"
        "curriculum = 'try_curriculum'\n"
        "[train]\nmax_steps = 3\nseq_len = 16\nfinal_eval_bytes = 300\nsample_tokens = 3\noptimizer = 'try_optimizer'\n"
        "schedule = 'try_schedule'\nobjective = 'try_objective'\ncallbacks = ['try_callback']\n"
    )
    assert lmx("config", "check", "a.toml", **path).strip() == "a.toml is fine"
    assert "trained  3 steps" in lmx("train", "a.toml", **path)
    assert "acme-try-attention==0.1.0" in lmx("requirements", "runs/a", **path).splitlines()
    assert "acme-try-optimizer==0.1.0" in lmx("requirements", "a.toml", **path).splitlines()
    assert lmx("try_command", "try_config", "--size", "tiny", **path).startswith("0.000 GB")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["acme-x", "--kind", "atention"], "no kind of component named 'atention'. Did you mean 'attention'?"),
        (["Acme", "--kind", "ffn"], "'Acme' is no name for a plugin: small letters, digits and hyphens"),
        (["../x", "--kind", "ffn"], "'../x' is no name for a plugin"),
        (["acme-gated", "--kind", "ffn"], "ffn 'gated' is one of core's names. Choose another one with --component."),
        (["acme-x", "--kind", "ffn", "--component", "x y"], "'x y' is no name for a component"),
        (["acme-true", "--kind", "ffn"], "'true' is a word of Python's"),
        (["lmx-core", "--kind", "ffn"], "'lmx-core' will not do"),
        (["numpy", "--kind", "ffn"], "'numpy' will not do: numpy is a name of Python's or of a package"),
        (["acme-there", "--kind", "ffn"], "acme-there exists. Choose another name or --directory."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_not_do_is_refused(lmx, tmp_path, arguments, message):
    (tmp_path / "acme-there").mkdir()
    assert message in lmx("plugins", "new", *arguments, code=2)
    assert [file.name for file in tmp_path.iterdir()] == ["acme-there"]


def test_what_it_says_next_is_where_it_is(lmx, tmp_path):
    text = lmx("plugins", "new", "acme-relu2", "--kind", "ffn", "--component", "relu_squared", "--directory", "mine")
    assert text.splitlines()[0] == "mine/acme-relu2"
    project = tomllib.loads((tmp_path / "mine/acme-relu2/pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lmx.components"] == {"ffn.relu_squared": "acme_relu2:ReluSquared"}


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    """A disk that is full in the middle of it."""

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Exception, match="No space left"):
        scaffold("acme-relu2", "ffn", directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_be_one_word(tmp_path):
    folder = scaffold("zorb", "norm", directory=tmp_path)
    assert '"norm.zorb" = "zorb:Zorb"' in (folder / "pyproject.toml").read_text()
    with pytest.raises(ConfigError, match="zorb exists"):
        scaffold("zorb", "norm", directory=tmp_path)
