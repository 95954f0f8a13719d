"""Many FFNs as stacked matrices."""

from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.components.activations import activation
from lmx_core.components.packed import whole
from lmx_core.quantised import Packing
from lmx_core.shapes import Float, Int
from lmx_ffn_moe.dispatch import Dispatch, dispatch


class StackedLinear(nn.Module):
    """A linear map for each expert. `nn.quantize` makes a `QuantizedStackedLinear` of it."""

    def __init__(self, n_experts: int, d_in: int, d_out: int, bias: bool) -> None:
        super().__init__()
        bound = d_in**-0.5
        self.weight = mx.random.uniform(-bound, bound, (n_experts, d_out, d_in))
        if bias:
            self.bias = mx.random.uniform(-bound, bound, (n_experts, d_out))

    def __call__(self, x: Float[array, "G M E"], to: Dispatch) -> Float[array, "G M F"]:
        """Each group of rows through the map of its expert."""
        y = grouped(x, self.weight, to)
        return y + self.bias[to.experts][:, None] if "bias" in self else y

    def to_quantized(self, group_size: int | None = None, bits: int | None = None, mode: str = "affine", **_: Any):
        return QuantizedStackedLinear(self, Packing.of(bits, group_size, mode))


class QuantizedStackedLinear(nn.Module):
    """The same with weights of few bits, which are not trained."""

    def __init__(self, linear: StackedLinear, how: Packing) -> None:
        super().__init__()
        self.bits, self.group_size, self.mode = how.bits, how.group_size, how.mode
        self.weight, self.scales, *biases = mx.quantize(linear.weight, how.group_size, how.bits, how.mode)
        if biases:
            self.biases = biases[0]
        if "bias" in linear:
            self.bias = linear.bias
        self.freeze()

    def __call__(self, x: Float[array, "G M E"], to: Dispatch) -> Float[array, "G M F"]:
        dtype, scales, biases = x.dtype, self.scales, self.get("biases")
        if mx.default_device() == mx.Device(mx.cpu):  # which sums in the type of its input, and slowly but in float32
            x, scales, biases = x.astype(mx.float32), whole(scales), None if biases is None else whole(biases)
        y = mx.gather_qmm(
            x,
            self.weight,
            scales,
            biases,
            rhs_indices=to.experts,
            transpose=True,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            sorted_indices=to.ascending,
        ).astype(dtype)
        return y + self.bias[to.experts][:, None] if "bias" in self else y


class Experts(nn.Module):
    """`down(activation(min(gate(x), clamp)) * (clip(up(x), clamp) + up_shift))` with matrices of each expert's own."""

    def __init__(
        self,
        n_experts: int,
        d_model: int,
        d_ff: int,
        *,
        bias: bool,
        activated: str = "silu",
        clamp: float | None = None,
        up_shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.gate = StackedLinear(n_experts, d_model, d_ff, bias)
        self.up = StackedLinear(n_experts, d_model, d_ff, bias)
        self.down = StackedLinear(n_experts, d_ff, d_model, bias)
        self.activation = activation(activated)
        self.clamp, self.up_shift = clamp, up_shift

    def __call__(self, x: Float[array, "T C2 D"], chosen: Int[array, "T C"]) -> Float[array, "T C D"]:
        """What each chosen expert says about each token, of which there may be one version for all or one for each."""
        to = dispatch(chosen, self.gate.weight.shape[0])
        rows = to.spread(x)
        gate, up = self.gate(rows, to), self.up(rows, to)
        if self.clamp is not None:
            gate, up = mx.minimum(gate, self.clamp), mx.clip(up, -self.clamp, self.clamp)
        if self.up_shift:
            up = up + self.up_shift
        return to.collect(self.down(self.activation(gate) * up, to))


def grouped(x: Float[array, "G M E"], weight: Float[array, "N F E"], to: Dispatch) -> Float[array, "G M F"]:
    """`x[g] @ weight[experts[g]].T`."""
    dtype = x.dtype
    if mx.default_device() == mx.Device(mx.cpu):  # where gather_mm knows float32 alone
        x, weight = x.astype(mx.float32), weight.astype(mx.float32)
    y = mx.gather_mm(x, weight.swapaxes(-1, -2), rhs_indices=to.experts, sorted_indices=to.ascending)
    return y.astype(dtype)
