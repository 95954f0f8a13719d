"""Odds-ratio preference optimisation."""

import attrs
from attrs import validators

from lmx_core.config import exact_types
from lmx_rl.preference.base import ComparisonOptions, Pairing
from lmx_rl.preference.losses import odds_ratio
from lmx_rl.preference.objective import Compared, Outcome, means


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ORPOOptions(ComparisonOptions):
    """Options of `trainer="orpo"`."""

    beta: float = attrs.field(default=0.1, validator=validators.gt(0))
    """How much the odds ratio counts beside the cross-entropy."""


class ORPO(Pairing):
    """The cross-entropy of the chosen completion, in nats a token, and beside it the odds ratio of the two: ORPO,
    arXiv:2403.07691. It starts from a model that has learned no answers yet, and knows no reference.

    The reward of a completion is beta times its mean log-probability of a token.
    """

    Options = ORPOOptions
    options: ORPOOptions

    def outcome(self, compared: Compared) -> Outcome:
        (chosen, rejected), beta = means(compared), self.options.beta
        return Outcome(odds_ratio(chosen, rejected, beta=beta) - chosen, beta * chosen, beta * rejected)
