"""Installing a package is all it takes to name its component; a broken one harms nothing else."""

import itertools
import json
import subprocess
import sys

import attrs
import pytest

from lmx_core import LanguageModel, attention_registry, ffn_registry, load_model, make_config, save_model, spec
from lmx_core.errors import AmbiguousComponentError, ComponentError, ConfigError, LmxError, UnknownComponentError
from lmx_core.plugins import distributions
from lmx_core.registry import forget, kinds, registry

RELU2 = """
import mlx.core as mx
from mlx import nn

class ReLU2(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)

    def __call__(self, x):
        return self.down(mx.square(nn.relu(self.up(x))))
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution: its name, its entry points, and what its module holds."""
    monkeypatch.delenv("LMX_PLUGINS", raising=False)
    monkeypatch.delenv("LMX_DISABLE", raising=False)
    numbers = itertools.count()
    added = []

    def add(name, entries, source="", version="1.0"):
        site = tmp_path / f"site{next(numbers)}"
        module = name.replace("-", "_")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        listed = "".join(f"{key} = {target}\n" for key, target in entries.items())
        (info / "entry_points.txt").write_text(f"[lmx.components]\n{listed}")
        (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        added.append(module)
        forget()
        return site

    yield add
    for module in added:
        sys.modules.pop(module, None)
    monkeypatch.undo()
    forget()


def test_an_installed_component_is_found_and_imported_when_used(install):
    install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    ref = registry("ffn").find("relu2")
    assert (ref.dist, ref.version, ref.target) == ("acme-ffn", "1.0", "acme_ffn:ReLU2")
    assert "relu2" in ffn_registry.names()
    assert "acme_ffn" not in sys.modules
    assert ffn_registry.get("relu2").__name__ == "ReLU2"
    assert ffn_registry.get("acme-ffn/relu2") is ffn_registry.get("relu2")
    assert "acme_ffn" in sys.modules


def test_a_plugin_may_bring_a_kind_of_its_own(install):
    install("acme-x", {"telescope.big": "acme_x:VALUE"}, "VALUE = 7")
    assert "telescope" in kinds()
    assert registry("telescope").get("big") == 7


def test_unknown_names_have_a_near_miss():
    with pytest.raises(UnknownComponentError) as refused:
        attention_registry.get("gqq")
    assert str(refused.value) == "no attention named 'gqq'. Did you mean 'gqa'? Installed: gqa, mha, none."


def test_two_plugins_with_one_name_need_a_qualified_one(install):
    """Finding both is no error, choosing between them silently would be one."""
    install("lmx-attn-mla", {"attention.mla": "lmx_attn_mla:A"}, "A = 'theirs'")
    install("acme-mla", {"attention.mla": "acme_mla:A"}, "A = 'ours'")
    assert attention_registry.names().count("mla") == 1
    with pytest.raises(AmbiguousComponentError) as refused:
        attention_registry.get("mla")
    assert str(refused.value) == (
        "attention 'mla' is provided by acme-mla and lmx-attn-mla. Write one of: acme-mla/mla, lmx-attn-mla/mla."
    )
    assert attention_registry.get("acme-mla/mla") == "ours"
    assert attention_registry.get("lmx-attn-mla/mla") == "theirs"


def test_a_broken_plugin_is_named_and_harms_no_other(install):
    install("lmx-ffn-relu2", {"ffn.relu2": "lmx_ffn_relu2:ReLU2"}, "import nosuchlib", version="0.1.0")
    assert ffn_registry.get("gated").__name__ == "GatedFFN"
    with pytest.raises(ComponentError) as refused:
        ffn_registry.get("relu2")
    assert str(refused.value) == (
        "ffn.relu2 from lmx-ffn-relu2 0.1.0 (lmx_ffn_relu2:ReLU2) could not be loaded: ModuleNotFoundError: "
        "No module named 'nosuchlib'. Other components are not affected; LMX_DISABLE=lmx-ffn-relu2 hides this one."
    )


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "def broken(:", "x = 1", "1 / 0"])
def test_whatever_breaks_at_import_is_an_error_of_that_component(install, source):
    install("acme-bad", {"ffn.bad": "acme_bad:Bad"}, source)
    with pytest.raises(ComponentError, match=r"ffn.bad from acme-bad 1.0 \(acme_bad:Bad\) could not be loaded"):
        ffn_registry.get("bad")


def test_a_malformed_entry_point_is_reported(install):
    install("acme-odd", {"ffnbad": "acme_odd:X", "ffn.good": "acme_odd:X", "ffn.worse": "acme_odd"}, "X = 1")
    (odd,) = [each for each in distributions() if each.name == "acme-odd"]
    assert [ref.name for ref in odd.refs] == ["good"]
    assert len(odd.problems) == 2
    assert odd.problems[1].startswith('acme-odd: entry point ffnbad = "acme_odd:X" is not of the form')


def test_plugins_can_be_hidden(install, monkeypatch):
    install("acme-a", {"ffn.a": "acme_a:A"}, "A = 1")
    install("Acme.B", {"ffn.b": "Acme.B:A"})

    def found():
        forget()
        return {"a", "b"} & set(ffn_registry.names()), "gated" in ffn_registry.names()

    assert found() == ({"a", "b"}, True)
    monkeypatch.setenv("LMX_DISABLE", "acme_b")
    assert found() == ({"a"}, True)
    monkeypatch.setenv("LMX_PLUGINS", "acme-b")
    assert found() == (set(), True)
    monkeypatch.delenv("LMX_DISABLE")
    assert found() == ({"b"}, True)
    monkeypatch.setenv("LMX_PLUGINS", "")
    assert found() == (set(), True)


def test_core_names_are_taken():
    with pytest.raises(ConfigError, match="attention 'mha' is one of core's names"):
        attention_registry.register("mha")


def test_a_session_can_register_again():
    """As a notebook cell that runs twice."""
    try:
        ffn_registry.register("mine")(int)
        ffn_registry.register("mine")(float)
        assert ffn_registry.get("mine") is float
        assert ffn_registry.find("mine").dist == "session"
    finally:
        ffn_registry.unregister("mine")
    with pytest.raises(UnknownComponentError):
        ffn_registry.get("mine")


def test_a_saved_model_says_what_it_needs(install, tmp_path, monkeypatch):
    """Its record names each component's distribution; without it, loading says what to install."""
    site = install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2, version="2.3")
    config = make_config("llama", size="tiny")
    model = LanguageModel(attrs.evolve(config, block=attrs.evolve(config.block, ffn=spec("relu2"))))
    save_model(model, tmp_path / "model")
    record = json.loads((tmp_path / "model" / "config.json").read_text())["components"]
    assert {
        "kind": "ffn",
        "name": "relu2",
        "distribution": "acme-ffn",
        "version": "2.3",
        "entry_point": "acme_ffn:ReLU2",
    } in record
    assert {"attention", "ffn", "norm", "position", "layout"} == {each["kind"] for each in record}
    load_model(tmp_path / "model")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(site)])
    forget()
    with pytest.raises(UnknownComponentError) as refused:
        load_model(tmp_path / "model")
    assert str(refused.value) == "no ffn named 'relu2'. acme-ffn provides it: pip install acme-ffn"


PROBE = """
import sys
import lmx_core
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"mlx", "importlib_metadata", "pluggy", "numpy", "rich"}))
print("importlib.metadata" in sys.modules)
"""


def test_importing_lmx_core_imports_next_to_nothing():
    """Neither MLX nor importlib.metadata nor a plugin, nor anything else that takes time."""
    done = subprocess.run([sys.executable, "-P", "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_every_public_name_can_be_imported():
    import lmx_core

    for name in lmx_core.__all__:
        assert getattr(lmx_core, name) is not None
    assert set(lmx_core.__all__) <= set(dir(lmx_core))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = lmx_core.Nonsense


@pytest.mark.parametrize(
    "kind", ["attention", "ffn", "norm", "position", "layout", "config", "dataset", "tokenizer", "command"]
)
def test_every_builtin_can_be_loaded(kind):
    for name in registry(kind).names():
        if registry(kind).find(name).dist == "lmx-core":
            assert registry(kind).get(name) is not None


def test_types_keep_up_with_the_lazy_names():
    """What type checkers see of `lmx_core` is what it exports."""
    import ast
    from pathlib import Path

    import lmx_core

    tree = ast.parse(Path(lmx_core.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname for node in block.body for alias in node.names}
    assert seen == set(lmx_core.__all__) - {"__version__"}


def test_core_keeps_its_names(install):
    """A plugin that takes one is reported, and core goes on."""
    install("evil-p", {"ffn.gated": "evil_p:X", "command.train": "evil_p:X", "ffn.own": "evil_p:X"}, "X = 1")
    assert ffn_registry.find("gated").dist == "lmx-core"
    assert ffn_registry.find("own").dist == "evil-p"
    (evil,) = [each for each in distributions() if each.name == "evil-p"]
    assert "entry point command.train has one of core's names and is left out" in evil.problems[0]


def test_core_cannot_be_disabled(monkeypatch):
    monkeypatch.setenv("LMX_DISABLE", "lmx-core")
    forget()
    assert "gated" in ffn_registry.names()


def test_a_component_of_the_session_is_asked_for(tmp_path):
    """What a program registered itself cannot be installed."""
    ffn_registry.register("mine")(ffn_registry.get("standard"))
    config = make_config("llama", size="tiny")
    try:
        save_model(LanguageModel(attrs.evolve(config, block=attrs.evolve(config.block, ffn=spec("mine")))), tmp_path)
    finally:
        ffn_registry.unregister("mine")
    with pytest.raises(LmxError, match="ffn 'mine' was registered by the program that saved the model"):
        load_model(tmp_path)


def test_a_failed_save_leaves_the_model_before(tmp_path):
    """Nothing is written before all of it can be."""
    config = make_config("llama", size="tiny")
    before = LanguageModel(config)
    save_model(before, tmp_path)
    ffn_registry.register("mine")(ffn_registry.get("standard"))
    other = LanguageModel(attrs.evolve(config, block=attrs.evolve(config.block, ffn=spec("mine"))))
    ffn_registry.unregister("mine")
    with pytest.raises(UnknownComponentError):
        save_model(other, tmp_path)
    assert load_model(tmp_path).config == config
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    "record",
    [
        '{"lmx_format": 1, "model": {}, "components": [1]}',
        "[]",
        "{}",
        '{"lmx_format": 9, "model": 1, "components": []}',
    ],
)
def test_a_damaged_record_is_an_error_for_people(tmp_path, record):
    (tmp_path / "config.json").write_text(record)
    with pytest.raises(LmxError, match=r"config.json (is damaged or not lmx's|has format 9)"):
        load_model(tmp_path)


def test_errors_can_be_sent_to_another_process():
    import pickle

    for call in (
        lambda: attention_registry.get("gqq"),
        lambda: (_ for _ in ()).throw(AmbiguousComponentError("ffn", "x", ["b", "a"])),
    ):
        with pytest.raises(LmxError) as raised:
            call()
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
