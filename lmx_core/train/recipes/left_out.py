"""Parts of a run that a recipe brings itself."""

from lmx_core.data.corpus import DataConfig
from lmx_core.errors import ConfigError
from lmx_core.train.config import RunConfig, TrainConfig

Part = tuple[str, str]
OBJECTIVE, SOURCE, CURRICULUM = ("train", "objective"), ("data", "source"), ("data", "curriculum")


def must_be_left_out(config: RunConfig, *parts: Part) -> None:
    """`ConfigError` where the config chooses parts that the recipe has of its own: all three unless some are named."""
    usual = {"train": TrainConfig(), "data": DataConfig()}
    for section, name in parts or (OBJECTIVE, SOURCE, CURRICULUM):
        chosen = getattr(getattr(config, section), name)
        if chosen != getattr(usual[section], name):
            raise ConfigError(
                f"{section}.{name} is {chosen}, but train.trainer={config.train.trainer.name!r} has a {name} of its own. "
                f"Leave {section}.{name} out, or choose another trainer."
            )
