"""How norms, sublayers and residuals are wired."""

from collections.abc import Callable

from mlx import nn
from mlx.core import array

from lmx_core.config import BlockConfig
from lmx_core.construct import build
from lmx_core.shapes import Float

Sublayer = Callable[[array], array]


class _TwoResiduals(nn.Module):
    """A norm and a residual sum for each sublayer that the block has."""

    def __init__(self, config: BlockConfig, attention: bool = True, ffn: bool = True) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        if attention:
            self.attention_norm = build("norm", config.norm, config)
        if ffn:
            self.ffn_norm = build("norm", config.norm, config)

    def __call__(
        self, x: Float[array, "B L D"], attention: Sublayer | None, ffn: Sublayer | None
    ) -> Float[array, "B L D"]:
        if attention is not None:
            x = self.residual(x, attention, self.attention_norm)
        return x if ffn is None else self.residual(x, ffn, self.ffn_norm)

    def residual(self, x: array, sublayer: Sublayer, norm: Sublayer) -> array:
        raise NotImplementedError(f"{type(self).__name__} has no residual(x, sublayer, norm)")


class PreNorm(_TwoResiduals):
    """`x + sublayer(norm(x))`, twice (GPT-2, LLaMA)."""

    normalised = False

    def residual(self, x: array, sublayer: Sublayer, norm: Sublayer) -> array:
        return x + self.dropout(sublayer(norm(x)))


class PostNorm(_TwoResiduals):
    """`norm(x + sublayer(x))`, twice (arXiv:1706.03762, GPT-1). The model then adds no final norm."""

    normalised = True

    def residual(self, x: array, sublayer: Sublayer, norm: Sublayer) -> array:
        return norm(x + self.dropout(sublayer(x)))
