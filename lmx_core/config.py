"""What a model is made of, as plain data: a config is written, compared and sent without MLX or a plugin."""

import math
import types
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import attrs
from attrs import validators

from lmx_core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    Field = attrs.Attribute[Any]
else:
    Field = attrs.Attribute  # older ones take no parameter when they run


def type_problem(value: object, annotation: Any) -> str | None:
    """Why `value` is not exactly of the annotated type (`"16"` is no int, `True` is no int, 1 is a float), or None."""
    if _matches(value, annotation):
        return None
    if isinstance(value, float) and not math.isfinite(value) and _matches(0.0, annotation):
        return f"expected a finite number, got {value}"
    return f"expected {readable(annotation)}, got {_shortened(value)} ({type(value).__name__})"


def _matches(value: object, annotation: Any) -> bool:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any or annotation is None:
        return annotation is Any or value is None
    if origin in (Union, types.UnionType):
        return any(_matches(value, choice) for choice in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if annotation is float:
        return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 2**1023)
    if annotation in (int, bool, str):
        return type(value) is annotation
    return isinstance(value, origin or annotation) and (not inner or _contents_match(value, origin, inner))


def _contents_match(value: Any, origin: Any, inner: tuple[Any, ...]) -> bool:
    """Whether the items of a list, or the keys and values of a table, are of their types; a text is no list of texts."""
    if isinstance(value, Mapping):
        return all(_matches(key, inner[0]) and _matches(item, inner[1]) for key, item in value.items())
    if origin is tuple and inner[-1] is not ...:
        return len(value) == len(inner) and all(map(_matches, value, inner))
    if isinstance(value, Collection):
        return not isinstance(value, str) and all(_matches(item, inner[0]) for item in value)
    return True


def readable(annotation: Any) -> str:
    """A type as messages and tables write it: `int or none`, `a list of int`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(readable, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is not None and issubclass(origin, Mapping):
        return f"a table of {readable(inner[1])}"
    if origin is not None and issubclass(origin, Collection):
        several = ", ".join(readable(item) for item in inner if item is not ...)
        return f"a list of {several}"
    return "none" if annotation in (None, type(None)) else getattr(origin or annotation, "__name__", str(annotation))


def _shortened(value: object, width: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def field_problem(attribute: Field, value: object) -> str | None:
    """What is wrong with one field's value by its type and its own validator, or None."""
    if problem := type_problem(value, attribute.type):
        return problem
    try:
        if attribute.validator:
            attribute.validator(None, attribute, value)
    except (ValueError, TypeError) as error:
        message = str(error.args[0] if error.args else error)
        rule = message.removeprefix(f"{attribute.alias}: ").removeprefix(f"'{attribute.name}' ")
        stated = rule.removesuffix(f": {value}")
        return f"{stated}, got {value!r}" if stated != rule else rule
    return None


STATED = "stated"
"""Where a field of `exact_types` keeps the validator that its class states, for who describes it."""


def exact_types(cls: type, fields: list[Field]) -> list[Field]:
    """A `field_transformer` that holds every field to its annotation, in Python as in a file."""

    def checked(field: Field) -> Field:
        if STATED in field.metadata:  # inherited, and held to it there
            return field

        def check(instance: object, attribute: Field, value: object) -> None:
            if problem := field_problem(field, value):
                raise ConfigError(f"{attribute.alias}: {problem}")

        return field.evolve(validator=check, metadata={**field.metadata, STATED: field.validator})

    return [checked(field) for field in fields]


def _frozen(value: Any) -> Any:
    if isinstance(value, ComponentSpec):  # a part by name, as a file writes it
        value = {"name": value.name, **value.options} if value.options else value.name
    if isinstance(value, Mapping):
        return types.MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thawed(item) for key, item in value.items()}
    return list(map(_thawed, value)) if isinstance(value, tuple) else value


def _no_name(instance: object, attribute: Field, value: Mapping[str, Any]) -> None:
    if "name" in value:
        raise ValueError(f"an option cannot be called 'name', which names the component; got {value['name']!r}")


@attrs.frozen(field_transformer=exact_types)
class ComponentSpec:
    """A component by name, with the options meant for it. Plain data: the component need not be installed."""

    name: str
    options: Mapping[str, Any] = attrs.field(factory=dict[str, Any], converter=_frozen, validator=_no_name, hash=False)

    def __reduce__(self) -> tuple[type["ComponentSpec"], tuple[str, dict[str, Any]]]:
        return ComponentSpec, (self.name, self.thawed())

    def thawed(self) -> dict[str, Any]:
        """The options as dicts and lists of their own."""
        return _thawed(self.options)

    def having(self, **options: Any) -> "ComponentSpec":
        """The same component with these options beside, or in place of, its own."""
        return self.named(self.name, **options)

    def named(self, name: str, /, **options: Any) -> "ComponentSpec":
        """Another component with its options and these."""
        return ComponentSpec(name, {**self.options, **options})

    def __str__(self) -> str:
        listed = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.name}({listed})" if listed else self.name


def spec(name: str, /, **options: Any) -> ComponentSpec:
    """`spec("mla", kv_lora_rank=64)`: a component's name with its own options."""
    return ComponentSpec(name, options)


def as_spec(value: Any) -> Any:
    """A bare name stands for the component with its default options."""
    return ComponentSpec(value) if isinstance(value, str) else value


def slot(kind: str, default: str, **more: Any) -> Any:
    """A field that names a component of a kind; `of` says of what it is built, where that is not the config it stands in."""
    return attrs.field(default=default, converter=as_spec, metadata={"kind": kind, **more})


def optional_slot(kind: str) -> Any:
    """A field that may name a component of a kind."""
    return attrs.field(default=None, converter=as_spec, metadata={"kind": kind})


PRE_NORM, POST_NORM = ComponentSpec("pre_norm"), ComponentSpec("post_norm")
at_least_one = [validators.gt(0), validators.lt(2**31)]


@attrs.frozen(kw_only=True, init=False, field_transformer=exact_types)
class BlockConfig:
    """One block: which components, and the numbers that several of them share.

    An option that one component alone reads belongs to that component: `attention=spec("mla", kv_lora_rank=64)`.
    `pre_norm=True | False` is short for `layout="pre_norm" | "post_norm"`.
    """

    attention: ComponentSpec = slot("attention", "mha")
    ffn: ComponentSpec = slot("ffn", "standard")
    norm: ComponentSpec = slot("norm", "layer_norm")
    position: ComponentSpec = slot("position", "sinusoidal")
    layout: ComponentSpec = slot("layout", "pre_norm")
    d_model: int = attrs.field(default=512, validator=at_least_one)
    """Width of the residual stream."""
    n_heads: int = attrs.field(default=8, validator=at_least_one)
    _n_kv_heads: int | None = attrs.field(default=None, validator=validators.optional(validators.and_(*at_least_one)))
    _head_dim: int | None = attrs.field(default=None, validator=validators.optional(validators.and_(*at_least_one)))
    d_ff: int = attrs.field(default=2048, validator=at_least_one)
    """Width inside the FFN."""
    bias: bool = True
    dropout: float = attrs.field(default=0.0, validator=[validators.ge(0), validators.lt(1)])
    """Share of a sublayer's outputs that training sets to zero."""
    norm_eps: float = attrs.field(default=1e-5, validator=validators.gt(0))
    rope_theta: float = attrs.field(default=10_000.0, validator=validators.gt(0))
    """Base of the rotary wavelengths."""
    max_seq_len: int = attrs.field(default=2048, validator=at_least_one)
    """Longest sequence in tokens, prompt included; positions that keep a table have this many rows."""

    def __init__(self, *, pre_norm: bool | None = None, **fields: Any) -> None:
        names = {field.alias for field in attrs.fields(BlockConfig)}
        for name in fields.keys() - names:
            raise ConfigError(
                f"BlockConfig has no {name!r}. {did_you_mean(name, names)}An option of one component goes into its spec: "
                f'attention=spec("...", {name}=...).'
            )
        if pre_norm is not None:
            chosen = PRE_NORM if pre_norm else POST_NORM
            if as_spec(fields.setdefault("layout", chosen)) != chosen:
                raise ConfigError(
                    f"pre_norm={pre_norm} means layout={chosen.name!r}, got layout={fields['layout']!s}. Give one."
                )
        self.__attrs_init__(**fields)  # pyright: ignore[reportAttributeAccessIssue]

    def __attrs_post_init__(self) -> None:
        if self._head_dim is None and self.d_model % self.n_heads:
            raise ConfigError(f"d_model={self.d_model} is not a multiple of n_heads={self.n_heads}")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}")

    @property
    def n_kv_heads(self) -> int:
        """Key/value heads; `n_heads` unless given."""
        return self.n_heads if self._n_kv_heads is None else self._n_kv_heads

    @property
    def head_dim(self) -> int:
        """Width of one head; `d_model / n_heads` unless given."""
        return self.d_model // self.n_heads if self._head_dim is None else self._head_dim

    @property
    def pre_norm(self) -> bool:
        """Whether the layout is `pre_norm`."""
        return self.layout == PRE_NORM


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ModelConfig:
    """A whole decoder: `n_layers` blocks between an embedding and a head."""

    block: BlockConfig = attrs.field(factory=BlockConfig)
    vocab_size: int = attrs.field(default=32_000, validator=at_least_one)
    n_layers: int = attrs.field(default=6, validator=at_least_one)
    tie_embeddings: bool = True
    """Whether the head reuses the embedding's weights."""
    _block_configs: tuple[BlockConfig, ...] | None = attrs.field(default=None, converter=as_tuple)
    """One block a layer, where layers differ; `block` then gives what the model itself needs (width, norm)."""
    blocks: Mapping[str, BlockConfig] | None = attrs.field(default=None, converter=_frozen, hash=False)
    """Blocks by names of one's own, for `block_pattern`; a file writes only what differs from `block`."""
    block_pattern: tuple[str, ...] | None = attrs.field(default=None, converter=as_tuple)
    """Which of `blocks` each layer has, in order; a pattern that is shorter than the model begins anew."""
    embedding_dim: int | None = attrs.field(default=None, validator=validators.optional(validators.and_(*at_least_one)))
    """Width of the embedding and of the head; `d_model` unless given. Linear maps go to `d_model` and back."""
    embedding_multiplier: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Factor of the embeddings (Gemma, Granite)."""
    embedding_norm: ComponentSpec | None = optional_slot("norm")
    """Norm of the embeddings (Bloom); none unless given."""
    final_norm: ComponentSpec | None = optional_slot("norm")
    """Norm before the head; unless given the block's, or none where its layout normalises."""
    head_bias: bool = False
    logit_multiplier: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Factor of the logits (Cohere, Granite)."""
    logit_softcap: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """Logits are bounded to `logit_softcap * tanh(logit / logit_softcap)` (Gemma 2)."""
    mup_base_width: int | None = attrs.field(
        default=None, validator=validators.optional(validators.and_(*at_least_one))
    )
    """The `d_model` at which learning rates were found, which suit this width too then (muP, arXiv:2203.03466); none leaves
    the standard parametrisation."""

    def __reduce__(self) -> tuple[Any, ...]:
        values = {field.alias: getattr(self, field.name) for field in attrs.fields(ModelConfig)}
        return _model_config, ({**values, "blocks": self.blocks and dict(self.blocks)},)

    def __attrs_post_init__(self) -> None:
        if self.block_pattern is not None or self.blocks:
            self._check_pattern()
        elif self._block_configs is not None and len(self._block_configs) != self.n_layers:
            raise ConfigError(f"block_configs has {len(self._block_configs)} entries for n_layers={self.n_layers}")
        for name, block in self.named_blocks():
            if block.d_model != self.block.d_model:
                raise ConfigError(f"{name}.d_model={block.d_model} differs from block.d_model={self.block.d_model}")

    def _check_pattern(self) -> None:
        if self._block_configs is not None:
            raise ConfigError("block_configs and block_pattern both say which block a layer has. Give one.")
        if not self.block_pattern or not self.blocks:
            given, lacking = ("blocks", "block_pattern") if self.blocks else ("block_pattern", "blocks")
            raise ConfigError(
                f"{given} is given without {lacking}: blocks names them, block_pattern says where they stand"
            )
        for name in self.block_pattern:
            if name not in self.blocks:
                raise ConfigError(
                    f"block_pattern names {name!r}. {did_you_mean(name, self.blocks)}blocks has {', '.join(self.blocks)}."
                )
        if unused := [name for name in self.blocks if name not in self.block_pattern]:
            raise ConfigError(f"blocks.{unused[0]} stands nowhere in block_pattern. Name it there, or leave it out.")

    def named_blocks(self) -> list[tuple[str, BlockConfig]]:
        """Every block that is stated beside `block`, by where it stands."""
        listed = [(f"block_configs[{i}]", block) for i, block in enumerate(self._block_configs or ())]
        return [*listed, *((f"blocks.{name}", block) for name, block in (self.blocks or {}).items())]

    @property
    def block_configs(self) -> tuple[BlockConfig, ...] | None:
        """One block a layer where layers differ, whether listed or by pattern; None where all are `block`."""
        if self.block_pattern is None or self.blocks is None:
            return self._block_configs
        return tuple(self.blocks[self.block_pattern[i % len(self.block_pattern)]] for i in range(self.n_layers))

    def where(self, i: int) -> str:
        """Where the config states the block of layer `i`."""
        if self.block_pattern is not None:
            return f"blocks.{self.block_pattern[i % len(self.block_pattern)]}"
        return "block" if self._block_configs is None else f"block_configs[{i}]"

    def get_block_config(self, i: int) -> BlockConfig:
        """The config of layer `i`, counted from 0; negative numbers count from the end."""
        if not -self.n_layers <= i < self.n_layers:
            raise ConfigError(f"layer {i} of a model with n_layers={self.n_layers}; layers count from 0")
        blocks = self.block_configs
        return self.block if blocks is None else blocks[i]


def _model_config(values: Mapping[str, Any]) -> ModelConfig:
    return ModelConfig(**values)
