"""Simple preference optimisation."""

import attrs
from attrs import validators

from lmx_core.config import exact_types
from lmx_rl.preference.base import ComparisonOptions, Pairing
from lmx_rl.preference.losses import simpo
from lmx_rl.preference.objective import Compared, Outcome, means


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SimPOOptions(ComparisonOptions):
    """Options of `trainer="simpo"`."""

    beta: float = attrs.field(default=2.0, validator=validators.gt(0))
    """Factor of the mean log-probability of a token."""
    gamma: float = attrs.field(default=1.0, validator=validators.ge(0))
    """By how much the reward of the chosen completion is to be above the other: the paper takes 0.2 to 0.8 of beta."""
    alpha: float = 0.0
    """Of AlphaPO (arXiv:2501.03884), whose reward is bent; 0 is SimPO."""
    sft_weight: float = attrs.field(default=0.0, validator=validators.ge(0))
    """Of the cross-entropy of the chosen completion, in nats a token, which is added."""


class SimPO(Pairing):
    """Pairs told apart by the mean log-probability of a token, without a reference: SimPO, arXiv:2405.14734.

    The reward of a completion is beta times that mean.
    """

    Options = SimPOOptions
    options: SimPOOptions

    def outcome(self, compared: Compared) -> Outcome:
        (chosen, rejected), options = means(compared), self.options
        loss = simpo(chosen, rejected, beta=options.beta, gamma=options.gamma, alpha=options.alpha)
        return Outcome(loss - options.sft_weight * chosen, options.beta * chosen, options.beta * rejected)
