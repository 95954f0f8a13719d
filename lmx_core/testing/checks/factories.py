"""What holds for architectures."""

import attrs

from lmx_core.config import ModelConfig
from lmx_core.errors import LmxError
from lmx_core.factories import make_config
from lmx_core.model import LanguageModel
from lmx_core.testing.candidate import Candidate
from lmx_core.testing.checks.models import builds_lazily

TINY = 10_000_000


def has_a_tiny_size(factory: Candidate) -> None:
    """`sizes["tiny"]` is there, and is small enough to be tried anywhere: at most 10 million parameters."""
    count = LanguageModel(make_config(factory.name, size="tiny")).count_parameters()
    assert count <= TINY, f"tiny has {count:,} parameters"


def every_size_is_a_model(factory: Candidate) -> None:
    """Each published size is a model, which can be built and counted without computing one of its parameters."""
    for size in factory.component.sizes:
        config = _one_of_each(make_config(factory.name, size=size))
        builds_lazily(lambda config=config: LanguageModel(config))


def _one_of_each(config: ModelConfig) -> ModelConfig:
    """The model with each of its blocks once, where a pattern repeats them."""
    if config.block_configs is not None and config.block_pattern is None:
        return config
    return attrs.evolve(config, n_layers=min(config.n_layers, len(config.block_pattern or "1")))


def unknown_arguments_are_refused(factory: Candidate) -> None:
    """An argument that the architecture does not have is an error."""
    try:
        make_config(factory.name, size="tiny", no_such_argument=1)
    except LmxError:
        return
    raise AssertionError("no_such_argument=1 is accepted")


def configs_come_again(factory: Candidate) -> None:
    """The same arguments give the same config."""
    assert make_config(factory.name, size="tiny") == make_config(factory.name, size="tiny"), "two calls differ"
