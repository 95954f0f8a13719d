"""Direct preference optimisation."""

from collections.abc import Sequence
from typing import Literal

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.errors import ConfigError
from lmx_core.train.config import RunConfig
from lmx_rl.preference.base import ComparisonOptions, Pairing
from lmx_rl.preference.losses import LOSSES, PER_TOKEN, LossOptions, Pairs, divergence, diverging
from lmx_rl.preference.material import Comparisons
from lmx_rl.preference.objective import Compared, Outcome, means
from lmx_rl.preference.reference import Reference
from lmx_rl.preference.weights import collisions, on_policy_weights, shared_weights

Name = Literal[
    "aot", "aot_unpaired", "apo_down", "apo_zero", "bco_pair", "discopop", "dpop", "dpop_outside", "exo_pair", "hinge",
    "ipo", "nca_pair", "robust", "sigmoid", "sigmoid_norm", "sppo_hard",
]  # fmt: skip
BY_MARGIN = frozenset({"discopop", "exo_pair", "hinge", "ipo", "robust", "sigmoid", "sigmoid_norm"})
"""Losses of the difference of the two completions alone, of which another divergence may take the place."""
SORTED = frozenset({"aot", "aot_unpaired"})
"""Losses whose numbers are no longer those of one pair each."""


@attrs.frozen(kw_only=True, slots=False, field_transformer=exact_types)
class ReferenceOptions:
    """To what the policy is held."""

    reference: str | None = None
    """A model whose log-probabilities are the reference: a run, a saved model, or what an installed plugin opens; the policy
    before its first step unless given."""
    precompute: bool = True
    """Whether the log-probabilities of all rows are computed before the first step and kept, 4 bytes a token; otherwise those
    of a batch when it is read, by the model of `reference`, which then stays in memory."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class DPOOptions(LossOptions, ReferenceOptions, ComparisonOptions):
    """Options of `trainer="dpo"`."""

    loss: Name = "sigmoid"
    length_normalised: bool | None = None
    """Whether log-probabilities are means over tokens in place of sums; in `ipo` and `sigmoid_norm` they are, in other losses
    not, unless given."""
    reference_free: bool = False
    """Whether every completion is as likely as any other to the reference, so that there is none."""
    divergence: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    """What is held small between policy and reference (arXiv:2309.16240)."""
    divergence_alpha: float = attrs.field(default=0.5, validator=[validators.ge(0), validators.le(1)])
    """Of `alpha_divergence`: 0 is the reverse KL, 1 the forward KL."""
    ld_alpha: float = attrs.field(default=1.0, validator=[validators.ge(0), validators.le(1)])
    """How much the tokens count that the longer completion of a pair has beyond the shorter one (LD-DPO,
    arXiv:2409.06411)."""
    use_weighting: bool = False
    """Whether a pair counts the more the likelier the policy is to write it (WPO, arXiv:2406.11827)."""
    sft_weight: float = attrs.field(default=0.0, validator=validators.ge(0))
    """Of the cross-entropy of the chosen completion, in nats a token, which is added (RPO, arXiv:2404.19733)."""

    def __attrs_post_init__(self) -> None:
        if self.reference_free and self.reference is not None:
            raise ConfigError(
                f"reference_free=true knows no reference, but reference={self.reference!r}. Choose one of them."
            )
        if self.use_weighting and self.loss in SORTED:
            raise ConfigError(
                f"use_weighting=true weighs pairs, and loss={self.loss!r} puts the numbers of a batch in order, after which "
                "they are of no pair. Choose one of them."
            )
        if self.divergence != "reverse_kl" and self.loss not in BY_MARGIN:
            raise ConfigError(
                f"divergence={self.divergence!r} goes with a loss of the pair's difference alone, and loss={self.loss!r} is "
                f"none. Choose one of {', '.join(sorted(BY_MARGIN))}."
            )

    @property
    def normalised(self) -> bool:
        return self.loss in PER_TOKEN if self.length_normalised is None else self.length_normalised


class DPO(Pairing):
    """Pairs told apart by how much likelier each completion has become than it is to the reference: DPO, arXiv:2305.18290,
    and what came after it. The reward of a completion is beta times its log-ratio, as the loss sees it.
    """

    Options = DPOOptions
    fixed = ("truncation", "loss", "reference", "reference_free", "precompute")
    options: DPOOptions

    def __init__(self, config: RunConfig, options: DPOOptions) -> None:
        super().__init__(config, options)
        self.score = divergence(options.divergence, options.divergence_alpha)

    def reference(self, material: Comparisons) -> Reference | None:
        options = self.options
        if options.reference_free:
            return None
        tables = {"train": material.train.rows, "validation": material.validation.rows}
        return Reference(tables, 2 * self.config.train.batch_size, options.reference, options.precompute)

    def outcome(self, compared: Compared) -> Outcome:
        options = self.options
        pairs = self.pairs(compared, options.normalised)
        scored = pairs if options.divergence == "reverse_kl" else self.diverged(compared)
        loss = LOSSES[options.loss](scored, options)
        if options.use_weighting:
            collided = collisions(compared.model, compared.hidden)
            loss = loss * on_policy_weights(compared.logps, collided, compared.mask)
        if options.sft_weight:
            loss = loss - options.sft_weight * means(compared)[0]
        return Outcome(loss, options.beta * pairs.won, options.beta * pairs.lost)

    def diverged(self, compared: Compared) -> Pairs:
        """What another divergence makes of sums over tokens; where means are compared, divided by how many these are."""
        scored = diverging(self.pairs(compared, False), self.score)
        if not self.options.normalised:
            return scored
        chosen, rejected = compared.mask.sum(-1).split(2)
        return attrs.evolve(scored, chosen=scored.chosen / chosen, rejected=scored.rejected / rejected)

    def pairs(self, compared: Compared, normalised: bool) -> Pairs:
        weights = shared_weights(compared.mask, self.options.ld_alpha) if self.options.ld_alpha < 1 else compared.mask
        reference = mx.zeros_like(compared.logps) if compared.reference is None else compared.reference

        def halves(logps: array) -> Sequence[array]:
            total = (logps * weights).sum(-1)
            total = total / compared.mask.sum(-1) if normalised else total
            return total.split(2)

        return Pairs(*halves(compared.logps), *halves(reference))
