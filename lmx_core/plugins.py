"""Which distributions offer which components: read from installed metadata once a process, importing none of them.

`LMX_PLUGINS=a,b` allows only these distributions (empty: core alone), `LMX_DISABLE=a,b` hides some.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import pluggy

from lmx_core import __version__, hookspecs
from lmx_core.builtin import BUILTIN
from lmx_core.ref import Ref

CORE = "lmx-core"
GROUP = "lmx.components"
KEY = re.compile(r"([a-z_]+)\.(\S+)")
TARGET = re.compile(r"[\w.]+:\w+")


@attrs.frozen(eq=False)
class Distribution:
    """One installed distribution as a pluggy plugin."""

    name: str
    version: str
    refs: Sequence[Ref]
    problems: Sequence[str] = ()
    """What is wrong with its entry points, for `lmx doctor`."""

    @hookspecs.hookimpl
    def lmx_components(self) -> Sequence[Ref]:
        return self.refs


@functools.cache
def manager() -> pluggy.PluginManager:
    """Every installed distribution as a plugin, blocked ones left out."""
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)
    for name in _names("LMX_DISABLE") - {CORE}:
        plugins.set_blocked(name)
    for distribution in (_core(), *_installed()):
        plugins.register(distribution, distribution.name)
    return plugins


def distributions() -> list[Distribution]:
    """The distributions that take part, core first, then by name."""
    return [plugin for _, plugin in manager().list_name_plugin() if isinstance(plugin, Distribution)]


def refs() -> Iterator[Ref]:
    """Every component that an installed distribution offers."""
    for offered in manager().hook.lmx_components():
        yield from offered


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(variable: str) -> set[str]:
    return {canonical(name.strip()) for name in os.environ.get(variable, "").split(",") if name.strip()}


def _core() -> Distribution:
    return _distribution(CORE, __version__, BUILTIN.items())


def _distribution(name: str, version: str, entries: Iterable[tuple[str, str]]) -> Distribution:
    found: list[Ref] = []
    problems: list[str] = []
    for key, target in entries:
        match = KEY.fullmatch(key)
        if key in BUILTIN and name != CORE:
            problems.append(
                f"{name}: entry point {key} has one of core's names and is left out. Its author must rename it."
            )
        elif match and TARGET.fullmatch(target):
            found.append(Ref(kind=match[1], name=match[2], target=target, dist=name, version=version))
        else:
            problems.append(
                f'{name}: entry point {key} = "{target}" is not of the form "<kind>.<name>" = "module:attribute"'
            )
    return Distribution(name, version, found, problems)


def _installed() -> list[Distribution]:
    """In the order of their names, so that no answer depends on directory order."""
    allowed = _names("LMX_PLUGINS") if "LMX_PLUGINS" in os.environ else None
    entries: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for entry in _entry_points():
        dist = canonical(entry.dist.name)
        if allowed is None or dist in allowed:
            entries.setdefault((dist, entry.dist.version), []).append((entry.name, entry.value))
    return [_distribution(*key, sorted(found)) for key, found in sorted(entries.items())]


def _entry_points() -> Iterable[Any]:
    import importlib_metadata  # here and lazily: importing it replaces the standard library's finder of distributions

    return importlib_metadata.entry_points(group=GROUP)
