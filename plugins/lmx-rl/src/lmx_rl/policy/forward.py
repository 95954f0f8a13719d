"""Log-probabilities of completions, without a gradient, by the policy or by what it is held to."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from lmx_core.checkpoint import load_model, save_model
from lmx_core.components import vectorised
from lmx_core.config import ModelConfig
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.model import LanguageModel, evaluating
from lmx_core.objective import take_reports
from lmx_core.opening import config_of, open_model
from lmx_core.train.callback import REFERENCE

READ = ("inputs", "starts", "targets")
Logps = Callable[[Any, Mapping[str, array]], array]


class Forward:
    """`logps(model, batch)` as a step computes it, of one model, whose weights may change."""

    def __init__(self, model: Any, logps: Logps, compiled: bool) -> None:
        def found(batch: dict[str, array]) -> array:
            result = logps(model, batch)
            take_reports(model)
            return result

        self.model = model
        self._run: Any = vectorised.compiled(found, inputs=[model.state]) if compiled else found

    def __call__(self, batches: Iterator[tuple[Any, Mapping[str, Any]]], out: NDArray[np.float32]) -> None:
        """Fill rows of `out`, (N, M), with those of batches: which rows they are, and what `Rollout.batch` has of them."""
        with evaluating(self.model):
            for rows, batch in batches:
                found = np.array(self._run({name: mx.array(batch[name]) for name in READ}))
                out[rows, : found.shape[1]] = found


def check_reference(place: str, policy: ModelConfig) -> None:
    """`ConfigError` where a model reads other tokens than the policy."""
    known = config_of(place).vocab_size
    if known != policy.vocab_size:
        raise ConfigError(
            f"the reference {place} knows {known} tokens, and the policy {policy.vocab_size}: both must read the same ones. "
            "Name a model with the policy's tokenizer, or leave reference out to take the policy as it begins."
        )


def reference_of(policy: LanguageModel, place: str | None) -> LanguageModel:
    """The model of a place, or a copy of the policy as it is; with the weights as they are."""
    return frozen(copy.deepcopy(policy) if place is None else open_model(place).model)


def keep_reference(model: LanguageModel, run: Path) -> None:
    """Write it into the run's directory, once."""
    if not (run / REFERENCE).exists():
        save_model(model, run / REFERENCE)


def kept_reference(run: Path) -> LanguageModel:
    """What `keep_reference` wrote."""
    if not (run / REFERENCE).exists():
        raise CheckpointError(
            f"{run} has no {REFERENCE}: it began with beta = 0, or the folder was removed. Start a new run."
        )
    return frozen(load_model(run / REFERENCE))


def frozen(model: LanguageModel) -> LanguageModel:
    model.eval()
    model.freeze()
    return model
