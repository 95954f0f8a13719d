"""Parameters that stay as they are, or that the optimizer treats otherwise, by patterns of their paths."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs
from mlx import nn
from mlx.core import array
from mlx.utils import tree_map_with_path

from lmx_core import mup
from lmx_core.construct import build
from lmx_core.errors import ConfigError, did_you_mean
from lmx_core.model import flat_parameters
from lmx_core.train.config import ParameterGroup, TrainConfig
from lmx_core.train.optimizers.parted import Parted


@attrs.frozen
class Treatment:
    """What an optimizer does with a parameter."""

    rate: float = 1.0
    """Factor of the learning rate."""
    decay: float | None = None
    """Weight decay of whatever it is, norms and biases included; None for the optimizer's own ways."""
    slowed: float = 1.0
    """The part of `rate` that comes from the width. Decay is not slowed with it."""


class Grouped(Parted):
    """Any optimizer, built once for each treatment: with the rate of that, and the decay that a group states."""

    def __init__(self, treatments: Mapping[str, Treatment], config: TrainConfig) -> None:
        self.kinds = list(dict.fromkeys(treatments.values()))
        number = {path: self.kinds.index(each) for path, each in treatments.items()}
        made = [build("optimizer", config.optimizer, _config_for(each, config)) for each in self.kinds]
        rates = [each.rate for each in self.kinds]
        super().__init__(made, lambda path, _: number[path], rates, config.learning_rate)
        self.number = number

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        updated = super().apply_gradients(gradients, parameters)
        return tree_map_with_path(lambda path, new, old: new - self._taken(path, old), updated, parameters)

    def _taken(self, path: str, weight: array) -> array | float:
        i = self.number[path]
        decay = self.kinds[i].decay
        return (self.optimizers[i].learning_rate * decay).astype(weight.dtype) * weight if decay else 0.0


def _config_for(treatment: Treatment, config: TrainConfig) -> TrainConfig:
    """Where a group states the decay, that is applied around the optimizer, which then has none of its own."""
    decay = config.weight_decay / treatment.slowed if treatment.decay is None else 0.0
    return attrs.evolve(config, weight_decay=decay)


def optimizer_for(model: nn.Module, config: TrainConfig) -> Any:
    """The optimizer of a config for a model, its groups and what the model's width asks for included.

    Raises `ConfigError` where `groups_problem` finds something.
    """
    if problem := groups_problem(model, config):
        raise ConfigError(problem)
    optimizer = build("optimizer", config.optimizer, config)
    treatments = dict(_treatments(model, config, optimizer))
    return optimizer if set(treatments.values()) <= {Treatment()} else Grouped(treatments, config)


def _treatments(model: nn.Module, config: TrainConfig, optimizer: Any) -> Iterator[tuple[str, Treatment]]:
    slowed = mup.rate_factors(model, optimizer)
    for path in flat_parameters(model):
        group = next((each for each in config.groups if _matches(path, each.match)), ParameterGroup(match="*"))
        factor = slowed.get(path, 1.0)
        decay = None if group.weight_decay is None else group.weight_decay / factor
        yield path, Treatment(group.rate * factor, decay, factor)


def groups_problem(model: nn.Module, config: TrainConfig) -> str | None:
    """Why the groups of a config are not those of the model, or None."""
    paths = flat_parameters(model)
    for i, group in enumerate(config.groups):
        if problem := _unmatched(group.match, paths, f"train.groups[{i}].match"):
            return problem
    optimizer = build("optimizer", config.optimizer, config)
    if not getattr(optimizer, "decays", True):
        for i, group in enumerate(config.groups):
            if group.weight_decay:
                return (
                    f"train.groups[{i}].weight_decay={group.weight_decay}, and optimizer {config.optimizer.name!r} never "
                    "decays. Leave it out, or take another optimizer."
                )
    return mup.problem(model, optimizer, config.optimizer.name)


def frozen_by(model: nn.Module, patterns: Sequence[str] | str) -> list[str]:
    """Freeze the parameters that a pattern matches; their paths. `ConfigError` for a pattern that matches none, or where
    nothing is left to train."""
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    if problem := freeze_problem(model, patterns):
        raise ConfigError(problem)
    frozen = [path for path in flat_parameters(model) if _matches(path, patterns)]
    modules = dict(model.named_modules())
    for path in frozen:
        place, _, name = path.rpartition(".")
        modules[place].freeze(recurse=False, keys=[name])
    return frozen


def freeze_problem(model: nn.Module, patterns: Sequence[str]) -> str | None:
    """Why the parameters that these patterns match cannot be frozen, or None."""
    paths = flat_parameters(model)
    if patterns and all(_matches(path, patterns) for path in paths):
        return f"train.freeze={list(patterns)} leaves nothing to train. Freeze less."
    return _unmatched(patterns, paths, "train.freeze")


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _unmatched(patterns: Sequence[str], paths: Collection[str], where: str) -> str | None:
    """Why one of the patterns is wrong, or None."""
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            near = did_you_mean(pattern, _patterns(paths))
            tops = ", ".join(sorted({f"{path.partition('.')[0]}.*" if "." in path else path for path in paths}))
            return f"{where} has {pattern!r}, and no parameter's path is like it. {near}The model has {tops}; see `lmx info`."
    return None


def _patterns(paths: Collection[str]) -> list[str]:
    """What one could have meant: a parameter, in one layer or in each, or a part of the model."""
    found: dict[str, None] = {}
    for path in paths:
        general = re.sub(r"\.\d+(?=\.)", ".*", path)
        parts = general.split(".")
        for each in (path, general, *(".".join([*parts[:i], "*"]) for i in range(1, len(parts)))):
            found[each] = None
    return list(found)
