"""What a training run is made of."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
from attrs import validators

from lmx_core.config import ComponentSpec, Field, ModelConfig, as_spec, as_tuple, at_least_one, exact_types, slot
from lmx_core.data.corpus import DataConfig, with_own_tokenizer
from lmx_core.errors import did_you_mean
from lmx_core.metadata import canonical
from lmx_core.parts import settled
from lmx_core.plugins import SESSION, everything
from lmx_core.registry import preferring
from lmx_core.serialize import preferences, structure

positive: Any = validators.gt(0)
not_negative: Any = validators.ge(0)


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


def _specs(value: Any) -> Any:
    return as_tuple([as_spec(each) for each in value]) if isinstance(value, list | tuple) else value


def _not_empty(instance: object, attribute: Field, value: Sequence[str]) -> None:
    if not value or not all(value):
        raise ValueError(f"expected patterns that are not empty, got {value!r}")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ParameterGroup:
    """`[[train.groups]]`: parameters that the optimizer treats otherwise. Of several that match, the first one counts."""

    match: Sequence[str] | str = attrs.field(converter=_texts, validator=_not_empty)
    """Patterns of parameter paths, as `lmx info` lists them: `"embed.*"`, `"layers.*.ffn.*"`; `*` stands for anything."""
    rate: float = attrs.field(default=1.0, validator=not_negative)
    """Factor of the learning rate."""
    weight_decay: float | None = attrs.field(default=None, validator=validators.optional(not_negative))
    """In place of `train.weight_decay`, also for norms and biases; unless given it is as ever."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class TrainConfig:
    """`[train]`: how long, how fast, and what is kept. Intervals are in steps.

    Whichever budget is spent further (steps, seconds, tokens, FLOPs) drives the schedule and ends the run.
    """

    max_steps: int = attrs.field(default=1000, validator=at_least_one)
    max_seconds: float | None = attrs.field(default=None, validator=validators.optional(positive))
    """Time, evaluations on the way included."""
    max_tokens: int | None = attrs.field(default=None, validator=validators.optional(positive))
    """Tokens that are read, of all ranks."""
    max_flops: float | None = attrs.field(default=None, validator=validators.optional(positive))
    """FLOPs of training, as `lmx count` counts them."""
    batch_size: int = attrs.field(default=16, validator=at_least_one)
    """Sequences that run at once, on each rank."""
    seq_len: int = attrs.field(default=256, validator=at_least_one)
    """Tokens in a sequence."""
    grad_accumulation_steps: int = attrs.field(default=1, validator=at_least_one)
    """Batches whose gradients make one update, weighted by their tokens."""
    recompute_every: int = attrs.field(default=0, validator=not_negative)
    """Gradient checkpointing: 1 keeps no activations but those between blocks and computes the others twice, 2 does so in
    every second block, and so on; 0 keeps all."""
    trainer: ComponentSpec = slot("trainer", "language_model", of="run")
    """What is read, learned and measured. One that has an objective or a source of its own says so."""
    objective: ComponentSpec = slot("objective", "next_token")
    optimizer: ComponentSpec = slot("optimizer", "adamw")
    learning_rate: float = attrs.field(default=1e-3, validator=not_negative)
    """The highest that the schedule reaches."""
    schedule: ComponentSpec = slot("schedule", "cosine")
    warmup_steps: int = attrs.field(default=100, validator=not_negative)
    weight_decay: float = attrs.field(default=0.1, validator=not_negative)
    """Never on norms and biases."""
    groups: tuple[ParameterGroup, ...] = attrs.field(default=(), converter=as_tuple)
    freeze: Sequence[str] | str = attrs.field(default=(), converter=_texts)
    """Patterns of parameter paths that stay as they are: `"embed.*"`."""
    max_grad_norm: float | None = attrs.field(default=1.0, validator=validators.optional(positive))
    """Longer gradients are shortened to this length; "none" leaves them."""
    max_bad_steps: int = attrs.field(default=10, validator=not_negative)
    """Updates in a row that are skipped because a gradient is not finite; one more ends the run."""
    ema_decay: float | None = attrs.field(
        default=None, validator=validators.optional([validators.gt(0), validators.lt(1)])
    )
    """Keeps `ema = ema_decay * ema + (1 - ema_decay) * weights`, which is evaluated, and which a checkpoint's model has."""
    callbacks: tuple[ComponentSpec, ...] = attrs.field(default=(), converter=_specs, metadata={"kind": "callback"})
    """What looks on, by name: measurements and loggers."""
    log_interval: int = attrs.field(default=10, validator=at_least_one)
    eval_interval: int = attrs.field(default=250, validator=at_least_one)
    eval_at_start: bool = False
    """Whether the model is evaluated before its first step, too."""
    eval_bytes: int = attrs.field(default=50_000, validator=at_least_one)
    """How much of the held-out text the evaluations on the way read, always its beginning."""
    final_eval_bytes: int = attrs.field(default=500_000, validator=at_least_one)
    """How much of it the last evaluation reads."""
    patience: int | None = attrs.field(default=None, validator=validators.optional(validators.and_(*at_least_one)))
    """Evaluations without a new best one after which the run ends, with its last evaluation."""
    checkpoint_interval: int = attrs.field(default=500, validator=at_least_one)
    keep_checkpoints: int = attrs.field(default=2, validator=at_least_one)
    """How many of the latest checkpoints stay,"""
    keep_best: int = attrs.field(default=0, validator=not_negative)
    """and how many of those that were best in an evaluation; each evaluation that is among them makes one."""
    compile: bool = True
    parallel: Literal["data", "fsdp"] = "data"
    """How several ranks share the work: `data` gives each a part of the batch; `fsdp` a part of the weights, too (NCCL)."""
    seed: int = attrs.field(default=0, validator=[not_negative, validators.lt(2**64)])
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the forward and backward pass; parameters and optimizer stay in float32. `auto` is float32 on a CPU,
    where half precision is slow, and bfloat16 on a GPU."""
    sample_prompt: str | None = None
    """What the sample at the end of the run continues; the beginning of the held-out text, unless given."""
    sample_tokens: int = attrs.field(default=200, validator=not_negative)


def _installed(instance: object, attribute: Field, value: tuple[str, ...]) -> None:
    hidden = {each.name: each.hidden for each in everything()} | {SESSION: None}
    for dist in value:
        if canonical(dist) not in hidden:
            raise ValueError(f"no distribution {dist!r} with components is installed. {did_you_mean(dist, hidden)}")
        if variable := hidden[canonical(dist)]:
            raise ValueError(f"{variable} hides {dist!r}")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RunConfig:
    """A training run: `[model]`, `[data]`, `[train]`."""

    start: str | None = None
    """A model whose weights training starts from, in place of `[model]`: a run, a saved model, or what an installed plugin
    opens. Unless `data.tokenizer` is given, its tokenizer is used, too."""

    prefer: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=_installed)
    """Distributions: a name that several offer means the component of the first of these that offers it."""
    model: ModelConfig
    data: DataConfig = attrs.field(factory=DataConfig)
    train: TrainConfig = attrs.field(factory=TrainConfig)


def run_config(table: Mapping[str, Any], where: str) -> RunConfig:
    """The run that a table describes, with the installed components; `ConfigError` reports every problem of `where`.

    A dataset that is tokens already brings its tokenizer. Names that `prefer` decides on are written out in its stead, so
    that the config means the same wherever it is read.
    """
    with preferring(preferences(table)):
        data: Any = table.get("data")
        if isinstance(data, Mapping):
            table = {**table, "data": with_own_tokenizer(data)}
        return attrs.evolve(settled(structure(table, RunConfig, where, installed=True)), prefer=())
