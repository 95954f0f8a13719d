"""Which experts a token goes to. Besides core's axis letters: `T` tokens, `N` experts, `C` chosen ones."""

import math
from collections.abc import Callable
from functools import cached_property

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.shapes import Float, Int
from lmx_ffn_moe.dispatch import load
from lmx_ffn_moe.options import RouterOptions

LEAST = 1e-20
"""Added to a sum of weights before it divides them: every sigmoid may be 0."""


@attrs.frozen(kw_only=True, eq=False)
class Routing:
    """Where tokens go."""

    logits: Float[array, "T N"]
    probabilities: Float[array, "T N"]
    """Of the experts; scores that do not sum to 1 are divided by their sum."""
    chosen: Int[array, "T C"]
    """The experts, by their number."""
    weights: Float[array, "T C"]
    """What their outputs are multiplied with."""

    @cached_property
    def load(self) -> Float[array, "N"]:
        """The share of all choices that each expert got. Computed once: compiled, an output must not occur twice in a
        graph (MLX 0.32)."""
        return load(self.chosen.flatten(), self.logits.shape[-1]) / self.chosen.size

    def imbalance(self) -> Float[array, ""]:
        """`N * sum of load * mean probability`: equation 4 of arXiv:2101.03961, with loads that sum to 1 for any top_k.

        1 when both are even, N when all tokens go to one expert. Its gradient flows through the probabilities.
        """
        return self.logits.shape[-1] * (self.load * self.probabilities.mean(axis=0)).sum()

    def load_entropy(self) -> Float[array, ""]:
        """Entropy of the load, as a share of the largest possible: 1 when even, 0 when all tokens go to one expert."""
        logs = mx.log(mx.maximum(self.load, 1e-30))
        return -(self.load * logs).sum() / math.log(len(self.load))


class Router(nn.Module):
    """Scores of `W x`, of which the `top_k` largest count.

    In float32, and not quantised with the linear layers: a rounded logit may be another expert.
    """

    full_precision = frozenset({"weight", "bias", "correction"})
    sensitive = True

    def __init__(self, width: int, options: RouterOptions) -> None:
        super().__init__()
        self.options = options
        # Experts of the largest logits have the largest scores, which far out are all 1 or 0.
        self.plain = not options.correction_bias and options.n_groups == options.top_groups
        bound = width**-0.5
        self.weight = mx.random.uniform(-bound, bound, (options.n_experts, width))
        if options.router_bias:
            self.bias = mx.zeros((options.n_experts,))
        if options.correction_bias:
            self.correction = mx.zeros((options.n_experts,))
            self.freeze(keys=["correction"], recurse=False)

    def __call__(self, x: Float[array, "T D"]) -> Routing:
        logits = x.astype(mx.float32) @ self.weight.astype(mx.float32).T
        if "bias" in self:
            logits = logits + self.bias.astype(mx.float32)
        if self.options.router == "sparsemixer":
            probabilities, (chosen, weights) = mx.softmax(logits, axis=-1), self.mixed(logits)
        else:
            scores = SCORES[self.options.router](logits)
            probabilities = scores / (scores.sum(axis=-1, keepdims=True) + LEAST)
            chosen = self.choose(logits if self.plain else scores)
            weights = self.weigh(mx.take_along_axis(scores, chosen, axis=-1))
        weights = self.options.routed_scaling * weights
        return Routing(logits=logits, probabilities=probabilities, chosen=chosen, weights=weights)

    def choose(self, scores: Float[array, "T N"]) -> Int[array, "T C"]:
        """The `top_k` experts of the largest corrected scores, of the best groups alone."""
        options, scores = self.options, mx.stop_gradient(scores)
        if "correction" in self:
            scores = scores + mx.stop_gradient(self.correction).astype(mx.float32)
        if options.n_groups > options.top_groups:
            groups = scores.reshape(len(scores), options.n_groups, -1)
            best = groups.max(axis=-1) if options.group_score == "max" else mx.topk(groups, 2, axis=-1).sum(axis=-1)
            kept = _hot(_largest(best, options.top_groups), options.n_groups)
            scores = mx.where(kept[..., None], groups, -mx.inf).reshape(scores.shape)
        return _largest(scores, options.top_k)

    def weigh(self, scores: Float[array, "T C"]) -> Float[array, "T C"]:
        """The weights of the chosen experts."""
        options = self.options
        renormalised = options.top_k > 1 if options.renormalise is None else options.renormalise
        if renormalised or options.router == "topk_softmax":
            return scores / (scores.sum(axis=-1, keepdims=True) + LEAST)
        return scores

    def mixed(self, logits: Float[array, "T N"]) -> tuple[Int[array, "T C"], Float[array, "T C"]]:
        """The two largest, each weighed by a softmax of the logits near it; the second is chosen without the first."""
        left, chosen, weights = logits, [], []
        for _ in range(2):
            best, found = left.max(axis=-1, keepdims=True), mx.argmax(mx.stop_gradient(left), axis=-1, keepdims=True)
            far = (best - logits) / mx.maximum(mx.abs(logits), best) > 2 * self.options.router_jitter
            near = mx.softmax(mx.where(mx.stop_gradient(far), -mx.inf, left), axis=-1)
            chosen.append(found)
            weights.append(mx.take_along_axis(near, found, axis=-1))
            left = mx.where(_hot(found, logits.shape[-1]), -mx.inf, left)
        return mx.concatenate(chosen, axis=-1), mx.concatenate(weights, axis=-1)

    def settle(self, load: Float[array, "N"]) -> None:
        """Algorithm 1 of arXiv:2408.15664: experts with less than the mean load are corrected upwards."""
        if "correction" in self:
            step = mx.sign(load.mean() - load) * self.options.bias_update_rate
            self.correction = self.correction.astype(mx.float32) + step  # in half, small steps come to nothing


def _softmax(logits: array) -> array:
    return mx.softmax(logits, axis=-1)


SCORES: dict[str, Callable[[array], array]] = {"softmax": _softmax, "topk_softmax": _softmax, "sigmoid": mx.sigmoid}
"""`topk_softmax` of chosen logits is the same as a softmax of all, divided by the sum of those chosen."""


def _largest(scores: Float[array, "T N"], n: int) -> Int[array, "T C"]:
    return mx.argpartition(-scores, n - 1, axis=-1)[..., :n]


def _hot(chosen: Int[array, "T C"], n: int) -> array:
    """(T, n): whether it is among the chosen."""
    return (chosen[..., None] == mx.arange(n)).any(axis=-2)
