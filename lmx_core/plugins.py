"""Installed distributions as pluggy plugins, by their names.

`LMX_PLUGINS=a,b` allows only these distributions (empty: core alone), `LMX_DISABLE=a,b` hides some.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence

import attrs
import pluggy

from lmx_core import __version__, hookspecs
from lmx_core.builtin import BUILTIN, HOOKS
from lmx_core.metadata import Problem, canonical, scan
from lmx_core.ref import Ref

CORE = "lmx-core"
SESSION = "session"
"""The distribution of what a process registers itself."""
COMPONENT = re.compile(r"[\w.+-]+")
KEY = re.compile(rf"([a-z_]+)\.({COMPONENT.pattern})")
TARGET = re.compile(r"([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_]\w*)\s*(\[.*\])?")  # spaces and extras are of the format
MODULE = re.compile(r"[A-Za-z_][\w.]*")


@attrs.frozen(eq=False)
class Distribution:
    """One installed distribution, with what its entry points say."""

    name: str
    version: str
    place: str
    """Its metadata directory; empty for core, whose table is built in."""
    refs: Sequence[Ref] = ()
    hooks: str | None = None
    """The module of its hooks."""
    problems: Sequence[Problem] = ()
    refused: Sequence[tuple[str, str]] = ()
    """Its entry points that are left out, each with a problem of its own."""
    hidden: str | None = None
    """The variable that keeps it out, or None."""

    def __dir__(self) -> Iterable[str]:
        return ()  # where pluggy looks for hooks, which are in a module of their own: this saves 50 ms of a thousand plugins


@functools.cache
def manager() -> pluggy.PluginManager:
    """Every installed distribution as a plugin under its own name; pluggy blocks those that are hidden.

    Made when a hook is first called: looking components up does without it.
    """
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)
    for distribution in everything():
        if distribution.hidden:
            plugins.set_blocked(distribution.name)
        plugins.register(distribution, distribution.name)
    return plugins


@functools.cache
def everything() -> Sequence[Distribution]:
    """Every distribution with components or hooks, core first, then by name; the hidden ones are among them."""
    installed = [(each.copy, each.problems) for each in scan().installed]
    what = "this name is lmx's own, and its entry points are left out"
    taken = [copy.problem(what, "Remove it.") for copy, _ in installed if copy.name in (CORE, SESSION)]
    found = [_distribution(CORE, __version__, "", [*BUILTIN.items(), ("hooks", HOOKS)], taken)]
    allowed, disabled = named("LMX_PLUGINS"), named("LMX_DISABLE") or set()
    for copy, problems in installed:
        if copy.name in (CORE, SESSION):
            continue
        hidden = "LMX_PLUGINS" if allowed is not None and copy.name not in allowed else None
        hidden = "LMX_DISABLE" if copy.name in disabled else hidden
        found.append(_distribution(copy.name, copy.version, copy.place, copy.entries, problems, hidden))
    return found


def distributions() -> list[Distribution]:
    """Those that take part."""
    return [distribution for distribution in everything() if not distribution.hidden]


def refs() -> Iterator[Ref]:
    """Every component that a distribution which takes part offers."""
    return (ref for distribution in distributions() for ref in distribution.refs)


def forget() -> None:
    """Read everything anew when it is next asked for."""
    for cached in (scan, everything, manager):
        cached.cache_clear()


def named(variable: str) -> set[str] | None:
    """The distributions that an environment variable lists; None where it is not set."""
    text = os.environ.get(variable)
    return None if text is None else {canonical(name.strip()) for name in text.split(",") if name.strip()}


def _distribution(
    name: str,
    version: str,
    place: str,
    entries: Iterable[tuple[str, str]],
    problems: Sequence[Problem] = (),
    hidden: str | None = None,
) -> Distribution:
    found: dict[str, Ref] = {}
    hooks: list[str] = []
    refused: dict[tuple[str, str], Problem] = {}
    for key, target in entries:
        match, goal = KEY.fullmatch(key), TARGET.fullmatch(target)
        if key == "hooks" and not hooks and MODULE.fullmatch(target):
            hooks.append(target)
        elif problem := _refusal(key, target, found, reserved=name != CORE):
            refused[key, target] = Problem(name, version, place, *problem)
        elif match and goal:
            found[key] = Ref(kind=match[1], name=match[2], target=f"{goal[1]}:{goal[2]}", dist=name, version=version)
    refs = list(found.values())
    every = [*problems, *refused.values()]
    return Distribution(name, version, place, refs, hooks[0] if hooks else None, every, list(refused), hidden)


def _refusal(key: str, target: str, found: Iterable[str], reserved: bool) -> tuple[str, str] | None:
    """Why an entry point is left out, and what its author does about it."""
    if reserved and key in BUILTIN:
        return f"entry point {key} has one of core's names and is left out", "Its author must rename it."
    if key in found or key == "hooks":
        rule = "is there twice" if MODULE.fullmatch(target) or key in found else "names no module"
        return f'entry point {key} = "{target}" {rule} and is left out', "Its author must mend it."
    if not (KEY.fullmatch(key) and TARGET.fullmatch(target)):
        form = '"<kind>.<name>" = "module:attribute"'
        return f'entry point {key} = "{target}" is not of the form {form} and is left out', "Its author must mend it."
    return None
