"""An FFN of which each token uses a part. Besides core's axis letters: `T` tokens, `N` experts, `C` chosen ones."""

from collections.abc import Mapping
from typing import Any

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.utils import tree_flatten

from lmx_core.components.feedforward import FFNBase
from lmx_core.config import BlockConfig, spec
from lmx_core.construct import build
from lmx_core.shapes import Float
from lmx_ffn_moe.experts import Experts
from lmx_ffn_moe.options import LatentMoEOptions, MoEOptions, SharedMoEOptions
from lmx_ffn_moe.router import Router, Routing


class MoE(FFNBase):
    """`sum over the chosen experts e of weight_e(x) * expert_e(x)`, plus the shared expert.

    Experts are gated FFNs, `down(activation(gate(x)) * up(x))`; weights come from a linear router (arXiv:1701.06538,
    Mixtral's arXiv:2401.04088). No token is dropped, however many choose one expert. The time grows with `top_k`, not with
    `n_experts`.

    In training it reports `balance_loss` and `z_loss`, which are added to the loss, and `load_entropy`, `dead_experts` and
    `max_load`.
    """

    Options = MoEOptions

    def __init__(self, config: BlockConfig, options: MoEOptions, width: int | None = None) -> None:
        super().__init__(config)
        self.options = options
        d_ff, bias = options.d_ff or config.d_ff, config.bias if options.bias is None else options.bias
        self.router = Router(config.d_model, options)
        self.experts = Experts(
            options.n_experts,
            width or config.d_model,
            d_ff,
            bias=bias,
            activated=options.activation,
            clamp=options.clamp,
            up_shift=options.up_shift,
        )
        if options.n_shared_experts:
            shared = attrs.evolve(config, d_ff=options.shared_d_ff or options.n_shared_experts * d_ff)
            self.shared = build("ffn", spec("gated", activation=options.activation, bias=bias), shared)
            if options.shared_gate:
                self.shared_gate = nn.Linear(config.d_model, 1, bias=False)

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        tokens = x.flatten(0, 1)
        routing = self.router(tokens)
        y = self.routed(tokens, routing).reshape(x.shape)
        if "shared" in self:
            y = y + self.of_all(x)
        if self.training:
            self._report = self.report(routing)
        return y

    def routed(self, x: Float[array, "T D"], routing: Routing) -> Float[array, "T D"]:
        """What the chosen experts say."""
        weights = routing.weights[..., None].astype(x.dtype)
        if self.options.weigh == "input":
            return self.experts(weights * x[:, None], routing.chosen).sum(axis=1)
        return (weights * self.experts(x[:, None], routing.chosen)).sum(axis=1)

    def of_all(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        """What the shared expert says."""
        y = self.shared(x)
        return mx.sigmoid(self.shared_gate(x)) * y if "shared_gate" in self else y

    def active_parameters(self) -> dict[str, int]:
        """Numbers of the experts that one token uses: those of `top_k` of them. It uses all of what is not named here."""
        stacked: Any = tree_flatten(self.experts.parameters())
        return {f"experts.{path}": each.size // len(each) * self.options.top_k for path, each in stacked}

    def report(self, routing: Routing) -> dict[str, array]:
        """The two losses, and how evenly the experts are used: 1 is evenly for `load_entropy` and `max_load`, the largest
        load by the mean one; `dead_experts` is a share. `load` is what the correction is settled by."""
        load = routing.load
        return {
            "balance_loss": self.options.balance_loss * routing.imbalance(),
            "z_loss": self.options.z_loss * mx.square(mx.logsumexp(routing.logits, axis=-1)).mean(),
            "load_entropy": routing.load_entropy(),
            "dead_experts": (load == 0).mean(),
            "max_load": load.max() * len(load),
            "load": load,
        }

    def settle(self, report: Mapping[str, array]) -> None:
        """After an update: what no gradient moves."""
        self.router.settle(report["load"])


class SharedMoE(MoE):
    """A mixture with an expert that every token goes to (DeepSeekMoE, arXiv:2401.06066)."""

    Options = SharedMoEOptions


class LatentMoE(MoE):
    """A mixture whose routed experts work in a latent: `up(sum of weight_e * expert_e(down(x)))`, arXiv:2601.18089.

    The router and the shared expert read x itself. An expert of the same `d_ff` has `latent_dim / d_model` of the
    parameters, so that there can be as many more of them at the same cost.
    """

    Options = LatentMoEOptions

    def __init__(self, config: BlockConfig, options: LatentMoEOptions) -> None:
        latent = options.latent_dim or max(config.d_model // 4, 1)
        super().__init__(config, options, width=latent)
        self.latent_down = nn.Linear(config.d_model, latent, bias=False)
        self.latent_up = nn.Linear(latent, config.d_model, bias=False)

    def routed(self, x: Float[array, "T D"], routing: Routing) -> Float[array, "T D"]:
        return self.latent_up(super().routed(self.latent_down(x), routing))
