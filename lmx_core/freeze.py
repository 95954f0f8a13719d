"""What a saved thing was built with, and how it is read by what is installed later."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
from attrs import validators

from lmx_core.config import ComponentSpec
from lmx_core.errors import CheckpointError, ComponentError, LmxWarning, UnknownComponentError, report, told
from lmx_core.metadata import UNKNOWN, canonical
from lmx_core.parts import components, rewritten
from lmx_core.plugins import CORE, distributions
from lmx_core.ref import Ref
from lmx_core.registry import SESSION, registry

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Record:
    """A component as a saved thing remembers it."""

    kind: str
    name: str
    """As the config names it, bare or qualified."""
    distribution: str = attrs.field(validator=validators.matches_re(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"))
    """Held to the grammar of names, as `version` is to its own: both end up in lines that people give to pip."""
    version: str = attrs.field(validator=validators.matches_re(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*"))
    entry_point: str
    """For people to read: nothing is ever imported from it."""
    options_version: int = 1
    """The component's `options_version` when it was saved."""

    @property
    def bare(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def meant(self) -> str:
        """The name that finds this component among those installed, whoever else offers it."""
        return self.bare if self.distribution == SESSION else f"{self.distribution}/{self.bare}"


def record(kind: str, name: str) -> Record:
    """What there is to remember of an installed component."""
    ref = registry(kind).find(name)
    return Record(
        kind=kind,
        name=name,
        distribution=ref.dist,
        version=ref.version,
        entry_point=ref.target,
        options_version=_options_version(registry(kind).get(name)),
    )


def records(config: Any) -> list[Record]:
    """One record for each component that a config names."""
    return [record(kind, name) for kind, name in sorted({(kind, chosen.name) for kind, chosen in components(config)})]


def read_records(data: Any, file: Path) -> list[Record]:
    """Records from the plain data of a file, `CheckpointError` where it is damaged."""
    known = {field.name: field.type for field in attrs.fields(Record)}
    try:
        found = [Record(**{key: value for key, value in each.items() if key in known}) for each in data]
        wrong = [value for each in found for key, value in attrs.asdict(each).items() if type(value) is not known[key]]
        if wrong:
            raise TypeError(f"{wrong[0]!r} in a record of a component")
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged or not lmx's ({type(error).__name__}: {error.args[0]})") from None
    return found


def requirements_of(needed: Iterable[Record]) -> list[str]:
    """The distributions as pip's requirements, core first."""
    pins = {
        (each.distribution != CORE, each.distribution + (f"=={each.version}" if each.version != UNKNOWN else ""))
        for each in needed
        if each.distribution != SESSION
    }
    return [pin for _, pin in sorted(pins)]


def check_installed(needed: Iterable[Record], file: Path) -> None:
    """Every component is there, of the distribution that it was saved with; another version of it is a warning.

    One that is missing raises `UnknownComponentError` with the distribution to install; several raise one
    `CheckpointError`.
    """
    absent = {each: error for each in needed if (error := _absence(each))}
    if len(absent) == 1:
        raise next(iter(absent.values()))
    if absent:
        lines = [(f"{each.kind}.{each.name}", str(error)) for each, error in absent.items()]
        install = " ".join(sorted({each.distribution for each in absent} - {SESSION}))
        raise CheckpointError(report(str(file), lines) + (f"\npip install {install}" if install else ""))
    for line in sorted({line for each in needed for line in _other_version(each)}):
        warnings.warn(f"{file}: {line}", LmxWarning, stacklevel=2)


def migrated(config: T, needed: Iterable[Record]) -> T:
    """The config as the installed components read it.

    Names that several offer by now mean the distribution they were saved with; options of an older version go through
    the component's `migrate(options, version)`.
    """
    by_name = {(each.kind, each.name): each for each in needed}

    def change(kind: str, chosen: ComponentSpec) -> ComponentSpec:
        saved = by_name.get((kind, chosen.name))
        if saved is None:
            return chosen
        ref = registry(kind).find(saved.meant)
        name = chosen.name if len(registry(kind).refs(ref.name)) == 1 else ref.qualified
        return ComponentSpec(name, _migrated_options(registry(kind).get(saved.meant), chosen.thawed(), saved, ref))

    return rewritten(config, change)


def _options_version(component: Any) -> int:
    return getattr(component, "options_version", 1)


def _absence(saved: Record) -> UnknownComponentError | CheckpointError | None:
    try:
        registry(saved.kind).find(saved.meant)
    except UnknownComponentError as error:
        if saved.distribution == SESSION:
            return CheckpointError(
                f"{saved.kind} {saved.name!r} was registered by the program that saved it. Register it before loading."
            )
        if not error.hidden_by and error.provider != saved.distribution and _is_here(saved.distribution):
            return CheckpointError(
                f"{saved.distribution} has no {saved.kind} {saved.bare!r} any more. It was saved with this one: "
                f'pip install "{saved.distribution}=={saved.version}"'
            )
        return UnknownComponentError(saved.kind, saved.name, error.known, saved.distribution, error.hidden_by)
    except ComponentError:
        return None
    return None


def _is_here(dist: str) -> bool:
    return any(each.name == canonical(dist) for each in distributions())


def _other_version(saved: Record) -> Iterator[str]:
    """Core is left out: its files say by `lmx_format` and by the versions of options what it can read."""
    here = registry(saved.kind).find(saved.meant)
    if here.dist != CORE and (here.dist, here.version) != (saved.distribution, saved.version):
        yield f"saved with {saved.distribution} {saved.version}, read with {here.dist} {here.version}"


def _migrated_options(component: Any, options: dict[str, Any], saved: Record, ref: Ref) -> Mapping[str, Any]:
    here = _options_version(component)
    what = f"{saved.kind} {saved.bare!r} was saved with options of version {saved.options_version}"
    if saved.options_version > here:
        raise CheckpointError(
            f"{what}; {ref.dist} {ref.version} reads version {here}. "
            f'pip install --upgrade "{saved.distribution}>={saved.version}"'
        )
    if saved.options_version == here:
        return options
    migrate = getattr(component, "migrate", None)
    way_out = f'pip install "{saved.distribution}=={saved.version}"'
    if migrate is None:
        raise CheckpointError(f"{what}; {ref.dist} {ref.version} reads version {here} and has no migrate(). {way_out}")
    try:
        return dict(migrate(options, saved.options_version))
    except (Exception, SystemExit) as error:
        raise CheckpointError(
            f"{what}, which {ref.dist} {ref.version} fails to migrate ({told(error)}). {way_out}"
        ) from error
