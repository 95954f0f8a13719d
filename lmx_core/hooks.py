"""The hooks as typed functions: each distribution's is called by itself, and one that fails takes nothing down."""

import contextlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from lmx_core import backend, hookspecs, plugins
from lmx_core.errors import LmxWarning, StopRun, did_you_mean, told
from lmx_core.metadata import Problem
from lmx_core.plugins import Distribution

if TYPE_CHECKING:
    from lmx_core.model import LanguageModel
    from lmx_core.opening import Opened
    from lmx_core.train.trainer import Trainer

SUFFIX = ".hooks"
"""pluggy knows a distribution's module of hooks as `<distribution>.hooks`."""
HOOKS = [name for name in vars(hookspecs) if name.startswith(f"{hookspecs.PROJECT}_")]
Read = Callable[[Any], Any]


def model_built(model: "LanguageModel") -> None:
    _call("lmx_model_built", model=model)


def train_start(trainer: "Trainer") -> None:
    _call("lmx_train_start", trainer=trainer)


def train_step(trainer: "Trainer", metrics: Mapping[str, float]) -> None:
    _call("lmx_train_step", trainer=trainer, metrics=metrics)


def train_end(trainer: "Trainer", summary: Mapping[str, Any]) -> None:
    _call("lmx_train_end", trainer=trainer, summary=summary)


def missing(kind: str, name: str) -> str | None:
    """The distribution that someone knows to provide a component; the first by name where they disagree."""
    return min(_call("lmx_missing", _text, kind=kind, name=name), default=None)


def openers(place: str) -> "list[Callable[[], Opened]]":
    """Who reads the model of this place, by name of the distribution."""
    return _call("lmx_opener", _function, place=place)


def report_header() -> list[str]:
    """The lines that distributions want to have said at the top."""
    return [line for lines in _call("lmx_report_header", _lines) for line in lines]


def problems() -> list[Problem]:
    """Whose hooks could not be loaded, or failed when they were called."""
    return [*_loaded().unloaded, *_loaded().failed.values()]


def forget() -> None:
    global _hooks
    _hooks = None


def _function(answer: Any) -> Callable[[], Any]:
    if not callable(answer):
        raise TypeError(f"expected a function or None as its answer, got {type(answer).__name__}")
    return answer


def _text(answer: Any) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"expected a text or None as its answer, got {type(answer).__name__}")
    return answer


def _lines(answer: Any) -> list[str]:
    return [answer] if isinstance(answer, str) else [_text(line) for line in answer]


def _call(hook: str, read: Read = lambda answer: answer, **about: Any) -> list[Any]:
    """What each distribution answers. One that raises is named in a warning and not asked again; `StopRun` goes through.

    Each is given tables of its own: what it does to them is nobody else's concern.
    """
    loaded = _loaded()
    answers: list[Any] = []
    for dist, plugin in loaded.having(hook):
        others = [other for _, other in loaded.all_having(hook) if other is not plugin]
        copies = {
            key: dict(value) if type(value) is dict else value for key, value in about.items()
        }  # a module is a dict
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a program's output is not a plugin's to write to
                answers += map(read, loaded.manager.subset_hook_caller(hook, others)(**copies))
        except StopRun as stop:
            raise StopRun(f"{dist.name} {dist.version} ended this: {stop}") from stop
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, and whatever a plugin thinks of
            what = f"{hook} raised {told(error)}"
            loaded.failed[dist.name, hook] = Problem(
                dist.name, dist.version, dist.place, what, f"Its author must mend it. LMX_DISABLE={dist.name} hides it."
            )
            _warn(f"{hook} of {dist.name} {dist.version} raised {told(error)}. It is not called again.")
    return answers


@attrs.define(eq=False)
class _Hooks:
    """The modules of hooks that are loaded, and those that failed."""

    manager: pluggy.PluginManager
    unloaded: list[Problem] = attrs.field(factory=list[Problem])
    failed: dict[tuple[str, str], Problem] = attrs.field(factory=dict[tuple[str, str], Problem])
    owners: dict[str, Distribution] = attrs.field(factory=dict[str, Distribution])

    def all_having(self, hook: str) -> list[tuple[Distribution, Any]]:
        """Whoever has a hook, by name."""
        impls = getattr(self.manager.hook, hook).get_hookimpls()
        found = [(self.owners[impl.plugin_name], impl.plugin) for impl in impls]
        return sorted(found, key=lambda each: each[0].name)

    def having(self, hook: str) -> list[tuple[Distribution, Any]]:
        """Those of them that have not failed at it."""
        return [(dist, plugin) for dist, plugin in self.all_having(hook) if (dist.name, hook) not in self.failed]

    def load(self, dist: Distribution) -> None:
        name = f"{dist.name}{SUFFIX}"
        self.owners[name] = dist
        try:
            with backend.explained(), contextlib.redirect_stdout(sys.stderr):
                module: Any = importlib.import_module(str(dist.hooks))
            if owner := self.manager.get_name(module):
                raise ValueError(f"its module is that of {owner.removesuffix(SUFFIX)} already")
            _check_names(self.manager, module)
            self.manager.register(module, name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            what = f"its hooks ({dist.hooks}) could not be loaded: {told(error)}"
            problem = Problem(dist.name, dist.version, dist.place, what, f"LMX_DISABLE={dist.name} hides it.")
            self.unloaded.append(problem)
            _warn(f"hooks of {dist.name} {dist.version} are not called. {problem}")


_hooks: _Hooks | None = None


def _loaded() -> _Hooks:
    """Every module of hooks, imported at the first call; one that looks something up meanwhile sees those before it."""
    global _hooks
    if _hooks is None:
        _hooks = _Hooks(plugins.manager())
        for dist in plugins.distributions():
            if dist.hooks is not None:
                _hooks.load(dist)
    return _hooks


def _check_names(manager: pluggy.PluginManager, module: Any) -> None:
    for name in _named(manager, module):
        if name not in HOOKS:
            raise ValueError(f"there is no hook {name}. {did_you_mean(name, HOOKS)}Hooks: {', '.join(sorted(HOOKS))}")


def _named(manager: pluggy.PluginManager, module: Any) -> Iterator[str]:
    for name in vars(module):
        if options := manager.parse_hookimpl_opts(module, name):
            yield options.get("specname") or name


def _warn(message: str) -> None:
    try:
        warnings.warn(message, LmxWarning, stacklevel=2)
    except LmxWarning:  # warnings are errors here, but no hook of a plugin may end a program
        print(f"Warning: {message}", file=sys.stderr)
