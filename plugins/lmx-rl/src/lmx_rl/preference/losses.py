"""What learning from pairs makes smaller, pair by pair, from the log-probabilities of completions.

In the formulas `h` is by how much the policy's log-probability of a completion is above the reference's, in nats, `w` means
the chosen completion, `l` the rejected one, and `D = h_w - h_l`.
"""

import math
from collections.abc import Callable, Mapping

import attrs
import mlx.core as mx
from attrs import validators
from mlx import nn
from mlx.core import array

from lmx_core.config import exact_types


@attrs.frozen(eq=False)
class Pairs:
    """Log-probabilities of the completions of pairs, (P,) each: sums over their tokens, or means."""

    chosen: array
    rejected: array
    reference_chosen: array
    reference_rejected: array

    @property
    def won(self) -> array:
        """`h_w`"""
        return self.chosen - self.reference_chosen

    @property
    def lost(self) -> array:
        """`h_l`"""
        return self.rejected - self.reference_rejected

    @property
    def margin(self) -> array:
        """`D`"""
        return self.won - self.lost


@attrs.frozen(kw_only=True, slots=False, field_transformer=exact_types)
class LossOptions:
    """How strict a loss is."""

    beta: float = attrs.field(default=0.1, validator=validators.gt(0))
    """How closely the policy is held to the reference: the higher, the closer."""
    label_smoothing: float = attrs.field(default=0.0, validator=[validators.ge(0), validators.lt(0.5)])
    """The share of the pairs that are taken to be the wrong way round, in the losses that know of it: `sigmoid`,
    `sigmoid_norm`, `robust`, `exo_pair`, `aot`, `aot_unpaired`, `dpop`, `dpop_outside`."""
    penalty: float = attrs.field(default=50.0, validator=validators.ge(0))
    """Of `dpop`: how much it counts that the chosen completion becomes less likely than it is to the reference."""
    temperature: float = attrs.field(default=0.05, validator=validators.gt(0))
    """Of `discopop`: how sharply it changes from one loss to the other."""


def sigmoid(pairs: Pairs, options: LossOptions) -> array:
    """`-log sigmoid(beta D)`: DPO, arXiv:2305.18290. With label smoothing e it is conservative DPO,
    `-(1 - e) log sigmoid(beta D) - e log sigmoid(-beta D)`.
    """
    return _smoothed(options.beta * pairs.margin, options.label_smoothing)


def robust(pairs: Pairs, options: LossOptions) -> array:
    """`[-(1 - e) log sigmoid(beta D) + e log sigmoid(-beta D)] / (1 - 2 e)`, arXiv:2403.00409: where a share e of the pairs
    is the wrong way round by chance, its mean is DPO's loss of the right ones.
    """
    logits, e = options.beta * pairs.margin, options.label_smoothing
    return (-(1 - e) * log_sigmoid(logits) + e * log_sigmoid(-logits)) / (1 - 2 * e)


def hinge(pairs: Pairs, options: LossOptions) -> array:
    """`max(0, 1 - beta D)`: SLiC, arXiv:2305.10425."""
    return nn.relu(1 - options.beta * pairs.margin)


def ipo(pairs: Pairs, options: LossOptions) -> array:
    """`(D - 1 / (2 beta))^2`: equation 17 of arXiv:2310.12036, whose authors mean log-probabilities per token."""
    return mx.square(pairs.margin - 1 / (2 * options.beta))


def exo_pair(pairs: Pairs, options: LossOptions) -> array:
    """The KL from what the policy says of the pair to what its label says, smoothed by e: equation 16 of arXiv:2402.00856.

    Without smoothing it would be infinite: e is 0.001 where it is 0.
    """
    logits, e = options.beta * pairs.margin, options.label_smoothing or 1e-3
    right = mx.sigmoid(logits) * (log_sigmoid(logits) - math.log(1 - e))
    return right + mx.sigmoid(-logits) * (log_sigmoid(-logits) - math.log(e))


def nca_pair(pairs: Pairs, options: LossOptions) -> array:
    """`-log sigmoid(beta h_w) - [log sigmoid(-beta h_w) + log sigmoid(-beta h_l)] / 2`: NCA, arXiv:2402.05369."""
    won, lost = options.beta * pairs.won, options.beta * pairs.lost
    return -log_sigmoid(won) - 0.5 * log_sigmoid(-won) - 0.5 * log_sigmoid(-lost)


def bco_pair(pairs: Pairs, options: LossOptions) -> array:
    """`-log sigmoid(beta h_w) - log sigmoid(-beta h_l)`: BCO, arXiv:2404.04656, without its shift by a mean reward."""
    return -log_sigmoid(options.beta * pairs.won) - log_sigmoid(-options.beta * pairs.lost)


def sppo_hard(pairs: Pairs, options: LossOptions) -> array:
    """`(h_w - 1 / (2 beta))^2 + (h_l + 1 / (2 beta))^2`: SPPO of certain preferences, arXiv:2405.00675."""
    half = 1 / (2 * options.beta)
    return mx.square(pairs.won - half) + mx.square(pairs.lost + half)


def aot(pairs: Pairs, options: LossOptions) -> array:
    """DPO's loss where the margins of the policy and those of the reference are each in order: AOT, arXiv:2406.05882.

    In order within the batch that runs at once: how the pairs of an update are divided into batches matters.
    """
    policy, reference = pairs.chosen - pairs.rejected, pairs.reference_chosen - pairs.reference_rejected
    return _smoothed(options.beta * (mx.sort(policy) - mx.sort(reference)), options.label_smoothing)


def aot_unpaired(pairs: Pairs, options: LossOptions) -> array:
    """The same where `h_w` and `h_l` are each in order, so that it does not matter which two make a pair."""
    return _smoothed(options.beta * (mx.sort(pairs.won) - mx.sort(pairs.lost)), options.label_smoothing)


def apo_zero(pairs: Pairs, options: LossOptions) -> array:
    """`1 - sigmoid(beta h_w) + sigmoid(beta h_l)`: APO where chosen completions are better than the model's,
    arXiv:2408.06266.
    """
    return mx.sigmoid(-options.beta * pairs.won) + mx.sigmoid(options.beta * pairs.lost)


def apo_down(pairs: Pairs, options: LossOptions) -> array:
    """`sigmoid(beta h_w) + 1 - sigmoid(beta D)`: APO where the model's are better than the chosen ones."""
    return mx.sigmoid(options.beta * pairs.won) + mx.sigmoid(-options.beta * pairs.margin)


def discopop(pairs: Pairs, options: LossOptions) -> array:
    """DPO's loss and `exp(-beta D)`, of which `sigmoid(beta D / temperature)` is the share of the second: DiscoPOP,
    arXiv:2406.08414.
    """
    logits = options.beta * pairs.margin
    share = mx.sigmoid(logits / options.temperature)
    return (1 - share) * -log_sigmoid(logits) + share * mx.exp(-logits)


def dpop(pairs: Pairs, options: LossOptions) -> array:
    """`-log sigmoid(beta (D - penalty max(0, -h_w)))`: DPO-Positive, arXiv:2402.13228."""
    behind = options.penalty * nn.relu(-pairs.won)
    return _smoothed(options.beta * (pairs.margin - behind), options.label_smoothing)


def dpop_outside(pairs: Pairs, options: LossOptions) -> array:
    """`-log sigmoid(beta D) + penalty max(0, -h_w)`: DPO-Positive as mlx-lm-lora has it."""
    return sigmoid(pairs, options) + options.penalty * nn.relu(-pairs.won)


LOSSES: Mapping[str, Callable[[Pairs, LossOptions], array]] = {
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "apo_down": apo_down,
    "apo_zero": apo_zero,
    "bco_pair": bco_pair,
    "discopop": discopop,
    "dpop": dpop,
    "dpop_outside": dpop_outside,
    "exo_pair": exo_pair,
    "hinge": hinge,
    "ipo": ipo,
    "nca_pair": nca_pair,
    "robust": robust,
    "sigmoid": sigmoid,
    "sigmoid_norm": sigmoid,
    "sppo_hard": sppo_hard,
}
"""By name: TRL's where TRL has it."""
PER_TOKEN = frozenset({"ipo", "sigmoid_norm"})
"""Those that are given means over tokens, unless told otherwise."""


def diverging(pairs: Pairs, score: Callable[[array], array]) -> Pairs:
    """Pairs whose `h_w` and `h_l` are what `score` makes of them."""
    nothing = mx.zeros_like(pairs.chosen)
    return Pairs(score(pairs.won), score(pairs.lost), nothing, nothing)


def divergence(name: str, alpha: float) -> Callable[[array], array]:
    """What stands for `h` where another divergence than the reverse KL holds the policy to the reference: the derivative of
    its generator at `exp h`, 0 where h is (arXiv:2309.16240). `alpha` lies between 0, the reverse KL, and 1, the forward KL.
    """
    found: Mapping[str, Callable[[array], array]] = {
        "reverse_kl": lambda h: h,
        "forward_kl": lambda h: -mx.expm1(-h),
        "js_divergence": lambda h: log_sigmoid(h) + math.log(2),
        "alpha_divergence": lambda h: h if alpha == 0 else -mx.expm1(-alpha * h) / alpha,
    }
    return found[name]


def odds_ratio(chosen: array, rejected: array, *, beta: float) -> array:
    """`-beta log sigmoid(o(a_w) - o(a_l))` with `o(a) = a - log(1 - exp a)` of the policy's mean log-probability `a` of a
    token: what ORPO adds to the cross-entropy of the chosen completion, arXiv:2403.07691.
    """
    return -beta * log_sigmoid(_log_odds(chosen) - _log_odds(rejected))


def simpo(chosen: array, rejected: array, *, beta: float, gamma: float, alpha: float = 0.0) -> array:
    """`-log sigmoid(beta (a_w - a_l) - gamma)` of the policy's mean log-probability `a` of a token: SimPO, arXiv:2405.14734.
    Where alpha is not 0, `(1 - exp(-alpha a)) / alpha` stands for `a`: AlphaPO, arXiv:2501.03884.
    """
    if alpha:
        chosen, rejected = ((1 - mx.exp(-alpha * each)) / alpha for each in (chosen, rejected))
    return -log_sigmoid(beta * (chosen - rejected) - gamma)


def kto(h: array, good: array, shift: array, *, beta: float, desirable: float = 1.0, undesirable: float = 1.0) -> array:
    """Of each completion by itself: `desirable * (1 - sigmoid(beta (h - z)))` of a good one, and else
    `undesirable * (1 - sigmoid(beta (z - h)))`. KTO, equation 7 of arXiv:2402.01306, with `kl_of_mismatched` for the shift z.
    """
    above = beta * (h - mx.stop_gradient(shift))
    return mx.where(good, desirable * mx.sigmoid(-above), undesirable * mx.sigmoid(above))


def kl_of_mismatched(h: array) -> array:
    """How far the policy is from the reference, from completions that answer other prompts: the mean of `h`, not below 0."""
    return mx.maximum(mx.stop_gradient(h).mean(), 0)


def log_sigmoid(x: array) -> array:
    return -mx.logaddexp(mx.zeros_like(x), -x)


def _smoothed(logits: array, e: float) -> array:
    return -(1 - e) * log_sigmoid(logits) - e * log_sigmoid(-logits) if e else -log_sigmoid(logits)


def _log_odds(logp: array) -> array:
    return logp - _log1m_exp(mx.minimum(logp, -1e-6))  # a certain completion has finite odds


def _log1m_exp(x: array) -> array:
    """`log(1 - exp x)` of x < 0, to full precision near 0 and far from it."""
    near = x > -math.log(2)
    close, far = mx.where(near, x, -0.5), mx.where(near, -1.0, x)  # the branch that is not taken has a finite gradient
    return mx.where(near, mx.log(-mx.expm1(close)), mx.log1p(-mx.exp(far)))
