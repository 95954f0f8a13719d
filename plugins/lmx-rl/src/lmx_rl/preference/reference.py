"""Log-probabilities by the reference, to which a policy is held."""

import hashlib
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.core import array

from lmx_core.components import vectorised
from lmx_core.config import ModelConfig
from lmx_core.data.datasets.shakespeare import cache_directory
from lmx_core.data.sources.order import Numbers
from lmx_core.data.sources.rows import Arrays
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.files import atomically
from lmx_core.model import LanguageModel, evaluating
from lmx_core.objective import take_reports
from lmx_core.opening import config_of, open_model
from lmx_core.serialize import plain
from lmx_core.train.parallel.ranks import Ranks, alone
from lmx_core.train.parallel.together import fingerprint
from lmx_rl.logps import completion_logps
from lmx_rl.precision import lowered
from lmx_rl.preference.rows import Floats, Rows

NAME = "reference"
"""Of the array in a batch."""
SAID = 5.0
"""Seconds between two words on how far it is."""


class Reference:
    """What the reference says of some tables of rows: the policy as it was before its first step, or another model.

    The numbers of all rows are computed before the first step, kept in a file of the cache for other runs, and in every
    checkpoint: a resumed run has those of the first policy. With `precompute=False`, which takes a model of its own, those
    of a batch are computed whenever it is read, and the model is held in memory.
    """

    def __init__(
        self, tables: Mapping[str, Rows], batch_size: int, place: str | None = None, precompute: bool = True
    ) -> None:
        if place is None and not precompute:
            raise ConfigError(
                "precompute=false needs a reference: the policy is not what it was once it has learned. Name a model: "
                'reference = "PATH"; or leave precompute out.'
            )
        self.tables, self.batch_size, self.place, self.precompute = tables, batch_size, place, precompute
        self.values: dict[str, Floats] = {}
        self.model: LanguageModel | None = None

    def check(self, config: ModelConfig) -> None:
        """Before anything is computed: `ConfigError` where the tokens of the reference are not those of the policy."""
        if self.place is None:
            return
        known = config_of(self.place).vocab_size
        if known != config.vocab_size:
            raise ConfigError(
                f"the reference {self.place} knows {known} tokens, and the policy {config.vocab_size}: both must read the "
                "same tokens. Name a model with the policy's tokenizer, or leave reference out to take the policy as it "
                "begins."
            )

    def begin(self, trainer: Any) -> None:
        """On all ranks, before anything is read: what is not there yet is computed, or its model opened."""
        if self.model or self.values.keys() == self.tables.keys():
            return
        if self.place is None:
            with trainer.update.rounded():
                self.compute(trainer.model, trainer.ranks, str(trainer.update.dtype))
            return
        self.model = open_model(self.place).model
        self.check(self.model.config)
        lowered(self.model, trainer.update.dtype)
        if self.precompute:
            self.compute(self.model, trainer.ranks, str(trainer.update.dtype))
            self.model = None
        else:
            self._logps = logps_of(self.model)

    def compute(self, model: LanguageModel, ranks: Ranks | None = None, dtype: str = "") -> None:
        """The numbers of all rows by a model; from the cache if it has seen this model and these rows."""
        ranks = ranks or alone()
        kept = cache_directory() / "reference" / f"{self._key(model, dtype)}.safetensors"
        found = _read(kept, self.tables) if ranks.first else {}
        if not ranks.any(bool(found)):
            found = self._computed(model, ranks)
            if ranks.first:
                _write(kept, found)
        elif ranks.size > 1:
            shared = {name: mx.array(found[name] if found else self._empty(rows)) for name, rows in self.tables.items()}
            found = {name: np.array(value) for name, value in ranks.sum(shared).items()}
        self.values = found

    def _key(self, model: LanguageModel, dtype: str) -> str:
        said = [f"mlx {version('mlx')}, lmx-core {version('lmx-core')}", str(mx.default_device()), dtype]
        said += [repr(plain(model.config)), fingerprint(model)]
        said += [f"{name} {rows.sha256}" for name, rows in self.tables.items()]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()

    def _empty(self, rows: Rows) -> Floats:
        return np.zeros(int(rows.targets.sum()), np.float32)

    def _computed(self, model: LanguageModel, ranks: Ranks) -> dict[str, Floats]:
        """Rows of like length together; each rank computes a part of the batches."""
        found = {name: self._empty(rows) for name, rows in self.tables.items()}
        batches = [(name, numbers) for name, rows in self.tables.items() for numbers in self._batches(rows)]
        said = time.monotonic()
        logps = logps_of(model)
        for i, (name, numbers) in enumerate(batches):
            if i % ranks.size == ranks.rank:
                rows = self.tables[name]
                rows.gather(found[name], numbers, np.array(logps(rows.batch(numbers))))
            if ranks.first and sys.stderr.isatty() and time.monotonic() - said > SAID:
                said = time.monotonic()
                print(f"log-probabilities by the reference: batch {i + 1:,} of {len(batches):,}", file=sys.stderr)
        if ranks.size == 1:
            return found
        summed = ranks.sum({name: mx.array(values) for name, values in found.items()})
        return {name: np.array(values) for name, values in summed.items()}

    def _batches(self, rows: Rows) -> list[Numbers]:
        order = np.lexsort((rows.targets, rows.inputs))
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def of(self, table: str, numbers: Any, batch: Arrays) -> Floats:
        """Of each target of a batch of these rows, (B, C)."""
        if self.model is not None:
            return np.array(self._logps(batch))
        return self.tables[table].spread(self.values[table], numbers)

    def saved(self) -> dict[str, array]:
        """What a checkpoint keeps: 4 bytes a target."""
        return {f"{NAME}.{name}": mx.array(values) for name, values in self.values.items()}

    def restore(self, arrays: Mapping[str, array], run: Path) -> None:
        """Take up what a checkpoint of the run has; `CheckpointError` where it is of other rows."""
        for name, rows in self.tables.items() if self.precompute else ():
            values = arrays.get(f"{NAME}.{name}")
            if values is None or values.size != int(rows.targets.sum()):
                raise CheckpointError(
                    f"the last checkpoint of {run} does not have the reference's numbers of these {len(rows)} rows. Start a "
                    "new run."
                )
            self.values[name] = np.array(values)


def logps_of(model: LanguageModel) -> Any:
    """`logps(batch)`: of each target, (B, C), without dropout and without a gradient."""

    def logps(batch: dict[str, array]) -> array:
        found = completion_logps(model, batch)
        take_reports(model)
        return found

    run = vectorised.compiled(logps, inputs=[model.state])

    def called(batch: Arrays) -> array:
        with evaluating(model):
            return run({name: mx.array(batch[name]) for name in ("inputs", "targets", "mask", "starts")})

    return called


def _read(file: Path, tables: Mapping[str, Rows]) -> dict[str, Floats]:
    """What the cache has of these rows; nothing where it has nothing, or a file that is damaged."""
    try:
        kept: Any = mx.load(str(file)) if file.exists() else {}
        found = {name: np.array(kept[name]) for name in tables}
    except (RuntimeError, OSError, ValueError, KeyError):
        return {}
    whole = all(len(found[name]) == int(rows.targets.sum()) for name, rows in tables.items())
    return found if whole else {}


def _write(file: Path, values: Mapping[str, Floats]) -> None:
    """A cache that cannot be written, on a full or read-only disk, is done without."""
    try:
        with atomically(file) as temporary:
            mx.save_safetensors(str(temporary), {name: mx.array(each) for name, each in values.items()})
    except CheckpointError:
        return
