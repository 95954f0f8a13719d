"""Policy gradients of tokens whose log-probabilities are known: B completions, L tokens of each."""

from typing import Any, Literal

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.losses import sequence_means, sequence_sums
from lmx_core.shapes import Bool, Float, Int

positive: Any = validators.gt(0)
not_negative: Any = validators.ge(0)


@attrs.frozen(kw_only=True, slots=False, field_transformer=exact_types)
class PolicyLossOptions:
    """What the loss of a completion's tokens is."""

    ratio: Literal["token", "sequence", "product"] = "token"
    """Of what the new policy's probability is compared with the old one's: of each token; of the completion, as the
    geometric mean over its tokens (GSPO, arXiv:2507.18071; epsilon is then about 3e-4); of the completion as it is (RLOO)."""
    surrogate: Literal["clip", "cispo", "sapo"] = "clip"
    """How a ratio that has gone far is held back: `clip` takes its gradient away (PPO, arXiv:1707.06347); `cispo` goes on
    with the weight `min(ratio, delta)`, without a gradient of its own (arXiv:2506.13585); `sapo` lets the gradient fade,
    `4 / t * sigmoid(t * (ratio - 1))` with t = 1, and 1.05 below an advantage of 0 (arXiv:2511.20347)."""
    epsilon: float = attrs.field(default=0.2, validator=[positive, validators.lt(1)])
    """With `clip`: a ratio below 1 - epsilon has no gradient where the advantage is negative."""
    epsilon_high: float | None = attrs.field(default=None, validator=validators.optional(positive))
    """With `clip`: a ratio above 1 + epsilon_high has none where the advantage is positive; epsilon unless given, 0.28 in
    DAPO (arXiv:2503.14476)."""
    delta: float | None = attrs.field(default=None, validator=validators.optional(positive))
    """The largest ratio that counts also where the advantage is negative (arXiv:2505.07291)."""
    beta: float = attrs.field(default=0.0, validator=not_negative)
    """How much the divergence from the reference costs, in nats a token; without it there is no reference."""
    kl: Literal["k1", "k2", "k3", "k3_clamped"] = "k3"
    """Its estimate, with d = log(reference / policy): `k1` -d, whose gradient is 0 on average; `k2` d^2 / 2; `k3`
    e^d - d - 1; `k3_clamped` that of d within 20, at most 10, without a gradient beyond."""
    kl_corrected: bool = False
    """Multiplies it by the ratio, so that its gradient is right (arXiv:2512.02556)."""
    normalise: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "grpo"
    """What the mean is over: `grpo` the mean of each completion's tokens, over completions (arXiv:2402.03300); `bnpo` the
    tokens of a micro-batch, over micro-batches; `dapo` the tokens of the whole update; `dr_grpo` the completions, each
    divided by `max_new_tokens` (arXiv:2503.20783). What is masked does not count."""

    def __attrs_post_init__(self) -> None:
        if self.surrogate == "cispo" and self.delta is None:
            raise ValueError('surrogate="cispo" is held back by delta alone; give it, such as delta = 5.0')

    @property
    def bounds(self) -> tuple[float, float]:
        """The ratios between which `clip` leaves the gradient."""
        return 1 - self.epsilon, 1 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)


@attrs.frozen(eq=False)
class TokenLosses:
    """What masked tokens have here is 0, and no gradient flows there."""

    loss: array
    """(B, L)."""
    ratio: array
    """(B, L), or (B, 1) where it is that of the completion; 1 where masked."""
    kl: array | None
    """(B, L), the estimated divergence from the reference, where there is one."""


def token_losses(
    options: PolicyLossOptions,
    logps: Float[array, "B L"],
    mask: Bool[array, "B L"],
    advantages: Float[array, "B"],
    old: Float[array, "B L"] | None = None,
    reference: Float[array, "B L"] | None = None,
    weights: Float[array, "B *L"] | None = None,
) -> TokenLosses:
    """`-min(min(ratio, delta) A, clip(ratio) A) * weight + beta * kl`.

    Without `old` the policy is the one that drew the tokens: the ratio is 1, and has its gradient. `weights`, as
    `importance_weights` has them, are for tokens that another program drew. Masked log-probabilities may be any numbers.
    """
    logps = mx.where(mask, logps, 0)
    old = mx.stop_gradient(logps if old is None else mx.where(mask, old, 0))
    ratio = mx.exp(_log_ratio(options.ratio, logps - old, mask))
    gain = _gain(options, ratio, logps, advantages[:, None])
    loss = -gain if weights is None else -gain * weights
    kl = None
    if reference is not None:
        kl = estimated_kl(options.kl, logps, mx.where(mask, reference, 0))
        loss = loss + options.beta * (kl * ratio if options.kl_corrected else kl)
    return TokenLosses(mx.where(mask, loss, 0), ratio, kl)


def estimated_kl(kind: str, logps: Float[array, "*N"], reference: Float[array, "*N"]) -> Float[array, "*N"]:
    """Of tokens that the policy drew, an estimate of KL(policy || reference); see `PolicyLossOptions.kl`."""
    d = reference - logps
    if kind == "k1":
        return -d
    if kind == "k2":
        return mx.square(d) / 2
    if kind == "k3_clamped":
        d = mx.clip(d, -20, 20)
        return mx.clip(mx.exp(d) - d - 1, -10, 10)
    return mx.exp(d) - d - 1


def importance_weights(
    old: Float[array, "B L"],
    sampled: Float[array, "B L"],
    mask: Bool[array, "B L"],
    *,
    sequence: bool = False,
    drop: bool = False,
    limit: float = 3.0,
) -> Float[array, "B *L"]:
    """`exp(old - sampled)`: how much likelier a token is here than in the program that drew it; (B, 1) of whole sequences.

    One above the limit becomes the limit, or 0 with `drop`. No gradient flows through it.
    """
    difference = mx.where(mask, old - sampled, 0)
    weights = mx.exp(difference.sum(-1, keepdims=True) if sequence else difference)
    return mx.stop_gradient(mx.where(weights > limit, 0.0, weights) if drop else mx.minimum(weights, limit))


def normalised(
    losses: Float[array, "B L"], mask: Bool[array, "B L"], how: str, longest: int
) -> tuple[Float[array, ""], Int[array, ""]]:
    """A sum and a count: the sum of several micro-batches' sums, divided by that of their counts, is the loss.

    A completion without a token that counts is none. `longest` is what `dr_grpo` divides by.
    """
    rows = mask.any(-1).sum()
    if how == "grpo":
        return sequence_means(losses, mask).sum(), rows
    if how == "dr_grpo":
        return sequence_sums(losses, mask).sum() / longest, rows
    total, tokens = sequence_sums(losses, mask).sum(), mask.sum()
    if how == "bnpo":
        return total / mx.maximum(tokens, 1), mx.minimum(tokens, 1)
    return total, tokens


def clipped(
    options: PolicyLossOptions, ratio: Float[array, "B *L"], advantages: Float[array, "B"]
) -> tuple[Bool[array, "B *L"], Bool[array, "B *L"]]:
    """Where `clip` has taken the gradient away: below, and above."""
    low, high = options.bounds
    gains = advantages[:, None]
    return (ratio < low) & (gains < 0), (ratio > high) & (gains > 0)


def _log_ratio(kind: str, differences: array, mask: array) -> array:
    if kind == "token":
        return differences
    return (sequence_means if kind == "sequence" else sequence_sums)(differences, mask)[:, None]


def _gain(options: PolicyLossOptions, ratio: array, logps: array, advantages: array) -> array:
    """What is made larger."""
    if options.surrogate == "sapo":
        sharpness = mx.where(advantages > 0, 1.0, 1.05)
        return mx.sigmoid(sharpness * (ratio - 1)) * (4 / sharpness) * advantages
    held = ratio if options.delta is None else mx.minimum(ratio, options.delta)
    if options.surrogate == "cispo":
        return mx.stop_gradient(held) * advantages * logps
    return mx.minimum(held * advantages, mx.clip(ratio, *options.bounds) * advantages)
