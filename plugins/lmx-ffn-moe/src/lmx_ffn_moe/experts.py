"""Many FFNs as stacked matrices."""

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.shapes import Float, Int


class StackedLinear(nn.Module):
    """A linear map for each expert."""

    def __init__(self, n_experts: int, d_in: int, d_out: int, bias: bool) -> None:
        super().__init__()
        bound = d_in**-0.5
        self.weight = mx.random.uniform(-bound, bound, (n_experts, d_out, d_in))
        if bias:
            self.bias = mx.random.uniform(-bound, bound, (n_experts, d_out))

    def __call__(self, x: Float[array, "T E"], experts: Int[array, "T"]) -> Float[array, "T F"]:
        """Row t through the map of expert `experts[t]`; these come in ascending order."""
        y = gathered(x, self.weight, experts)
        return y + self.bias[experts] if "bias" in self else y


class Experts(nn.Module):
    """`down(silu(gate(x)) * up(x))` with matrices of each expert's own."""

    def __init__(self, n_experts: int, d_model: int, d_ff: int, bias: bool) -> None:
        super().__init__()
        self.gate = StackedLinear(n_experts, d_model, d_ff, bias)
        self.up = StackedLinear(n_experts, d_model, d_ff, bias)
        self.down = StackedLinear(n_experts, d_ff, d_model, bias)

    def __call__(self, x: Float[array, "T D"], chosen: Int[array, "T C"]) -> Float[array, "T C D"]:
        """What each chosen expert says about each token. Rows are sorted by expert, so that each matrix is read once."""
        order = mx.argsort(chosen.flatten())
        experts, rows = chosen.flatten()[order], x[order // chosen.shape[1]]
        y = self.down(nn.silu(self.gate(rows, experts)) * self.up(rows, experts), experts)
        return y[mx.argsort(order)].reshape(*chosen.shape, -1)


def gathered(x: Float[array, "T E"], weight: Float[array, "N F E"], experts: Int[array, "T"]) -> Float[array, "T F"]:
    """`x[t] @ weight[experts[t]].T`, with ascending experts."""
    dtype = x.dtype
    if mx.default_device() == mx.Device(mx.cpu):  # where gather_mm knows float32 alone
        x, weight = x.astype(mx.float32), weight.astype(mx.float32)
    y = mx.gather_mm(x[:, None], weight.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)
    return y[:, 0].astype(dtype)
