"""Several datasets as one, each with its share of the training tokens."""

import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

import attrs
from attrs import validators

from lmx_core.config import ComponentSpec, Field, as_spec, as_tuple, exact_types
from lmx_core.construct import build


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class Part:
    """One of the `parts` of a mixture."""

    dataset: ComponentSpec = attrs.field(converter=as_spec, metadata={"kind": "dataset"})
    weight: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Its share of the training tokens is this, divided by the sum of all weights."""


def _several(instance: object, attribute: Field, value: Sequence[Part]) -> None:
    if not value:
        raise ValueError('expected parts such as { dataset = "shakespeare", weight = 2 }, got none')


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MixtureOptions:
    """Options of `dataset="mixture"`."""

    parts: tuple[Part, ...] = attrs.field(converter=as_tuple, validator=_several)
    """Tables of a `dataset` and its `weight`, 1 unless given: what is read of each does not depend on how large it is."""


class Mixture:
    """Datasets from which training reads in turn, by weights; a small one is read more often than a large one.

    The held-out text begins with a share of each part, too.
    """

    Options = MixtureOptions

    def __init__(self, options: MixtureOptions) -> None:
        self.options = options

    @cached_property
    def parts(self) -> Sequence[tuple[Any, float]]:
        """The datasets and their weights."""
        return [(build("dataset", each.dataset), each.weight) for each in self.options.parts]

    def documents(self, split: Literal["train", "validation"]) -> Iterable[str]:
        """Those of one part after the other."""
        return itertools.chain.from_iterable(part.documents(split) for part, _ in self.parts)
