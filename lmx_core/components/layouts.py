"""How norms, sublayers and residuals are wired."""

from collections.abc import Callable

import attrs
from attrs import validators
from mlx import nn
from mlx.core import array

from lmx_core.config import BlockConfig, exact_types
from lmx_core.construct import build
from lmx_core.shapes import Float

Sublayer = Callable[[array], array]


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LayoutOptions:
    """Options of the layouts that add to a residual stream."""

    residual_multiplier: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Factor of what each sublayer adds (Granite, MiniCPM)."""


class LayoutBase(nn.Module):
    """Two sublayers one after the other, each with a norm; a layout says in `residual` how they meet.

    The norms are called `attention_norm` and `ffn_norm`; only those of sublayers that the block has are there.
    """

    Options = LayoutOptions
    normalised = False
    """Whether what comes out needs no final norm."""

    def __init__(
        self, config: BlockConfig, options: LayoutOptions | None = None, attention: bool = True, ffn: bool = True
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.multiplier = (options or LayoutOptions()).residual_multiplier
        for name, there in (("attention", attention), ("ffn", ffn)):
            if there:
                self.add_norms(name, config)

    def add_norms(self, sublayer: str, config: BlockConfig) -> None:
        self[f"{sublayer}_norm"] = build("norm", config.norm, config)

    def __call__(
        self, x: Float[array, "B L D"], attention: Sublayer | None, ffn: Sublayer | None
    ) -> Float[array, "B L D"]:
        for name, sublayer in (("attention", attention), ("ffn", ffn)):
            if sublayer is not None:
                x = self.residual(x, sublayer, name)
        return x

    def residual(self, x: array, sublayer: Sublayer, name: str) -> array:
        raise NotImplementedError(f"{type(self).__name__} has no residual(x, sublayer, name)")

    def branch(self, y: array) -> array:
        """What a sublayer adds."""
        y = self.dropout(y)
        return y if self.multiplier == 1 else self.multiplier * y


class PreNorm(LayoutBase):
    """`x + sublayer(norm(x))`, twice (GPT-2, LLaMA)."""

    def residual(self, x: array, sublayer: Sublayer, name: str) -> array:
        return x + self.branch(sublayer(self[f"{name}_norm"](x)))


class PostNorm(LayoutBase):
    """`norm(x + sublayer(x))`, twice (arXiv:1706.03762, GPT-1). The model then adds no final norm."""

    normalised = True

    def residual(self, x: array, sublayer: Sublayer, name: str) -> array:
        return self[f"{name}_norm"](x + self.branch(sublayer(x)))


class OutputNorm(LayoutBase):
    """`x + norm(sublayer(x))`, twice: the stream itself is never normalised (OLMo 2, arXiv:2501.00656)."""

    def residual(self, x: array, sublayer: Sublayer, name: str) -> array:
        return x + self.branch(self[f"{name}_norm"](sublayer(x)))


class Sandwich(LayoutBase):
    """`x + out_norm(sublayer(norm(x)))`, twice, with four norms (Gemma 2, arXiv:2408.00118)."""

    def add_norms(self, sublayer: str, config: BlockConfig) -> None:
        super().add_norms(sublayer, config)
        self[f"{sublayer}_out_norm"] = build("norm", config.norm, config)

    def residual(self, x: array, sublayer: Sublayer, name: str) -> array:
        y = sublayer(self[f"{name}_norm"](x))
        return x + self.branch(self[f"{name}_out_norm"](y))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ParallelOptions(LayoutOptions):
    """Options of `layout="parallel"`."""

    norms: int = attrs.field(default=1, validator=validators.in_((1, 2)))
    """1: both sublayers read the same (GPT-J, Phi, Cohere); 2: each has a norm of its own (GPT-NeoX, Falcon 40B)."""


class Parallel(LayoutBase):
    """`x + attention(norm(x)) + ffn(norm(x))`, both at once (GPT-J; section 2 of arXiv:2204.02311)."""

    Options = ParallelOptions

    def __init__(self, config: BlockConfig, options: ParallelOptions, attention: bool = True, ffn: bool = True) -> None:
        self.shared = options.norms == 1 or not (attention and ffn)
        super().__init__(config, options, attention, ffn)
        if self.shared:
            self.norm = build("norm", config.norm, config)

    def add_norms(self, sublayer: str, config: BlockConfig) -> None:
        if not self.shared:
            super().add_norms(sublayer, config)

    def __call__(
        self, x: Float[array, "B L D"], attention: Sublayer | None, ffn: Sublayer | None
    ) -> Float[array, "B L D"]:
        read = self.norm(x) if self.shared else None
        branches = [
            self.branch(sublayer(self[f"{name}_norm"](x) if read is None else read))
            for name, sublayer in (("attention", attention), ("ffn", ffn))
            if sublayer is not None
        ]
        return sum(branches, start=x)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class NormedResidualOptions:
    """Options of `layout="normed_residual"`: factors of the stream, and of what is added to it."""

    attention_alpha: float = 1.0
    """Of the normalised stream where attention is added,"""
    attention_beta: float = 1.0
    """and of attention."""
    ffn_alpha: float = 1.0
    """Of the normalised stream where the FFN is added,"""
    ffn_beta: float = 1.0
    """and of the FFN."""


class NormedResidual(LayoutBase):
    """`h = norm(x); alpha * h + beta * sublayer(h)`, twice: the stream goes on normalised (Bloom's variant, MiniMax)."""

    Options = NormedResidualOptions

    def __init__(
        self, config: BlockConfig, options: NormedResidualOptions, attention: bool = True, ffn: bool = True
    ) -> None:
        super().__init__(config, LayoutOptions(), attention, ffn)
        self.factors = options

    def residual(self, x: array, sublayer: Sublayer, name: str) -> array:
        h = self[f"{name}_norm"](x)
        alpha, beta = getattr(self.factors, f"{name}_alpha"), getattr(self.factors, f"{name}_beta")
        return alpha * h + beta * self.branch(sublayer(h))
