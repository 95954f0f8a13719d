"""What a training run is made of."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import validators

from lmx_core.config import ComponentSpec, Field, ModelConfig, as_tuple, at_least_one, exact_types, slot
from lmx_core.data.corpus import DataConfig
from lmx_core.errors import did_you_mean
from lmx_core.metadata import canonical
from lmx_core.parts import settled
from lmx_core.plugins import SESSION, everything
from lmx_core.registry import preferring
from lmx_core.serialize import preferences, structure

positive: Any = validators.gt(0)
not_negative: Any = validators.ge(0)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class TrainConfig:
    """`[train]`: how long, how fast, and what is kept. Intervals are in steps."""

    max_steps: int = attrs.field(default=1000, validator=at_least_one)
    max_seconds: float | None = attrs.field(default=None, validator=validators.optional(positive))
    """Stop after this much time, evaluations on the way included; the schedule then follows whichever of the two
    budgets is spent further, so that the learning rate has come down when the run ends."""
    batch_size: int = attrs.field(default=16, validator=at_least_one)
    """Sequences that run at once."""
    seq_len: int = attrs.field(default=256, validator=at_least_one)
    """Tokens in a sequence."""
    grad_accumulation_steps: int = attrs.field(default=1, validator=at_least_one)
    """Batches whose gradients make one update."""
    recompute_every: int = attrs.field(default=0, validator=not_negative)
    """Gradient checkpointing: 1 keeps no activations but those between blocks and computes the others twice, 2 does so in
    every second block, and so on; 0 keeps all."""
    optimizer: ComponentSpec = slot("optimizer", "adamw")
    learning_rate: float = attrs.field(default=1e-3, validator=not_negative)
    """The highest that the schedule reaches."""
    schedule: ComponentSpec = slot("schedule", "cosine")
    warmup_steps: int = attrs.field(default=100, validator=not_negative)
    weight_decay: float = attrs.field(default=0.1, validator=not_negative)
    """Never on norms and biases."""
    max_grad_norm: float | None = attrs.field(default=1.0, validator=validators.optional(positive))
    """Longer gradients are shortened to this length; "none" leaves them."""
    log_interval: int = attrs.field(default=10, validator=at_least_one)
    eval_interval: int = attrs.field(default=250, validator=at_least_one)
    eval_bytes: int = attrs.field(default=50_000, validator=at_least_one)
    """How much of the held-out text the evaluations on the way read, always its beginning."""
    final_eval_bytes: int = attrs.field(default=500_000, validator=at_least_one)
    """How much of it the last evaluation reads."""
    checkpoint_interval: int = attrs.field(default=500, validator=at_least_one)
    keep_checkpoints: int = attrs.field(default=2, validator=at_least_one)
    """How many of the latest checkpoints stay."""
    compile: bool = True
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

    Names that `prefer` decides on are written out in its stead, so that the config means the same wherever it is read.
    """
    with preferring(preferences(table)):
        return attrs.evolve(settled(structure(table, RunConfig, where, installed=True)), prefer=())
