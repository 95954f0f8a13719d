"""What a mixture can be told."""

from typing import Any, Literal

import attrs
from attrs import validators

from lmx_core.components.activations import Activation
from lmx_core.config import exact_types
from lmx_core.errors import ConfigError

Scores = Literal["softmax", "topk_softmax", "sigmoid", "sparsemixer"]
positive: Any = validators.ge(1)
not_negative: Any = validators.ge(0)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RouterOptions:
    """What chooses experts."""

    n_experts: int = attrs.field(default=8, validator=validators.ge(2))
    """Experts to choose from; what the parameters grow with."""
    top_k: int = attrs.field(default=2, validator=positive)
    """Experts that a token goes to; what the time grows with."""
    router: Scores = "softmax"
    """`softmax` of all logits, of which the largest are chosen (Qwen, OLMoE); `topk_softmax`, of the chosen ones alone
    (Mixtral, gpt-oss); `sigmoid` of each (DeepSeek-V3, Llama 4); `sparsemixer`, two experts, each by a softmax of the
    logits that come close to it (PhiMoE, arXiv:2409.12136; also in training without its sampling)."""
    renormalise: bool | None = None
    """Whether the weights of the chosen experts are divided by their sum. Unless given, where there are several: a weight
    that is always 1 teaches the router nothing."""
    routed_scaling: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Factor of the weights (DeepSeek)."""
    router_bias: bool = False
    """Whether the logits have a bias (gpt-oss)."""
    router_jitter: float = attrs.field(default=0.01, validator=validators.gt(0))
    """Half of the relative distance up to which `sparsemixer` takes a logit into a softmax."""
    n_groups: int = attrs.field(default=1, validator=positive)
    """Groups of neighbouring experts (DeepSeek)."""
    top_groups: int = attrs.field(default=1, validator=positive)
    """Groups from which a token's experts come."""
    group_score: Literal["max", "top2"] = "max"
    """What groups are chosen by: their best expert, or the sum of their two best (DeepSeek-V3)."""
    correction_bias: bool = False
    """Whether a number for each expert is added to the scores where experts are chosen, and not where they are weighed
    (arXiv:2408.15664). No gradient trains it: after each update it grows for experts with less than the mean load and
    shrinks for the others."""
    bias_update_rate: float = attrs.field(default=0.001, validator=not_negative)
    """By how much the correction of each expert moves after an update."""
    balance_loss: float = attrs.field(default=0.01, validator=not_negative)
    """Factor of the loss that evens out how many tokens the experts get."""
    z_loss: float = attrs.field(default=0.001, validator=not_negative)
    """Factor of the loss that keeps the router's logits small."""

    def __attrs_post_init__(self) -> None:
        per_group, odd = divmod(self.n_experts, self.n_groups)
        if odd:
            raise ConfigError(f"n_experts={self.n_experts} is not a multiple of n_groups={self.n_groups}")
        if self.top_groups > self.n_groups:
            raise ConfigError(f"top_groups={self.top_groups} chooses more than there are: n_groups={self.n_groups}")
        if self.group_score == "top2" and self.n_groups > 1 and per_group < 2:
            raise ConfigError(
                f'group_score="top2" sums two experts of a group, but n_groups={self.n_groups} leaves one'
            )
        if self.top_k > (available := per_group * self.top_groups):
            of = f"n_experts={available}" if self.n_groups == 1 else f"{self.top_groups} groups of {per_group}"
            raise ConfigError(f"top_k={self.top_k} chooses more than there are: {of}")
        other = self.top_k != 2 or self.n_groups > 1 or self.correction_bias or self.renormalise
        if self.router == "sparsemixer" and other:
            raise ConfigError(
                'router="sparsemixer" chooses two of all experts by their logits and weighs each by itself: '
                "it takes top_k = 2, and no groups, correction_bias or renormalise"
            )
        if self.router == "topk_softmax" and self.renormalise is False:
            raise ConfigError('router="topk_softmax" gives weights that sum to 1; renormalise = false needs "softmax"')


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MoEOptions(RouterOptions):
    """Options of `ffn="moe"`."""

    d_ff: int | None = attrs.field(default=None, validator=validators.optional(positive))
    """Width inside an expert; the config's `d_ff` unless given."""
    activation: Activation = "silu"
    """Of the gate inside an expert."""
    bias: bool | None = None
    """Whether the maps of an expert have biases; the config's `bias` unless given."""
    clamp: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """What is activated is at most this, and what it gates lies between plus and minus this (gpt-oss)."""
    up_shift: float = 0.0
    """What is added to what is gated (1 in gpt-oss)."""
    weigh: Literal["output", "input"] = "output"
    """What the weight of an expert is multiplied with (its input in Llama 4)."""
    n_shared_experts: int = attrs.field(default=0, validator=not_negative)
    """Experts that every token goes to besides, as one gated FFN (arXiv:2401.06066)."""
    shared_d_ff: int | None = attrs.field(default=None, validator=validators.optional(positive))
    """Width of the shared experts in all; so many times that of an expert unless given."""
    shared_gate: bool = False
    """Whether what the shared experts say is multiplied with `sigmoid(shared_gate(x))`, one number a token (Qwen 2)."""

    def __attrs_post_init__(self) -> None:
        RouterOptions.__attrs_post_init__(self)
        if not self.n_shared_experts and (self.shared_gate or self.shared_d_ff):
            raise ConfigError("shared_gate and shared_d_ff are those of shared experts, but n_shared_experts=0")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SharedMoEOptions(MoEOptions):
    """Options of `ffn="shared_moe"`: those of `moe`, with a shared expert."""

    n_shared_experts: int = attrs.field(default=1, validator=positive)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LatentMoEOptions(MoEOptions):
    """Options of `ffn="latent_moe"`: those of `moe`, and the latent."""

    latent_dim: int | None = attrs.field(default=None, validator=validators.optional(positive))
    """Width of what the routed experts read and write; a quarter of `d_model` unless given."""
