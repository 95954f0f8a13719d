"""Contrastive preference optimisation."""

from typing import Literal

import attrs
import mlx.core as mx
from attrs import validators

from lmx_core.config import exact_types
from lmx_rl.preference.base import ComparisonOptions, Pairing
from lmx_rl.preference.losses import LOSSES, LossOptions, Pairs
from lmx_rl.preference.objective import Compared, Outcome, means


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class CPOOptions(ComparisonOptions):
    """Options of `trainer="cpo"`."""

    loss: Literal["hinge", "ipo", "sigmoid"] = "sigmoid"
    """Of the log-probabilities of the completions; `ipo` of their means over tokens."""
    beta: float = attrs.field(default=0.1, validator=validators.gt(0))
    """Factor of the log-probabilities."""
    label_smoothing: float = attrs.field(default=0.0, validator=[validators.ge(0), validators.lt(0.5)])
    """The share of the pairs that are taken to be the wrong way round; of `sigmoid`."""
    sft_weight: float = attrs.field(default=1.0, validator=validators.ge(0))
    """Of the cross-entropy of the chosen completion, in nats a token, which is added."""


class CPO(Pairing):
    """DPO's loss without a reference, and the cross-entropy of the chosen completion: CPO, arXiv:2401.08417.

    The reward of a completion is beta times what the loss compares.
    """

    Options = CPOOptions
    fixed = ("truncation", "loss")
    options: CPOOptions

    def outcome(self, compared: Compared) -> Outcome:
        options = self.options
        average = means(compared)
        chosen, rejected = average if options.loss == "ipo" else mx.split(compared.logps.sum(-1), 2)
        nothing = mx.zeros_like(chosen)
        strict = LossOptions(beta=options.beta, label_smoothing=options.label_smoothing)
        loss = LOSSES[options.loss](Pairs(chosen, rejected, nothing, nothing), strict)
        return Outcome(loss - options.sft_weight * average[0], options.beta * chosen, options.beta * rejected)
