"""A suite as its users write it: one test, by a component's name or its class."""

import subprocess
import sys

import attrs
import pytest
from mlx import nn

from lmx_core.construct import build
from lmx_core.errors import ConfigError, LmxError, UnknownComponentError
from lmx_core.registry import SESSION, registry
from lmx_core.testing import SMALL, cases, conformance

MINE = """
import attrs
from mlx import nn

@attrs.frozen(kw_only=True)
class Options:
    scale: float
    width: int = 4

class Mine(nn.Module):
    Options = Options

    def __init__(self, config, options):
        super().__init__()
        self.inner = nn.Linear(config.d_model, config.d_model)
        self.scale = options.scale

    def __call__(self, x):
        return self.inner(x) * self.scale
"""


def failures(suite):
    """The names of the cases that fail."""
    found = []
    for case in suite:
        try:
            case.run()
        except Exception:
            found.append(case.name)
    return found


def test_an_installed_component_by_its_name(plugins):
    plugins.install("acme-ffn", {"ffn.mine": "acme_ffn:Mine"}, MINE)
    for name in ("ffn.mine", "ffn.acme-ffn/mine"):
        suite = cases(name, options={"scale": 2.0})
        assert {"accepts_zeros", "model_round_trips", "options_round_trip", "import_is_light"} <= {
            c.name for c in suite
        }
        assert failures(suite) == []


def test_every_case_says_what_it_holds():
    for kind in ("attention", "tokenizer", "command"):
        name = registry(kind).names()[0]
        suite = cases(f"{kind}.{name}")
        assert len({case.name for case in suite}) == len(suite)
        assert all(case.doc.endswith(".") and len(case.doc) > 20 for case in suite)


class Plain(nn.Module):
    """An FFN of a notebook, in a module that no other process can import."""

    def __init__(self, config):
        super().__init__()
        self.inner = nn.Linear(config.d_model, config.d_model)

    def __call__(self, x):
        return self.inner(x)


def test_a_class_need_not_be_installed():
    """It has its name while a case runs, and no longer."""
    suite = cases("ffn", Plain)
    assert "Plain" not in registry("ffn").names()
    assert failures(suite) == []
    assert "import_is_light" not in {case.name for case in suite}
    assert [ref.name for ref in registry("ffn").refs() if ref.dist == SESSION] == []


def test_options_without_a_default_must_be_given(plugins):
    plugins.install("acme-ffn", {"ffn.mine": "acme_ffn:Mine"}, MINE)
    with pytest.raises(ConfigError) as refused:
        cases("ffn.mine", options={"widht": 3})
    assert str(refused.value) == (
        "2 problems in the options of ffn 'mine'\n"
        "  widht: unknown option; did you mean 'width'? (Options has scale, width)\n"
        "  scale: is missing\n"
        "Give it the options that have no default: options={...}."
    )


def test_the_config_is_changed_for_components_that_need_it():
    with pytest.raises(ConfigError, match="each of n_heads=4 its own keys"):
        cases("attention.mha")
    wide = cases("attention.mha", config={"n_kv_heads": 4, "d_model": 32})
    assert failures(case for case in wide if case.name.startswith(("rows", "position_makes"))) == []
    with pytest.raises(
        ConfigError, match=r"a tokenizer is built without a config, got config={'d_model': 3}. Leave it"
    ):
        cases("tokenizer.bytes", config={"d_model": 3})


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("ffn.gatde", UnknownComponentError, "no ffn named 'gatde'. Did you mean 'gated'"),
        ("gated", ConfigError, "'gated' is no component. Write \"<kind>.<name>\", or the kind and a class."),
        ("fnn.gated", LmxError, "no fnn named 'gated'"),
    ],
)
def test_a_name_that_nobody_offers(name, error, says):
    with pytest.raises(error, match=says):
        cases(name)


def test_a_kind_of_a_plugins_own_keeps_what_all_keep(plugins):
    plugins.install("acme-x", {"telescope.big": "acme_x:Big"}, "class Big: pass")
    assert [case.name for case in cases("telescope.big")] == [
        "unknown_options_are_refused",
        "options_round_trip",
        "import_is_light",
    ]


def test_a_mixer_is_run_with_each_position_that_it_takes():
    """And in a block without one where it takes none."""
    gqa = registry("attention").get("gqa")
    takes = {
        ("bias", "rotate"): gqa,
        ("rotate",): type("Rotated", (gqa,), {"takes": frozenset({"rotate"})}),
        (): type("Bare", (gqa,), {"takes": frozenset()}),
    }
    for expected, mixer in takes.items():
        names = {case.name for case in cases("attention", mixer)}
        found = {name.rpartition("_with_")[2] for name in names if name.startswith("past_ignores_future_with_")}
        assert found == set(expected)
        assert ("past_ignores_future_in_a_block" in names) == (not expected)


def values_of(mark):
    return {value.id: value for value in mark.args[1]}


def test_one_decorator_is_the_suite():
    mark = conformance("norm.rms_norm")
    assert mark.args[0] == "check"
    assert list(values_of(mark)) == [case.name for case in cases("norm.rms_norm")]


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"accepts_zeroes": "why"}, "no check named 'accepts_zeroes' for ffn.gated. Did you mean 'accepts_zeros'"),
        (
            {"accepts_zeros": " "},
            r"expected_failures\['accepts_zeros'\] has no reason. Say why ffn.gated cannot keep it.",
        ),
    ],
)
def test_an_expected_failure_names_a_check_and_a_reason(expected, says):
    with pytest.raises(ConfigError, match=says):
        conformance("ffn.gated", expected_failures=expected)


SUITE = """
import mlx.core as mx
from lmx_core import ffn_registry
from lmx_core.testing import conformance

class Root(ffn_registry.get("gated")):
    def __call__(self, x):
        return super().__call__(x) + mx.sqrt(mx.square(x).sum(axis=-1, keepdims=True))

@conformance("ffn", Root, expected_failures={"accepts_zeros": "a root has no slope at zero"})
def test_root(check):
    check()

@conformance("ffn.gated", expected_failures={"accepts_zeros": "it has become better since"})
def test_gated(check):
    check()
"""


def test_an_expected_failure_that_does_not_fail_is_one(tmp_path):
    """As pytest reports it to the author."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfxX", "-q", "test_suite.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "XFAIL test_suite.py::test_root[accepts_zeros] - a root has no slope at zero" in done.stdout
    assert "FAILED test_suite.py::test_gated[accepts_zeros]" in done.stdout
    assert "[XPASS(strict)] it has become better since" in done.stdout
    assert f"1 failed, {2 * len(cases('ffn.gated')) - 3} passed, 1 xfailed" in done.stdout


def test_a_check_still_takes_a_function():
    """As in tests that were written before suites were."""
    from lmx_core.testing import checks

    for check in checks.FFN:
        check(lambda: build("ffn", "gated", attrs.evolve(SMALL, bias=False)))


def test_a_name_and_a_class_are_one_too_many():
    with pytest.raises(ConfigError, match='Write "<kind>.<name>", or the kind and a class.'):
        cases("ffn.plain", Plain)
