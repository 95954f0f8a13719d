"""The suite of a component: what every component of its kind promises, as cases that can be run."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import attrs

from lmx_core.block import WORDS
from lmx_core.components.positions import provided
from lmx_core.config import ComponentSpec, spec
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.factories import make_config
from lmx_core.model import LanguageModel
from lmx_core.plugins import CORE
from lmx_core.registry import SESSION, registry
from lmx_core.testing import checks
from lmx_core.testing.candidate import Candidate, candidate
from lmx_core.testing.checks.options import import_is_light
from lmx_core.testing.checks.sublayers import (
    distance_alone_counts,
    position_makes_a_difference,
    takes_a_width,
)
from lmx_core.testing.subjects import Make


@attrs.frozen(kw_only=True)
class Case:
    """One promise of one component: `run()` raises where it is broken."""

    name: str
    doc: str
    run: Callable[[], None]


def cases(
    kind_and_name: str,
    component: Any = None,
    *,
    options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> list[Case]:
    """The suite of `"attention.mla"`, of `"ffn.acme-ffn/relu2"`, or of a class that need not be installed: `"ffn", ReLU2`.

    `options` are the component's own; those without a default must be given. `config` holds the numbers that differ from
    those which the kit builds with (`lmx_core.testing.SMALL`, or a short training run's). Parameters and inputs are
    always drawn alike; `with seeded(7): case.run()` draws others.
    """
    with _known(kind_and_name, component) as (kind, name):
        found = candidate(kind, name, options or {}, config or {})
        suite = [*_suite(found)]

    def run(case: Case) -> None:
        with _known(kind_and_name, component):
            case.run()

    return [attrs.evolve(case, run=partial(run, case)) for case in suite]


@contextmanager
def _known(kind_and_name: str, component: Any) -> Generator[tuple[str, str], None, None]:
    """Within it the component has a name: its own, or, where a class is given, one made of the class's."""
    kind, _, name = kind_and_name.partition(".")
    if bool(name) == (component is not None):
        raise ConfigError(f'{kind_and_name!r} is no component. Write "<kind>.<name>", or the kind and a class.')
    if name:
        yield kind, name
        return
    called = getattr(component, "__name__", "")
    name = f"{called if called.isidentifier() else 'component'}-under-test"  # which no one else registers
    registry(kind).register(name)(component)
    try:
        yield kind, name
    finally:
        registry(kind).unregister(name)


def _suite(found: Candidate) -> Iterator[Case]:
    """What holds for its kind, then what holds for every component; kinds of a plugin's own have the latter alone."""
    if found.kind in SUITES:
        yield from SUITES[found.kind](found)
    yield from _holds(checks.OPTIONS, found)
    ref = registry(found.kind).find(found.name)
    if ref.dist != SESSION:
        yield from _holds([import_is_light], ref)


def _holds(promises: Iterable[Callable[[Any], None]], subject: Any, where: str = "") -> Iterator[Case]:
    for check in promises:
        summary = (check.__doc__ or "").strip().partition("\n\n")[0]
        yield Case(name=f"{check.__name__}{where}", doc=" ".join(summary.split()), run=partial(check, subject))


def _mixer(found: Candidate) -> Iterator[Case]:
    """By itself, and in a block with each kind of position that it takes."""
    yield from _holds(checks.MIXER, found.bare())
    positions = list(_positions(found))
    for what, position in positions:
        block = found.block(position=position)
        uses = [position_makes_a_difference, *([distance_alone_counts] if what == "rotate" else [])]
        yield from _holds([*checks.MIXER, *uses], block, f"_with_{what}")
    if not positions:
        yield from _holds(checks.MIXER, found.block(position="none"), "_in_a_block")
    yield from _holds(checks.SAVED, found.model())


def _positions(found: Candidate) -> Iterator[tuple[str, str]]:
    """What a position can give, and the first of core's that gives it alone, where a block lets the mixer have it."""
    found.bare()()  # a mixer that refuses its config says so now: a block that refuses its position is caught below
    core = [ref.name for ref in registry("position").refs() if ref.dist == CORE]
    for what in sorted(WORDS):
        name = next(name for name in core if provided(build("position", name, found.config)) == {what})
        with suppress(ConfigError):
            found.block(position=name)()
            yield what, name


def _ffn(found: Candidate) -> Iterator[Case]:
    yield from _holds(checks.FFN, found.bare())
    yield from _holds(checks.SAVED, found.model())


def _norm(found: Candidate) -> Iterator[Case]:
    yield from _holds([*checks.NORM, takes_a_width], found.bare())
    yield from _holds(checks.SAVED, found.model())


def _position(found: Candidate) -> Iterator[Case]:
    if provided(found.bare()()):
        yield from _holds(checks.POSITION, found.bare())
    yield from _holds(checks.MODEL, found.model(), "_in_a_model")


def _layout(found: Candidate) -> Iterator[Case]:
    yield from _holds(checks.LAYOUT, found.bare())
    yield from _holds(checks.MIXER, found.block())
    for sublayer in ("attention", "ffn"):
        yield from _holds(checks.MIXER, found.block(**{sublayer: "none"}), f"_without_{sublayer}")
    yield from _holds(checks.SAVED, found.model())


def _cache(found: Candidate) -> Iterator[Case]:
    """Those that hold keys and values; what others hold is their mixers' matter, whose suites try it."""
    if hasattr(found.component, "update_and_fetch"):
        yield from _holds(checks.CACHE, found.bare())


def _scaling(found: Candidate) -> Iterator[Case]:
    yield from _holds(checks.SCALING, found.bare())
    rope = spec("rope", scaling=ComponentSpec(found.name, found.chosen.options))
    yield from _holds(checks.POSITION, Make(lambda config: build("position", rope, config)), "_as_a_rope")


def _factory(found: Candidate) -> Iterator[Case]:
    yield from _holds(checks.FACTORY, found)
    yield from _holds(checks.MODEL, Make(lambda _: LanguageModel(make_config(found.name, size="tiny"))), "_when_tiny")


def _whole(promises: checks.Others) -> Callable[[Candidate], Iterator[Case]]:
    return lambda found: _holds(promises, found)


SUITES: Mapping[str, Callable[[Candidate], Iterator[Case]]] = {
    "attention": _mixer,
    "ffn": _ffn,
    "norm": _norm,
    "position": _position,
    "layout": _layout,
    "cache": _cache,
    "scaling": _scaling,
    "config": _factory,
    "tokenizer": _whole(checks.TOKENIZER),
    "dataset": _whole(checks.DATASET),
    "objective": _whole(checks.OBJECTIVE),
    "optimizer": _whole(checks.OPTIMIZER),
    "schedule": _whole(checks.SCHEDULE),
    "source": _whole(checks.SOURCE),
    "curriculum": _whole(checks.CURRICULUM),
    "callback": _whole(checks.CALLBACK),
    "trainer": _whole(checks.TRAINER),
    "command": _whole(checks.COMMAND),
}
