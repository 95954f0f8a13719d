"""What is installed and in what state, for people: found without importing a plugin, except where problems are looked for."""

import ast
import contextlib
import importlib.machinery
import importlib.util
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from lmx_core import hooks, metadata, plugins
from lmx_core.errors import BackendError, ConfigError, did_you_mean
from lmx_core.metadata import Problem, canonical
from lmx_core.plugins import CORE
from lmx_core.ref import BrokenComponentError, Ref
from lmx_core.registry import SESSION, kinds, registry

Offers = Mapping[tuple[str, str], int]
State = Literal["ok", "clash", "hidden", "refused", "missing"]
PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}")
CITED = re.compile(r"\(([^()]*\b(?:19|20)\d\d\b[^()]*)\)")
"""`(Radford et al. 2019)`: what is on no arXiv."""


@attrs.frozen(kw_only=True)
class Entry:
    """One entry point: `refused` when it is malformed or has one of core's names, `missing` when its module has no file."""

    kind: str
    name: str
    distribution: str
    version: str
    file: str
    """Of its module; that of its metadata where there is none."""
    state: State


def entries() -> list[Entry]:
    """Everything that is offered, hidden or left out, in the order of kinds, names and distributions."""
    offers = Counter((ref.kind, ref.name) for each in kinds() for ref in registry(each).refs())
    found = [entry for dist in plugins.everything() for entry in _entries(dist, offers)]
    found += [_entry(ref, "", offers) for each in kinds() for ref in registry(each).refs() if ref.dist == SESSION]
    return sorted(found, key=lambda entry: (entry.kind, entry.name, entry.distribution))


def find(name: str) -> Ref:
    """The component that `attention.mla`, `attention.lmx-attn-mla/mla`, or `mla` where one kind has it, stands for."""
    kind, _, rest = name.partition(".")
    if kind in kinds() and rest:
        return registry(kind).find(rest)
    dist, _, bare = name.rpartition("/")
    everything = [entry for entry in entries() if entry.state != "refused"]
    having = sorted({e.kind for e in everything if e.name == bare and canonical(dist) in ("", e.distribution)})
    if len(having) > 1:  # a kind that a plugin brought takes no name from core's
        having = [kind for kind in having if any(ref.dist == CORE for ref in registry(kind).refs())] or having
    if len(having) == 1:
        return registry(having[0]).find(name)
    if having:
        written = ", ".join(f"{each}.{name}" for each in having)
        raise ConfigError(f"{name!r} is the name of several components. Write one of: {written}.")
    known = [f"{entry.kind}.{entry.name}" for entry in everything]
    near = did_you_mean(name, known) or did_you_mean(name, [entry.name for entry in everything])
    raise ConfigError(f"no component named {name!r}. {near}`lmx plugins list` shows what is installed.")


def module_file(module: str) -> str | None:
    """The file of a module, found without importing it or a package above it; None where there is none."""
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    for part in below:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec.origin if spec else None


def sources(kind: str) -> dict[tuple[str, str], list[str]]:
    """The papers that components of a kind name in their docstrings, by (name, distribution); nothing is imported for it."""
    texts: dict[tuple[str, str], str] = {}
    for ref in registry(kind).refs():
        module, _, attribute = ref.target.partition(":")
        texts[ref.name, ref.dist] = " ".join(_docstring(module, attribute).split())
    return {key: list(dict.fromkeys(PAPER.findall(text))) or CITED.findall(text)[:1] for key, text in texts.items()}


def _docstring(module: str, attribute: str, hops: int = 3) -> str:
    """As the source has it, also where the module has the name from another one; nothing where that does not show."""
    file, body = module_file(module), list[ast.stmt]()
    with contextlib.suppress(OSError, ValueError, SyntaxError):
        body = ast.parse(Path(file).read_text(encoding="utf-8")).body if file else []
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.ImportFrom) and hops:
            for alias in node.names:
                if attribute == (alias.asname or alias.name):
                    return _docstring(_imported(node, module, file or ""), alias.name, hops - 1)
    return ""


def _imported(node: ast.ImportFrom, module: str, file: str) -> str:
    """The module from which an `import` takes a name."""
    package = module if Path(file).stem == "__init__" else module.rpartition(".")[0]
    above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def problems() -> list[Problem]:
    """What is wrong with what is installed. Imports every component that is not core's."""
    found = [*_named_in_vain(), *(problem for dist in plugins.distributions() for problem in dist.problems)]
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        found += [*_leftovers(found), *_clashes(), *hooks.problems()]
        for dist in plugins.distributions():
            found += [problem for ref in dist.refs if dist.name != CORE and (problem := _broken(ref, dist.place))]
    return found


def mistyped(name: str) -> str | None:
    """`Did you mean 'acme-ffn'? `, or nothing, for a name that no installed plugin has; None for one that is installed."""
    known = [dist.name for dist in plugins.everything()]
    return None if canonical(name) in known else did_you_mean(canonical(name), known)


def _named_in_vain() -> Iterator[Problem]:
    """Names in variables: what they hide, or should keep, is not what was meant."""
    for variable in ("LMX_PLUGINS", "LMX_DISABLE"):
        for name in sorted(plugins.named(variable) or ()):
            if (near := mistyped(name)) is not None:
                what, fix = "no installed plugin has this name", f"{near}Correct {variable} or unset it."
                yield Problem(name, "not installed", variable, what, fix)


def _entries(dist: plugins.Distribution, offers: Offers) -> Iterator[Entry]:
    for ref in dist.refs:
        yield _entry(ref, dist.place, offers, dist.hidden)
    for key, _ in dist.refused:
        kind, dot, name = key.partition(".")
        yield Entry(
            kind=kind if dot else "",
            name=name if dot else key,
            distribution=dist.name,
            version=dist.version,
            file=dist.place,
            state="refused",
        )


def _entry(ref: Ref, place: str, offers: Offers, hidden: str | None = None) -> Entry:
    file = module_file(ref.module)
    state: State = "clash" if offers[ref.kind, ref.name] > 1 else "ok"
    if file is None and ref.dist != SESSION:
        state = "missing"
    return Entry(
        kind=ref.kind,
        name=ref.name,
        distribution=ref.dist,
        version=ref.version,
        file=file or place,
        state="hidden" if hidden else state,
    )


def _leftovers(told: Sequence[Problem]) -> list[Problem]:
    places = {problem.file for problem in told}
    return [problem for problem in metadata.leftovers() if problem.file not in places]


def _clashes() -> Iterator[Problem]:
    for kind in kinds():
        for name in registry(kind).names():
            refs = [ref for ref in registry(kind).refs(name) if ref.dist != SESSION]
            for ref in refs if len(refs) > 1 else ():
                others = " and ".join(other.dist for other in refs if other is not ref)
                what = f"{kind}.{name} is offered by {others} too, so that the bare name is refused"
                yield Problem(ref.dist, ref.version, module_file(ref.module) or "no file", what, _choice(ref, refs))


def _choice(ref: Ref, refs: Sequence[Ref]) -> str:
    """How a person says which of several is meant."""
    if ref.kind == "command":
        return f"Write {' or '.join(f'`lmx {each.qualified}`' for each in refs)}."
    written = " or ".join(f'"{each.qualified}"' for each in refs)
    return f'Write {written} in the config, or prefer = ["{ref.dist}"] at its top.'


def _broken(ref: Ref, place: str) -> Problem | None:
    try:
        ref.load()
    except BackendError:
        return None  # MLX itself is missing: a problem of its own
    except BrokenComponentError as error:
        file = module_file(ref.module) or place
        what = f"{ref.kind}.{ref.name} ({ref.target}) could not be loaded: {error.reason}"
        return Problem(ref.dist, ref.version, file, what, _way_out(error, ref.dist))
    return None


def _way_out(error: BrokenComponentError, dist: str) -> str:
    missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
    first = f"Install {missing}" if missing and missing != error.ref.module else "Its author must mend it"
    return f"{first}. Until then hide it with LMX_DISABLE={dist}, or remove it: pip uninstall {dist}"
