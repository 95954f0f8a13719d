"""An FFN of which each token uses a part. Besides core's axis letters: `T` tokens, `N` experts, `C` chosen ones."""

from typing import Any

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array
from mlx.utils import tree_flatten

from lmx_core.components.feedforward import FFNBase
from lmx_core.config import BlockConfig, exact_types
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.shapes import Float
from lmx_ffn_moe.experts import Experts
from lmx_ffn_moe.router import Router, Routing

positive = validators.ge(1)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MoEOptions:
    """Options of `ffn="moe"`."""

    n_experts: int = attrs.field(default=8, validator=validators.ge(2))
    """Experts to choose from; what the parameters grow with."""
    top_k: int = attrs.field(default=2, validator=positive)
    """Experts that a token goes to; what the time grows with."""
    d_ff: int | None = attrs.field(default=None, validator=validators.optional(positive))
    """Width inside an expert; the config's `d_ff` unless given."""
    n_shared_experts: int = attrs.field(default=0, validator=validators.ge(0))
    """Experts that every token goes to besides, as one FFN of so many times the width (arXiv:2401.06066)."""
    renormalise: bool = True
    """Whether the weights of the chosen experts sum to 1. Of one expert they never do: no gradient would reach the router."""
    balance_loss: float = attrs.field(default=0.01, validator=validators.ge(0))
    """Factor of the loss that evens out how many tokens the experts get."""
    z_loss: float = attrs.field(default=0.001, validator=validators.ge(0))
    """Factor of the loss that keeps the router's logits small."""

    def __attrs_post_init__(self) -> None:
        if self.top_k > self.n_experts:
            raise ConfigError(f"top_k={self.top_k} chooses more than there are: n_experts={self.n_experts}")


class MoE(FFNBase):
    """`sum over the chosen experts e of weight_e(x) * expert_e(x)`, plus the shared expert; each expert is a SwiGLU FFN.

    Weights are softmax probabilities of a linear router (arXiv:1701.06538, Mixtral's arXiv:2401.04088). No token is dropped,
    however many choose one expert. The time grows with `top_k`, not with `n_experts`.

    Reports `balance_loss` and `z_loss`, which training adds to its loss, and `load_entropy` and `dead_experts`.
    """

    Options = MoEOptions

    def __init__(self, config: BlockConfig, options: MoEOptions) -> None:
        super().__init__(config)
        width = options.d_ff or config.d_ff
        self.balance_loss, self.z_loss = options.balance_loss, options.z_loss
        self.router = Router(config.d_model, options.n_experts, options.top_k, options.renormalise)
        self.experts = Experts(options.n_experts, config.d_model, width, config.bias)
        if options.n_shared_experts:
            self.shared = build("ffn", "gated", attrs.evolve(config, d_ff=options.n_shared_experts * width))

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        tokens = x.flatten(0, 1)
        routing = self.router(tokens)
        y = (routing.weights[..., None].astype(x.dtype) * self.experts(tokens, routing.chosen)).sum(axis=1)
        if "shared" in self:
            y = y + self.shared(tokens[None])[0]
        self._report = self.report(routing)
        return y.reshape(x.shape)

    def active_parameters(self) -> dict[str, int]:
        """Numbers of the experts that one token uses: those of `top_k` of them. It uses all of what is not named here."""
        stacked: Any = tree_flatten(self.experts.parameters())
        return {f"experts.{path}": each.size // len(each) * self.router.top_k for path, each in stacked}

    def report(self, routing: Routing) -> dict[str, array]:
        """The two losses, and how evenly the experts are used: 1 is evenly for `load_entropy`, `dead_experts` is a share."""
        return {
            "balance_loss": self.balance_loss * routing.imbalance(),
            "z_loss": self.z_loss * mx.square(mx.logsumexp(routing.logits, axis=-1)).mean(),
            "load_entropy": routing.load_entropy(),
            "dead_experts": (routing.load() == 0).mean(),
        }
