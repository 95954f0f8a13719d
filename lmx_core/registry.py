"""From a component's name to the component, loaded when it is first used."""

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lmx_core import hooks, plugins
from lmx_core.contracts import breach
from lmx_core.errors import AmbiguousComponentError, ComponentError, ConfigError, UnknownComponentError, near_miss
from lmx_core.metadata import canonical
from lmx_core.plugins import COMPONENT, CORE, SESSION
from lmx_core.ref import Ref

if TYPE_CHECKING:
    from lmx_core.protocols import Attention, FeedForward, Norm, Position

C = TypeVar("C")
_preferred: ContextVar[Sequence[str]] = ContextVar("preferred", default=())


@contextmanager
def preferring(dists: Sequence[str]) -> Generator[None, None, None]:
    """Within it a bare name that several distributions offer means the first of these that offers it."""
    token = _preferred.set([canonical(dist) for dist in dists])
    try:
        yield
    finally:
        _preferred.reset(token)


class Registry(Generic[C]):
    """The components of one kind: what is installed, and what this process registered."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._session: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """A class or function decorator that offers a component to this process: `@ffn_registry.register("relu2")`.

        Registering a name again replaces what it meant, as a notebook cell that runs twice expects. Core's names are
        taken: `ConfigError`.
        """
        if not isinstance(name, str) or not COMPONENT.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f'{self.kind}_registry.register("name") takes a name of letters, digits and _ . + -, got {name!r}'
            )
        if any(ref.dist == CORE for ref in self.refs(name)):
            raise ConfigError(f"{self.kind} {name!r} is one of core's names. Register yours under another one.")

        def add(component: C) -> C:
            if problem := breach(self.kind, component):
                raise ComponentError(f"{self.kind} {name!r} cannot be registered: {problem}")
            self._session[name] = component
            return component

        return add

    def unregister(self, name: str) -> None:
        """Forget what this process registered under `name`."""
        self._session.pop(name, None)

    def names(self) -> list[str]:
        return sorted({ref.name for ref in self.refs()})

    def refs(self, name: str | None = None) -> list[Ref]:
        """What is offered, of all names or of one; several distributions may offer one name."""
        session = [
            Ref(kind=self.kind, name=key, target=_origin(found), dist=SESSION, version="0")
            for key, found in self._session.items()
        ]
        installed = _installed(self.kind)
        packages = {(ref.name, ref.package) for ref in installed}  # a module may register what its entry point names
        offered = [*installed, *(ref for ref in session if (ref.name, ref.package) not in packages)]
        return [ref for ref in offered if name in (None, ref.name)]

    def find(self, name: str) -> Ref:
        """The one component that `name` or `distribution/name` means.

        `UnknownComponentError` with the near miss, or with what to install, when nobody offers it;
        `AmbiguousComponentError` when several do and none is preferred.
        """
        dist, _, bare = name.rpartition("/")
        found = [ref for ref in self.refs(bare) if canonical(dist) in ("", ref.dist)]
        if not found:
            raise self._unknown(name, canonical(dist), bare)
        if len(found) > 1:
            found = [ref for each in _preferred.get() for ref in found if ref.dist == each][:1] or found
        if len(found) > 1:
            raise AmbiguousComponentError(self.kind, bare, (ref.dist for ref in found))
        return found[0]

    def _unknown(self, name: str, dist: str, bare: str) -> UnknownComponentError:
        """Why nobody offers it: it is hidden, misspelt, or not installed."""
        known = self.names()
        for each in plugins.everything():
            offers = any((ref.kind, ref.name) == (self.kind, bare) for ref in each.refs)
            if each.hidden and offers and dist in ("", each.name):
                return UnknownComponentError(self.kind, name, known, each.name, each.hidden)
        if dist:
            known = sorted({*known, *(ref.qualified for ref in self.refs())})
            absent = dist != SESSION and dist not in (each.name for each in plugins.distributions())
            return UnknownComponentError(
                self.kind, name, known, dist if absent and not near_miss(name, known) else None
            )
        return UnknownComponentError(self.kind, name, known, hooks.missing(self.kind, bare))

    def get(self, name: str) -> C:
        """The component itself; its module is imported now."""
        ref = self.find(name)
        return self._session[ref.name] if ref.dist == SESSION else _loaded(ref)


def _origin(component: Any) -> str:
    return f"{getattr(component, '__module__', '__main__')}:{getattr(component, '__qualname__', repr(component))}"


@functools.cache
def _loaded(ref: Ref) -> Any:
    return ref.load()


@functools.cache
def _index() -> dict[str, list[Ref]]:
    index: dict[str, list[Ref]] = {}
    for ref in plugins.refs():
        index.setdefault(ref.kind, []).append(ref)
    return index


def _installed(kind: str) -> list[Ref]:
    return _index().get(kind, [])


_registries: dict[str, Registry[Any]] = {}


def registry(kind: str) -> Registry[Any]:
    """The registry of a kind; a plugin may bring kinds of its own."""
    return _registries.setdefault(kind, Registry[Any](kind))


def kinds() -> list[str]:
    """Every kind of which something is offered."""
    return sorted({*_index(), *(kind for kind, found in _registries.items() if found.refs())})


def forget() -> None:
    """Read the installed metadata anew at the next look-up, as after installing a package in a notebook."""
    plugins.forget()
    hooks.forget()
    for cached in (_index, _loaded):
        cached.cache_clear()


attention_registry: "Registry[type[Attention]]" = registry("attention")
ffn_registry: "Registry[type[FeedForward]]" = registry("ffn")
norm_registry: "Registry[type[Norm]]" = registry("norm")
position_registry: "Registry[type[Position]]" = registry("position")
