"""Options of the mixers."""

import attrs
from attrs import validators

from lmx_core.config import exact_types

optional_positive = validators.optional(validators.gt(0))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LinearAttentionOptions:
    """Options of `attention="linear_attention"`, which all mixers with a state have."""

    n_key_heads: int | None = attrs.field(default=None, validator=optional_positive)
    """Heads of queries and keys; `n_heads` unless given."""
    n_value_heads: int | None = attrs.field(default=None, validator=optional_positive)
    """Heads of values and states, a multiple of the key heads, which they share in groups; `n_heads` unless given."""
    key_head_dim: int | None = attrs.field(default=None, validator=optional_positive)
    """Width of a query and of a key; `head_dim` unless given."""
    value_head_dim: int | None = attrs.field(default=None, validator=optional_positive)
    """Width of a value; `head_dim` unless given."""
    conv_size: int | None = attrs.field(default=None, validator=validators.optional(validators.ge(2)))
    """Tokens, the current one included, that a convolution before queries, keys and values looks at; none unless given."""
    norm_eps: float | None = attrs.field(default=None, validator=optional_positive)
    """Epsilon of the norm of what is recalled; the config's unless given."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class GatedLinearAttentionOptions(LinearAttentionOptions):
    """Options of `attention="gated_linear_attention"`: those of `linear_attention`, and of the decay."""

    decay_rank: int = attrs.field(default=16, validator=validators.ge(1))
    """Numbers a token between the two matrices of the decay."""
    temperature: float = attrs.field(default=16.0, validator=validators.gt(0))
    """What the logarithm of the decay is divided by: the larger, the slower new layers forget."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class DeltaNetOptions(LinearAttentionOptions):
    """Options of `attention="deltanet"` and `"gated_deltanet"`: those of `linear_attention`, and how far tokens overwrite."""

    conv_size: int | None = attrs.field(default=4, validator=validators.optional(validators.ge(2)))
    """Tokens, the current one included, that the convolution before queries, keys and values looks at; None for none."""
    negative_eigenvalues: bool = False
    """Whether beta goes up to 2, so that a token may turn round what a key recalls (arXiv:2411.12537)."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class KimiDeltaAttentionOptions(DeltaNetOptions):
    """Options of `attention="kda"`: those of `deltanet`, and of the decay and the gate."""

    decay_rank: int | None = attrs.field(default=None, validator=optional_positive)
    """Numbers a token between the two matrices of the decay; the width of a value unless given."""
    gate_rank: int | None = attrs.field(default=None, validator=optional_positive)
    """Numbers a token between the two matrices of the gate; the width of a value unless given."""
