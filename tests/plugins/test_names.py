"""Installing a package is all it takes to name its component; a broken one harms nothing else."""

import inspect
import os
import subprocess
import sys

import pytest

from lmx_core import attention_registry, ffn_registry
from lmx_core.components.feedforward import GatedFFN, StandardFFN
from lmx_core.errors import AmbiguousComponentError, ComponentError, ConfigError, UnknownComponentError
from lmx_core.plugins import CORE, distributions
from lmx_core.registry import forget, kinds, preferring, registry
from lmx_core.testing.hermetic import only_these
from lmx_core.train.config import run_config

from .sources import MLA, RELU2


def test_an_installed_component_is_found_and_imported_when_used(plugins):
    plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    ref = registry("ffn").find("relu2")
    assert (ref.dist, ref.version, ref.target) == ("acme-ffn", "1.0", "acme_ffn:ReLU2")
    assert "relu2" in ffn_registry.names()
    assert "acme_ffn" not in sys.modules
    assert ffn_registry.get("relu2").__name__ == "ReLU2"
    assert ffn_registry.get("acme-ffn/relu2") is ffn_registry.get("relu2") is ffn_registry.get("Acme_FFN/relu2")
    assert "acme_ffn" in sys.modules


def test_a_plugin_may_bring_a_kind_of_its_own(plugins):
    plugins.install("acme-x", {"telescope.big": "acme_x:VALUE"}, "VALUE = 7")
    assert "telescope" in kinds()
    assert registry("telescope").get("big") == 7


@pytest.mark.usefixtures("plugins")
def test_unknown_names_have_a_near_miss():
    with pytest.raises(UnknownComponentError) as refused:
        attention_registry.get("gqq")
    assert str(refused.value) == (
        "no attention named 'gqq'. Did you mean 'gqa'? "
        "Installed: chunked, gqa, mha, none, sliding_window, sliding_window_gqa."
    )


@pytest.mark.usefixtures("plugins")
def test_a_plugin_of_ours_that_is_missing_is_named():
    with pytest.raises(UnknownComponentError) as refused:
        attention_registry.get("mla")
    assert str(refused.value) == "no attention named 'mla'. lmx-attn-mla provides it: pip install lmx-attn-mla"


def test_a_qualified_name_says_what_to_install(plugins):
    with pytest.raises(
        UnknownComponentError, match=r"no ffn named 'acme-ffn/relu2'. acme-ffn provides it: pip install acme-ffn"
    ):
        ffn_registry.get("acme-ffn/relu2")
    plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)
    for wrong in ("acme-fnf/relu2", "acme-ffn/relu"):
        with pytest.raises(UnknownComponentError, match="Did you mean 'acme-ffn/relu2'?"):
            ffn_registry.get(wrong)


def test_two_plugins_with_one_name_need_a_qualified_one(plugins):
    """Finding both is no error, choosing between them silently would be one."""
    plugins.install("lmx-attn-mla", {"attention.mla": "theirs:MLA"}, MLA, module="theirs")
    plugins.install("acme-mla", {"attention.mla": "acme_mla:MLA"}, MLA)
    assert attention_registry.names().count("mla") == 1
    with pytest.raises(AmbiguousComponentError) as refused:
        attention_registry.get("mla")
    assert str(refused.value) == (
        "attention 'mla' is provided by acme-mla and lmx-attn-mla. Write one of: acme-mla/mla, lmx-attn-mla/mla."
    )
    assert attention_registry.get("acme-mla/mla").__module__ == "acme_mla"
    assert attention_registry.get("lmx-attn-mla/mla").__module__ == "theirs"


def test_a_clash_is_settled_by_preference(plugins):
    for name in ("acme-a", "acme-b"):
        plugins.install(name, {"ffn.relu2": f"{name.replace('-', '_')}:ReLU2"}, RELU2)
    with preferring(["other", "Acme_B", "acme-a"]):
        assert ffn_registry.find("relu2").dist == "acme-b"
        assert ffn_registry.find("acme-a/relu2").dist == "acme-a"
    with preferring(["other"]), pytest.raises(AmbiguousComponentError):
        ffn_registry.find("relu2")


def test_a_config_prefers_and_writes_down_what_it_meant(plugins):
    """The settled config means the same where `prefer` is not read, parts of components included."""
    for name in ("acme-a", "acme-b"):
        module = name.replace("-", "_")
        entries = {"ffn.relu2": f"{module}:ReLU2", "ffn.outer": f"{module}:Outer"}
        plugins.install(name, entries, f"{RELU2}{OUTER}")
    table = {"model": {"block": {"ffn": {"name": "outer", "inner": "relu2"}}}}
    with pytest.raises(ConfigError, match="model.block.ffn: ffn 'outer' is provided by acme-a and acme-b"):
        run_config(table, "it")
    settled = run_config({"prefer": ["acme-b"], **table}, "it").model.block.ffn
    assert settled.name == "acme-b/outer"
    assert settled.thawed() == {"inner": "acme-b/relu2"}
    with pytest.raises(
        ConfigError, match="prefer: no distribution 'acme-c' with components is installed. Did you mean"
    ):
        run_config({"prefer": ["acme-c"], **table}, "it")
    with pytest.raises(ConfigError, match="prefer: expected a list of str"):
        run_config({"prefer": "acme-b", **table}, "it")


OUTER = """
import attrs
from lmx_core.config import slot

@attrs.frozen(kw_only=True)
class OuterOptions:
    inner: "ComponentSpec" = slot("ffn", "gated")

from lmx_core import ComponentSpec
attrs.resolve_types(OuterOptions)

class Outer(ReLU2):
    Options = OuterOptions
"""


def test_a_broken_plugin_is_named_and_harms_no_other(plugins):
    plugins.install("lmx-ffn-relu2", {"ffn.relu2": "lmx_ffn_relu2:ReLU2"}, "import nosuchlib", version="0.1.0")
    assert ffn_registry.get("gated").__name__ == "GatedFFN"
    with pytest.raises(ComponentError) as refused:
        ffn_registry.get("relu2")
    assert str(refused.value) == (
        "ffn.relu2 from lmx-ffn-relu2 0.1.0 (lmx_ffn_relu2:ReLU2) could not be loaded: ModuleNotFoundError: "
        "No module named 'nosuchlib'. Other components are not affected; LMX_DISABLE=lmx-ffn-relu2 hides this one."
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "AttributeError: module 'acme_bad' has no attribute 'Bad'"),
        ("1 / 0", "ZeroDivisionError"),
        ("Bad = 7", "every ffn is a class, got int '7'"),
        ("class Bad: pass", r"Bad lacks __call__\(\), which every ffn has"),
    ],
)
def test_whatever_breaks_at_import_is_an_error_of_that_component(plugins, source, reason):
    plugins.install("acme-bad", {"ffn.bad": "acme_bad:Bad"}, source)
    with pytest.raises(
        ComponentError, match=rf"ffn.bad from acme-bad 1.0 \(acme_bad:Bad\) could not be loaded: {reason}"
    ):
        ffn_registry.get("bad")


def test_what_a_notebook_registers_is_of_its_kind():
    with pytest.raises(ComponentError, match=r"ffn 'mine' cannot be registered: every ffn is a class"):
        ffn_registry.register("mine")(GatedFFN.__call__)


def test_plugins_can_be_hidden(plugins, monkeypatch):
    plugins.install("acme-a", {"ffn.a": "acme_a:ReLU2"}, RELU2)
    plugins.install("Acme.B", {"ffn.b": "Acme_B:ReLU2"}, RELU2)

    def found():
        forget()
        return {"a", "b"} & set(ffn_registry.names()), "gated" in ffn_registry.names()

    assert found() == ({"a", "b"}, True)
    monkeypatch.setenv("LMX_DISABLE", "acme_b")
    assert found() == ({"a"}, True)
    with pytest.raises(UnknownComponentError, match="no ffn named 'b'. acme-b offers it, and LMX_DISABLE hides that."):
        ffn_registry.get("b")
    monkeypatch.setenv("LMX_PLUGINS", "acme-b")
    assert found() == (set(), True)
    monkeypatch.delenv("LMX_DISABLE")
    assert found() == ({"b"}, True)
    with pytest.raises(UnknownComponentError, match="no ffn named 'acme-a/a'. acme-a offers it, and LMX_PLUGINS hides"):
        ffn_registry.get("acme-a/a")
    monkeypatch.setenv("LMX_PLUGINS", "")
    assert found() == (set(), True)


def test_core_names_are_taken():
    with pytest.raises(ConfigError, match="attention 'mha' is one of core's names"):
        attention_registry.register("mha")


def test_core_keeps_its_names(plugins):
    """A plugin that takes one is reported, and core goes on."""
    entries = {"ffn.gated": "evil_p:X", "command.train": "evil_p:X", "ffn.own": "evil_p:X"}
    plugins.install("evil-p", entries, "X = 1")
    assert ffn_registry.find("gated").dist == CORE
    assert ffn_registry.find("own").dist == "evil-p"
    (evil,) = [each for each in distributions() if each.name == "evil-p"]
    assert [problem.what for problem in evil.problems] == [
        f"entry point {key} has one of core's names and is left out" for key in ("ffn.gated", "command.train")
    ]


def test_core_cannot_be_disabled(monkeypatch):
    monkeypatch.setenv("LMX_DISABLE", CORE)
    monkeypatch.setenv("LMX_PLUGINS", "other")
    forget()
    assert "gated" in ffn_registry.names()


def test_a_session_can_register_again():
    """As a notebook cell that runs twice."""
    try:
        ffn_registry.register("mine")(StandardFFN)
        ffn_registry.register("mine")(GatedFFN)
        assert ffn_registry.get("mine") is GatedFFN
        assert ffn_registry.find("mine").dist == "session"
    finally:
        ffn_registry.unregister("mine")
    with pytest.raises(UnknownComponentError):
        ffn_registry.get("mine")


@pytest.mark.parametrize("kind", kinds())
def test_every_builtin_can_be_loaded(kind):
    for ref in registry(kind).refs():
        if ref.dist == CORE:
            assert registry(kind).get(ref.qualified) is not None


def test_the_command_line_hides_a_plugin(plugins):
    """`-p no:NAME` before the verb, as often as wanted, in whatever spelling."""
    site = plugins.install("acme-ffn", {"ffn.relu2": "acme_ffn:ReLU2"}, RELU2)

    def offers(*arguments):
        command = [sys.executable, "-P", "-m", "lmx_core", *arguments, "list", "ffn"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(site)}, check=False
        )
        return done.returncode, [line for line in done.stdout.splitlines() if "relu2" in line], done.stderr

    assert len(offers()[1]) == 1
    assert "hidden" in offers("-p", "no:x", "-p", "no:Acme_FFN")[1][0]
    code, _, error = offers("-p", "acme-ffn")
    assert (code, "'acme-ffn': write no:NAME" in error) == (2, True)


NESTED = """
import attrs
from lmx_core import ComponentSpec
from lmx_core.config import slot

@attrs.frozen(kw_only=True)
class Inside:
    ffn: ComponentSpec = slot("ffn", "relu2")

@attrs.frozen(kw_only=True)
class OuterOptions:
    made: ComponentSpec = attrs.field(factory=lambda: ComponentSpec("relu2"), metadata={"kind": "ffn"})
    inside: Inside = attrs.field(factory=Inside)

class Outer(ReLU2):
    Options = OuterOptions

    def __init__(self, config, options):
        super().__init__(config)
"""


def test_preference_reaches_every_part(plugins):
    """Those that a factory makes, and those in records within options."""
    for name in ("acme-a", "acme-b"):
        plugins.install(name, {"ffn.relu2": f"{name.replace('-', '_')}:ReLU2"}, RELU2)
    plugins.install("acme-outer", {"ffn.outer": "acme_outer:Outer"}, RELU2 + NESTED)
    table = {"prefer": ["acme-b"], "model": {"block": {"ffn": "outer"}}}
    config = run_config(table, "it")
    assert config.model.block.ffn.thawed() == {"made": "acme-b/relu2", "inside": {"ffn": "acme-b/relu2"}}
    assert config.prefer == ()  # it is written out, and binds nobody later


def test_a_module_may_register_what_its_entry_point_names(plugins):
    source = f"from lmx_core import ffn_registry\n{RELU2}\nffn_registry.register('relu2')(ReLU2)\n"
    plugins.install("acme-both", {"ffn.relu2": "acme_both:ReLU2"}, source)
    assert ffn_registry.get("relu2") is ffn_registry.get("relu2")
    assert [ref.dist for ref in ffn_registry.refs("relu2")] == ["acme-both"]


def test_what_a_module_registered_is_gone_with_it(tmp_path, monkeypatch):
    source = f"from lmx_core import ffn_registry\n{RELU2}\nffn_registry.register('passing')(ReLU2)\n"
    before = ffn_registry.refs()
    with only_these(tmp_path, monkeypatch) as plugins:
        plugins.install("acme-both", {"ffn.passing": "acme_both:ReLU2"}, source)
        ffn_registry.get("passing")
    assert ffn_registry.refs() == before


@pytest.mark.parametrize("name", ["a/b", "", 7, " x", GatedFFN])
def test_what_is_registered_needs_a_name(name):
    with pytest.raises(ConfigError, match=r'ffn_registry.register\("name"\) takes a name of letters'):
        inspect.unwrap(type(ffn_registry).register)(ffn_registry, name)  # without the check of types


def test_two_commands_of_one_name_can_be_told_apart(plugins):
    source = "import click\n@click.command()\ndef hello():\n    'Says it.'\n    click.echo(__name__)\n"
    sites = [plugins.install(f"acme-{x}", {"command.hello": f"acme_{x}:hello"}, source) for x in "ab"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sites))}

    def lmx(verb):
        command = [sys.executable, "-P", "-m", "lmx_core", verb]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        return done.returncode, done.stdout.strip() or done.stderr

    assert lmx("acme-b/hello") == (0, "acme_b")
    code, error = lmx("hello")
    assert code == 2
    assert "Write one of: acme-a/hello, acme-b/hello." in error


@pytest.mark.parametrize(
    ("kind", "source", "reason"),
    [
        ("ffn", "class FFN:\n    Options = int\n    def __call__(self, x): ...", "FFN.Options is not a class of attrs"),
        (
            "ffn",
            "class FFN:\n    options_version = '2'\n    def __call__(self, x): ...",
            "FFN.options_version is a whole",
        ),
        ("ffn", "class E(BaseException): ...\nraise E('x')", "E: x"),
        ("ffn", "class E(Exception):\n    def __str__(self): return 1\nraise E", "E"),
        ("ffn", "class B:\n    def __str__(self): 1 / 0\nFFN = B()", r"it cannot be looked at \(ZeroDivisionError"),
        ("ffn", "from mlx.core import nosuch", "ImportError: cannot import name 'nosuch'"),
        ("command", "FFN = 7", "every command is one of click's, got int '7'"),
        ("optimizer", "class FFN: ...", r"FFN lacks init\(\) and update\(\), which every optimizer has"),
    ],
)
def test_a_component_that_cannot_be_one_is_refused_by_its_name(plugins, kind, source, reason):
    plugins.install("acme-bad", {f"{kind}.bad": "acme_bad:FFN"}, source)
    with pytest.raises(
        ComponentError, match=rf"{kind}.bad from acme-bad 1.0 \(acme_bad:FFN\) could not be loaded: {reason}"
    ):
        registry(kind).get("bad")
