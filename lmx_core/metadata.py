"""Which installed distributions have entry points for lmx: read from their metadata, importing none of them."""

import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

GROUP = "lmx.components"
UNKNOWN = "unknown"
SEPARATORS = re.compile(r"[-_.]+")
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@attrs.frozen
class Problem:
    """Something wrong with an installed distribution, for `lmx doctor`."""

    dist: str
    version: str
    file: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.dist} {self.version} ({self.file}): {self.what}. {self.fix}"


@attrs.frozen
class Copy:
    """One metadata directory, `<name>-<version>.dist-info` or `.egg-info`."""

    name: str
    version: str
    place: str
    parent: str
    text: str | None
    """Its entry_points.txt; None where there is none that can be read."""
    unreadable: bool = False

    @property
    def is_egg(self) -> bool:
        return self.place.endswith(".egg-info")

    @functools.cached_property
    def entries(self) -> Sequence[tuple[str, str]]:
        """(name, value) of each line in lmx's group; the value is empty where a line has none."""
        return list(_section(self.text or "", GROUP))

    def is_empty(self) -> bool:
        """Whether an interrupted uninstall left nothing but the directory."""
        stated = any(os.path.exists(f"{self.place}{os.sep}{name}") for name in ("METADATA", "PKG-INFO"))
        return not stated and os.path.isdir(self.place)

    def problem(self, what: str, fix: str) -> Problem:
        return Problem(self.name, self.version, self.place, what, fix)


@attrs.frozen
class Installed:
    """A distribution as it counts: of several copies the one that Python imports."""

    copy: Copy
    problems: Sequence[Problem] = ()


@attrs.frozen
class Scan:
    """What one reading of the metadata found."""

    installed: Sequence[Installed]
    """Those of which a copy has lmx's group, by name."""
    silent: Sequence[Copy]
    """Those without any entry points: leftovers are among them."""


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return SEPARATORS.sub("-", name).lower()


@functools.cache
def scan() -> Scan:
    """Read the metadata of everything on `sys.path`, once a process.

    Of several copies of a distribution that count is decided by `sys.path` and by what they are, never by the order in
    which a directory is listed: leftovers without METADATA last, `egg-info` (a build's by-product) after `dist-info`,
    the first on the path, the highest version.
    """
    copies: dict[str, list[Copy]] = {}
    ranks: dict[str, int] = {}
    for found in _distributions():
        copy = _copy(found)
        if not NAME.fullmatch(copy.name):  # pip renames what it is about to remove, to ~name
            copies.setdefault("", []).append(attrs.evolve(copy, text=None))
        else:
            ranks.setdefault(copy.parent, len(ranks))
            copies.setdefault(copy.name, []).append(copy)
    offering = {name: group for name, group in copies.items() if any(copy.entries or copy.unreadable for copy in group)}
    return Scan(
        [_chosen(group, ranks) for _, group in sorted(offering.items())],
        [copy for group in copies.values() for copy in group if copy.text is None],
    )


def leftovers() -> Iterator[Problem]:
    """Empty metadata directories, of whatever distribution."""
    for copy in sorted(scan().silent, key=lambda copy: copy.place):
        if copy.is_empty():
            yield copy.problem("its metadata directory is empty, as an interrupted uninstall leaves it", "Remove it.")
        elif not NAME.fullmatch(copy.name):
            yield copy.problem("no distribution is called so; pip leaves this when it is interrupted", "Remove it.")


def _distributions() -> Iterable[Any]:
    import importlib_metadata  # here and lazily: importing it replaces the standard library's finder of distributions

    return importlib_metadata.distributions(path=search_path())


def search_path() -> list[str]:
    """The directories whose metadata are read. The kit's `plugins` fixture narrows it to those of a test."""
    return sys.path


def _copy(found: Any) -> Copy:
    place = str(getattr(found, "_path", ""))  # what the directory is called saves reading METADATA, most of the time
    parent, _, file = place.rpartition(os.sep)
    stem, _, kind = file.rpartition(".")
    if kind == "dist-info":
        name, _, version = stem.rpartition("-")
    elif kind == "egg-info":
        name, version, *_ = (*stem.split("-"), "")
    else:
        name = version = ""
    text, unreadable = _entry_points(found, place)
    name, version = name or _stated(found, "name"), version or _stated(found, "version")
    return Copy(canonical(name), version, place, parent, text, unreadable)


def _entry_points(found: Any, place: str) -> tuple[str | None, bool]:
    """The text of entry_points.txt, and whether there is one that cannot be read."""
    try:
        with open(f"{place}{os.sep}entry_points.txt", "rb", buffering=0) as file:
            return file.read().decode().removeprefix("\ufeff"), False
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError):
        return None, True
    try:  # within a zip file, or a finder of its own
        return found.read_text("entry_points.txt"), False
    except (OSError, ValueError):
        return None, True


def _stated(found: Any, what: str) -> str:
    try:
        return getattr(found, what) or UNKNOWN
    except Exception:  # metadata that cannot be read breaks in many ways
        return UNKNOWN


def _section(text: str, wanted: str) -> Iterator[tuple[str, str]]:
    """Entry points are read line by line: a malformed one must not hide the others."""
    if f"[{wanted}]" not in text:
        return
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{wanted}]"
        elif inside and line and line[0] not in "#;":
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _chosen(group: list[Copy], ranks: dict[str, int]) -> Installed:
    if len(group) == 1:
        return Installed(group[0], list(_own(group[0])))
    places = {os.path.realpath(copy.place): copy for copy in reversed(group)}  # a folder may be on the path twice
    order = sorted(places.values(), key=lambda copy: copy.place)
    order.sort(key=lambda copy: [int(number) for number in re.findall(r"\d+", copy.version)], reverse=True)
    order.sort(key=lambda copy: (copy.is_empty(), copy.is_egg, ranks[copy.parent]))
    first, *others = order
    return Installed(first, [*_own(first), *(problem for other in others for problem in _hidden(first, other))])


def _own(copy: Copy) -> Iterator[Problem]:
    if copy.unreadable:
        yield copy.problem("entry_points.txt cannot be read as UTF-8 text", f"Reinstall it: {_reinstall(copy)}")
    if copy.is_empty():
        yield copy.problem("it has no METADATA", f"Reinstall it: {_reinstall(copy)}")


def _hidden(first: Copy, other: Copy) -> Iterator[Problem]:
    """A second copy is wrong, unless it is what an editable install leaves in the source folder."""
    if other.is_empty():
        yield other.problem("its metadata directory is empty, as an interrupted uninstall leaves it", "Remove it.")
    elif other.is_egg and not first.is_egg:
        if (other.version, other.entries) != (first.version, first.entries):
            yield other.problem(
                f"a stale egg-info beside {first.name} {first.version} in {first.place}, which counts", "Remove it."
            )
    else:
        yield other.problem(
            f"installed a second time; {first.version} in {first.place} counts", f"Reinstall it: {_reinstall(other)}"
        )


def _reinstall(copy: Copy) -> str:
    return f"pip uninstall {copy.name} until none is left, then pip install {copy.name}"
