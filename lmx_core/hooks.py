"""The hooks as typed functions: each distribution's is called by itself, and one that fails takes nothing down."""

import functools
import importlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pluggy

from lmx_core import backend, hookspecs, plugins
from lmx_core.errors import LmxWarning, StopRun, did_you_mean
from lmx_core.metadata import Problem
from lmx_core.plugins import Distribution

if TYPE_CHECKING:
    from lmx_core.model import LanguageModel
    from lmx_core.train.trainer import Trainer

SUFFIX = ".hooks"
"""pluggy knows a distribution's module of hooks as `<distribution>.hooks`."""


def model_built(model: "LanguageModel") -> None:
    _call("lmx_model_built", model=model)


def train_start(trainer: "Trainer") -> None:
    _call("lmx_train_start", trainer=trainer)


def train_step(trainer: "Trainer", metrics: dict[str, float]) -> None:
    _call("lmx_train_step", trainer=trainer, metrics=metrics)


def train_end(trainer: "Trainer", summary: dict[str, Any]) -> None:
    _call("lmx_train_end", trainer=trainer, summary=summary)


def missing(kind: str, name: str) -> str | None:
    """The distribution that someone knows to provide a component; the first by name where they disagree."""
    return min((str(answer) for answer in _call("lmx_missing", kind=kind, name=name)), default=None)


def report_header() -> list[str]:
    """The lines that distributions want to have said at the top."""
    answers = _call("lmx_report_header")
    return [str(line) for answer in answers for line in ([answer] if isinstance(answer, str) else answer)]


def problems() -> list[Problem]:
    """Which distributions' hooks could not be loaded."""
    return _loaded()[1]


def forget() -> None:
    for cached in (_loaded, _failed):
        cached.cache_clear()


def _call(hook: str, **about: Any) -> list[Any]:
    """What each distribution answers. One that raises is named in a warning and not asked again; `StopRun` goes through."""
    answers: list[Any] = []
    manager = _loaded()[0]
    asked = [(impl.plugin_name, impl.plugin) for impl in getattr(manager.hook, hook).get_hookimpls()]
    for name, plugin in sorted(asked, key=lambda each: each[0]):
        if (name, hook) in _failed():
            continue
        try:
            answers += manager.subset_hook_caller(hook, [other for _, other in asked if other is not plugin])(**about)
        except StopRun as stop:
            raise StopRun(f"{_title(name)} ended this: {stop}") from stop
        except (Exception, SystemExit) as error:
            _failed().add((name, hook))
            _warn(f"{hook} of {_title(name)} raised {type(error).__name__}: {error}. It is not called again.")
    return answers


@functools.cache
def _failed() -> set[tuple[str, str]]:
    return set()


def _title(plugin: str) -> str:
    """The distribution of a module of hooks, with its version."""
    (dist,) = [each for each in plugins.distributions() if f"{each.name}{SUFFIX}" == plugin]
    return f"{dist.name} {dist.version}"


@functools.cache
def _loaded() -> tuple[pluggy.PluginManager, list[Problem]]:
    """The manager with every module of hooks registered, imported now; and those that could not be."""
    manager, found = plugins.manager(), list[Problem]()
    for dist in plugins.distributions():
        try:
            _register(manager, dist)
        except (Exception, SystemExit) as error:
            manager.unregister(name=f"{dist.name}{SUFFIX}") if manager.has_plugin(f"{dist.name}{SUFFIX}") else None
            what = f"its hooks ({dist.hooks}) could not be loaded: {type(error).__name__}: {error}"
            found.append(Problem(dist.name, dist.version, dist.place, what, f"LMX_DISABLE={dist.name} hides it."))
            _warn(f"hooks of {dist.name} {dist.version} are not called. {found[-1]}")
    return manager, found


def _register(manager: pluggy.PluginManager, dist: Distribution) -> None:
    if dist.hooks is None:
        return
    with backend.explained():
        module = importlib.import_module(dist.hooks)
    for name in _unknown(manager, module):
        known = [hook for hook in vars(hookspecs) if hook.startswith(f"{hookspecs.PROJECT}_")]
        raise ValueError(f"there is no hook {name}. {did_you_mean(name, known)}Hooks: {', '.join(sorted(known))}")
    manager.register(module, f"{dist.name}{SUFFIX}")


def _unknown(manager: pluggy.PluginManager, module: Any) -> Iterator[str]:
    for name in vars(module):
        if manager.parse_hookimpl_opts(module, name) and not hasattr(hookspecs, name):
            yield name


def _warn(message: str) -> None:
    warnings.warn(message, LmxWarning, stacklevel=2)
