"""A component, with what a suite needs to build it."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from lmx_core.block import ConfigurableBlock
from lmx_core.components.masks import ALL
from lmx_core.components.scalings import Rotary
from lmx_core.config import BlockConfig, ComponentSpec, ModelConfig
from lmx_core.construct import build, filled
from lmx_core.errors import ConfigError
from lmx_core.model import LanguageModel
from lmx_core.registry import registry
from lmx_core.testing.subjects import SMALL, Make
from lmx_core.train.config import RunConfig, TrainConfig

SHORT = TrainConfig(max_steps=100, warmup_steps=10, learning_rate=0.02, weight_decay=0.0)
"""The config that optimizers and schedules are checked with, unless they are given another."""
SMALL_BATCHES = attrs.evolve(SHORT, batch_size=4, seq_len=16)
"""The config of sources and curricula."""
BRIEF_RUN = RunConfig(
    model=ModelConfig(block=attrs.evolve(SMALL, dropout=0.1), n_layers=2),
    train=attrs.evolve(SMALL_BATCHES, warmup_steps=2, log_interval=1, eval_bytes=2000, final_eval_bytes=4000),
)
"""The config of trainers."""
BUILT_WITH: Mapping[str, Any] = {
    "source": SMALL_BATCHES,
    "curriculum": SMALL_BATCHES,
    "cache": ALL,
    "scaling": Rotary(
        width=SMALL.head_dim, head_dim=SMALL.head_dim, theta=SMALL.rope_theta, max_seq_len=SMALL.max_seq_len
    ),
}
"""What components of other kinds are given in place of a config."""
IN_A_BLOCK = {field.metadata["kind"]: field.alias for field in attrs.fields(BlockConfig) if "kind" in field.metadata}
IN_TRAINING = {
    field.metadata["kind"]: field.alias
    for field in attrs.fields(TrainConfig)
    if "kind" in field.metadata and "of" not in field.metadata
}


@attrs.frozen(kw_only=True)
class Candidate:
    """A component by name, its options, and the config that it is built with, if it is built with one."""

    kind: str
    chosen: ComponentSpec
    component: Any
    config: Any = None

    @property
    def name(self) -> str:
        return self.chosen.name

    def options(self) -> tuple[Any, ...]:
        """The filled options, as arguments."""
        return filled(self.kind, self.component, self.chosen)

    def bare(self) -> Make:
        """The component by itself."""

        def made(config: Any, **extra: Any) -> Any:
            return build(self.kind, self.chosen, *([] if config is None else [config]), **extra)

        return Make(made, self.config)

    def block(self, **changes: Any) -> Make:
        """A block with the component in it, and the changes in its config; a model would own its position."""
        return Make(_block, attrs.evolve(self.config, **changes))

    def model(self, **changes: Any) -> Make:
        """A model of two such blocks."""
        return Make(_model, attrs.evolve(self.config, **changes))


def _block(config: BlockConfig) -> ConfigurableBlock:
    return ConfigurableBlock(config, build("position", config.position, config))


def _model(block: BlockConfig) -> LanguageModel:
    return LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2))


def candidate(kind: str, name: str, options: Mapping[str, Any], numbers: Mapping[str, Any]) -> Candidate:
    """`ConfigError` where an option without a default is not given, or where there is nothing to change."""
    component = registry(kind).get(name)
    chosen = ComponentSpec(name, options)
    try:
        filled(kind, component, chosen)
    except ConfigError as error:
        raise ConfigError(f"{error}\nGive it the options that have no default: options={{...}}.") from None
    return Candidate(kind=kind, chosen=chosen, component=component, config=_config(kind, chosen, numbers))


def _config(kind: str, chosen: ComponentSpec, numbers: Mapping[str, Any]) -> Any:
    for slots, usual in ((IN_A_BLOCK, SMALL), (IN_TRAINING, SHORT)):
        if kind in slots:
            changed: Callable[..., Any] = attrs.evolve
            several = isinstance(getattr(usual, slots[kind]), tuple)
            return changed(usual, **{slots[kind]: (chosen,) if several else chosen, **numbers})
    if kind == "trainer":
        run = attrs.evolve(BRIEF_RUN, **numbers)
        return attrs.evolve(run, train=attrs.evolve(run.train, trainer=chosen))
    if kind in BUILT_WITH:
        return attrs.evolve(BUILT_WITH[kind], **numbers)
    if numbers:
        raise ConfigError(f"a {kind} is built without a config, got config={dict(numbers)}. Leave it out.")
    return None
