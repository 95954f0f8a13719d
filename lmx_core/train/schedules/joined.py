"""Schedules one after another."""

from typing import Any

import attrs
from attrs import validators

from lmx_core.config import ComponentSpec, Field, as_tuple, exact_types, slot
from lmx_core.construct import build
from lmx_core.train.config import TrainConfig
from lmx_core.train.schedules.warmed import from_0_to_1

ROUNDING = 1e-9


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SchedulePart:
    """A schedule that has a part of the run for itself."""

    schedule: ComponentSpec = slot("schedule", "constant")
    share: float = attrs.field(default=1.0, validator=validators.gt(0))
    """How long it is, in relation to the others."""
    peak: float = attrs.field(default=1.0, validator=from_0_to_1)
    """Its highest rate, as a share of `learning_rate`."""
    warmup_steps: int | None = attrs.field(default=None, validator=validators.optional(validators.ge(0)))
    """Its own warm-up; unless given the first part has the run's, and the others none."""


def _not_empty(instance: object, attribute: Field, value: tuple[Any, ...]) -> None:
    if not value:
        raise ValueError("expected at least one part, got none")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class JoinedOptions:
    """Options of `schedule="joined"`."""

    parts: tuple[SchedulePart, ...] = attrs.field(converter=as_tuple, validator=_not_empty)
    """`[{schedule = "constant", share = 3}, {schedule = "linear", share = 1}]`, in order."""


class Joined:
    """Schedules one after another, each over its share of the run as if that were all of it.

    `parts = [{schedule = "cosine"}, {schedule = "cosine"}]` is a cosine with one restart (SGDR, arXiv:1608.03983).
    """

    Options = JoinedOptions

    def __init__(self, config: TrainConfig, options: JoinedOptions) -> None:
        whole = sum(part.share for part in options.parts)
        warmups = [config.warmup_steps, *[0] * len(options.parts)]
        self.parts: list[tuple[float, float, Any]] = []
        """Where each begins and ends, from 0 to 1, and the schedule."""
        begin = 0.0
        for part, usual in zip(options.parts, warmups, strict=False):
            length = part.share / whole
            own = attrs.evolve(
                config,
                learning_rate=part.peak * config.learning_rate,
                warmup_steps=usual if part.warmup_steps is None else part.warmup_steps,
                max_steps=max(round(length * config.max_steps), 1),
            )
            self.parts.append((begin, begin + length, build("schedule", part.schedule, own)))
            begin += length

    def __call__(self, step: int, progress: float) -> float:
        begin, end, schedule = next(
            part for part in reversed(self.parts) if part[0] <= progress + ROUNDING or not part[0]
        )
        before = step * begin / progress if progress else 0.0  # steps, at the pace until now
        gone = (progress - begin) / (end - begin)
        return schedule(int(step - before + ROUNDING), min(max(gone, 0.0), 1.0))
