"""The kit's checks find what they are meant to find, and nothing in components that work."""

import functools
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from mlx import nn

from lmx_core.config import ComponentSpec
from lmx_core.plugins import CORE
from lmx_core.registry import kinds, registry
from lmx_core.testing import SMALL, cases, checks
from lmx_core.testing.candidate import Candidate
from lmx_core.testing.checks.commands import is_a_command
from lmx_core.testing.checks.options import import_is_light, unknown_options_are_refused

from . import (  # noqa: F401
    cache_faults,
    callback_faults,
    data_faults,
    mixer_faults,
    objective_faults,
    part_faults,
    run_faults,
    text_faults,
    trainer_faults,
)
from .faults import FAULTS

pytestmark = pytest.mark.once
CONFIGS = {("attention", "mha"): {"n_kv_heads": SMALL.n_heads}}
BY_CLASS = {
    registry("attention").get(ref.name): ref.name for ref in reversed(registry("attention").refs()) if ref.dist == CORE
}
MIXERS = [name for component, name in BY_CLASS.items() if not getattr(component, "silent", False)]
"""Each once, whatever other names it has."""
PAIRS = [(fault, base) for fault in FAULTS for base in ([fault.base] if fault.base else MIXERS)]


def case(name, *component, **given):
    """The one case of a suite with this name."""
    (found,) = [each for each in cases(*component, **given) if each.name == name]
    return found


def given(kind, name):
    """What the kit needs to build a component of core."""
    return {"config": CONFIGS.get((kind, name)), "options": OPTIONS.get((kind, name))}


@functools.cache
def passes_without(kind, base, check):
    case(check, kind, registry(kind).get(base), **given(kind, base)).run()


@pytest.mark.parametrize(("fault", "base"), PAIRS, ids=lambda each: str(each))
def test_the_check_meant_for_a_fault_catches_it(fault, base):
    component = registry(fault.kind).get(base)
    passes_without(fault.kind, base, fault.check)
    with pytest.raises(Exception, match=fault.message):
        case(fault.check, fault.kind, fault.apply(component), **given(fault.kind, base)).run()


def test_mixers_are_tried_with_enough_faults():
    """Each in every built-in mixer."""
    assert len({fault.apply for fault in FAULTS if fault.kind == "attention"}) >= 15
    assert {"gqa", "mha"} <= set(MIXERS)


def test_a_heavy_import_is_caught(plugins):
    """And one that fails, which a component of the session or an earlier import may hide."""
    source = "{}\nclass Mine:\n    def __init__(self, config): pass\n    def __call__(self, x): return x\n"
    for name, line in (
        ("acme-light", ""),
        ("acme-heavy", "import torch"),
        ("acme-broken", "import sys; sys.path[0]/0"),
    ):
        files = {"torch.py": ""} if "torch" in line else None
        plugins.install(name, {f"ffn.{name}": f"{name.replace('-', '_')}:Mine"}, source.format(line), files=files)
    case("import_is_light", "ffn.acme-light").run()
    with pytest.raises(AssertionError, match="importing acme_heavy imports torch; import it where it is used"):
        case("import_is_light", "ffn.acme-heavy").run()
    with pytest.raises(AssertionError, match="a fresh process cannot import acme_broken"):
        import_is_light(registry("ffn").find("acme-broken"))


@pytest.mark.parametrize(
    ("kind", "component", "check", "says"),
    [
        ("norm", text_faults.with_options(dict)(nn.RMSNorm), unknown_options_are_refused, "is accepted"),
        ("command", lambda: None, is_a_command, "is no click command"),
    ],
)
def test_what_cannot_even_be_registered_is_caught(kind, component, check, says):
    with pytest.raises(AssertionError, match=says):
        check(Candidate(kind=kind, chosen=ComponentSpec("mine"), component=component))


def promises():
    """Every function of the kit that is a check."""
    modules = [
        importlib.import_module(f"{checks.__name__}.{each.name}") for each in pkgutil.iter_modules(checks.__path__)
    ]
    return {
        name
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def check_of(case_name):
    """The check behind a case, whose name may go on with where it was run."""
    return max((name for name in promises() if case_name.startswith(name)), key=len)


def test_every_check_catches_a_fault():
    assert promises() - {check_of(fault.check) for fault in FAULTS} == {
        "import_is_light",
        "unknown_options_are_refused",
    }  # which are caught above


def test_every_check_is_in_a_suite():
    assert promises() == {check_of(name) for kind in kinds() for name in names_of(kind)}


FROZEN = [tuple(line.split()) for line in (Path(__file__).parent / "promises.txt").read_text().splitlines()]


def names_of(kind):
    """The cases of core's components of a kind."""
    core = [ref.name for ref in registry(kind).refs() if ref.dist == CORE and (kind, ref.name) not in LEFT_OUT]
    return {each.name for name in core for each in cases(f"{kind}.{name}", **given(kind, name))}


OPTIONS = {
    ("scaling", "longrope"): {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
    **{("scaling", name): {"factor": 4.0} for name in ("linear", "dynamic", "yarn")},
    ("curriculum", "length"): {"steps": 50, "start": 4, "multiple": 2},
    ("curriculum", "difficulty"): {"steps": 50},
    ("schedule", "joined"): {"parts": [{"schedule": "constant"}, {"schedule": "linear"}]},
    ("dataset", "mixture"): {"parts": [{"dataset": "python-stdlib"}]},
}
LEFT_OUT = {("tokenizer", "tiktoken"), ("dataset", "text"), ("dataset", "tokens")}  # a network, paths, a directory
LEFT_OUT |= {("callback", name) for name in ("tensorboard", "wandb", "mlflow", "trackio")}  # extras


def test_no_check_is_deleted():
    """What a suite once held it holds; a check that is renamed is renamed in promises.txt."""
    for kind in {kind for kind, _ in FROZEN}:
        gone = {name for each, name in FROZEN if each == kind} - names_of(kind)
        assert gone == set(), f"{kind} lost {gone}"
    assert {kind for kind, _ in FROZEN} == {
        kind for kind in kinds() if any(r.dist == CORE for r in registry(kind).refs())
    }
