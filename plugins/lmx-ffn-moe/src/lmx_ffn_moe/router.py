"""Which experts a token goes to."""

import math

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.shapes import Float, Int


@attrs.frozen(kw_only=True, eq=False)
class Routing:
    """Where tokens go."""

    logits: Float[array, "T N"]
    probabilities: Float[array, "T N"]
    chosen: Int[array, "T C"]
    """The experts, by their number."""
    weights: Float[array, "T C"]
    """What their outputs are multiplied with."""

    def load(self) -> Float[array, "N"]:
        """The share of all choices that each expert got."""
        hits = self.chosen[..., None] == mx.arange(self.logits.shape[-1])
        return hits.astype(mx.float32).mean(axis=(0, 1))

    def imbalance(self) -> Float[array, ""]:
        """`N * sum of load * mean probability`: equation 4 of arXiv:2101.03961, with loads that sum to 1 for any top_k.

        1 when both are even, N when all tokens go to one expert. Its gradient flows through the probabilities.
        """
        return self.logits.shape[-1] * (self.load() * self.probabilities.mean(axis=0)).sum()

    def load_entropy(self) -> Float[array, ""]:
        """Entropy of the load, as a share of the largest possible: 1 when even, 0 when all tokens go to one expert."""
        load = self.load()
        return -(load * mx.log(mx.maximum(load, 1e-30))).sum() / math.log(len(load))


class Router(nn.Module):
    """`softmax(W x)`, of which the `top_k` largest count.

    In float32, and not quantised with the linear layers: a rounded logit may be another expert.
    """

    def __init__(self, width: int, n_experts: int, top_k: int, renormalise: bool) -> None:
        super().__init__()
        self.top_k, self.renormalise = top_k, renormalise
        bound = width**-0.5
        self.weight = mx.random.uniform(-bound, bound, (n_experts, width))

    def __call__(self, x: Float[array, "T D"]) -> Routing:
        logits = x.astype(mx.float32) @ self.weight.astype(mx.float32).T
        probabilities = mx.softmax(logits, axis=-1)
        order = mx.argpartition(-probabilities, self.top_k - 1, axis=-1)
        chosen = mx.stop_gradient(order[..., : self.top_k])
        weights = mx.take_along_axis(probabilities, chosen, axis=-1)
        if self.renormalise and self.top_k > 1:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        return Routing(logits=logits, probabilities=probabilities, chosen=chosen, weights=weights)
