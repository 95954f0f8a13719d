"""Kahneman-Tversky optimisation."""

from typing import Literal

import attrs
from attrs import validators

from lmx_core.config import exact_types
from lmx_core.protocols import Tokenizer
from lmx_rl.preference.base import Comparing, ComparisonOptions
from lmx_rl.preference.dpo import ReferenceOptions
from lmx_rl.preference.material import Comparisons, Split, mismatched, read_judged
from lmx_rl.preference.objective import JudgedObjective
from lmx_rl.preference.reference import Reference
from lmx_rl.preference.source import JudgedSource


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class KTOOptions(ReferenceOptions, ComparisonOptions):
    """Options of `trainer="kto"`."""

    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    """The second knows no shift by the KL to the reference (arXiv:2408.06266)."""
    beta: float = attrs.field(default=0.1, validator=validators.gt(0))
    """How closely the policy is held to the reference: the higher, the closer."""
    desirable_weight: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Of good completions; the paper advises weights that make up for how many there are of each, within 1 to 4/3."""
    undesirable_weight: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Of the others."""


class KTO(Comparing):
    """Completions that were found good or bad, each by itself: KTO, arXiv:2402.01306. Pairs are taken apart.

    How far the policy is from the reference it learns from as many completions of other prompts, of the batch that runs at
    once: batches should have 8 or more, and how those of an update are divided into batches matters.
    """

    Options = KTOOptions
    fixed = ("truncation", "loss", "reference", "precompute")
    options: KTOOptions

    def read(self, tokenizer: Tokenizer | None) -> Comparisons:
        return read_judged(self.config.data, self.config.train.seq_len, self.options.truncation, tokenizer)

    def objective(self) -> JudgedObjective:
        options = self.options
        return JudgedObjective(
            beta=options.beta,
            desirable=options.desirable_weight,
            undesirable=options.undesirable_weight,
            shifted=options.loss == "kto",
        )

    def reference(self, material: Comparisons) -> Reference:
        longest = self.config.train.seq_len
        tables = {
            "train": material.train.rows,
            "validation": material.validation.rows,
            "train_others": mismatched(material.train.rows, longest),
            "validation_others": mismatched(material.validation.rows, longest),
        }
        options = self.options
        return Reference(tables, self.config.train.batch_size, options.reference, options.precompute)

    def sources(self, material: Comparisons, reference: Reference | None) -> tuple[JudgedSource, JudgedSource]:
        assert reference is not None
        train = self._source("train", material.train, reference, self.options.shuffle)
        return train, self._source("validation", material.validation, reference, shuffle=False)

    def _source(self, name: str, split: Split, reference: Reference, shuffle: bool) -> JudgedSource:
        assert split.good is not None
        names, seed = (name, f"{name}_others"), self.config.train.seed
        others = reference.tables[names[1]]
        return JudgedSource(names, split.rows, others, split.good, reference, seed, shuffle)
