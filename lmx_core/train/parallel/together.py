"""The ranks of one run: what must be the same on all of them, and what the others do when one is lost."""

import hashlib
import json
import shlex
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import mlx.core as mx
import numpy as np

from lmx_core.checkpoint import CHECKPOINTS
from lmx_core.errors import CheckpointError, ConfigError, LmxError
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.train.parallel.hosts import launched_with
from lmx_core.train.parallel.ranks import LostRankError
from lmx_core.train.run import RunDirectory, locked
from lmx_core.train.trainer import Trainer

PATIENCE = 30.0
"""Seconds for which a rank waits for the lock of a run directory: who has it is saving the run."""


def check_same(trainer: Trainer, corpus: str) -> None:
    """Refuse to train, on every rank, where one begins elsewhere than the first: after another edit of the config, with
    another corpus (its digest), with other weights."""
    ranks = trainer.ranks
    if ranks.size == 1:
        return
    begun: Mapping[str, str] = {
        "config": json.dumps(dict(trainer.about), sort_keys=True),
        "corpus": corpus,
        "step": json.dumps({name: value for name, value in trainer.position.items() if name != "seconds"}),
        "model": fingerprint(trainer.model),
    }
    for what, text in begun.items():
        if others := ranks.differing(text):
            raise ConfigError(
                f"rank {', '.join(map(str, others))} of {ranks.size} has another {what} than rank 0. All ranks need the same "
                "config file, corpus and checkpoints, and the same versions of lmx and its plugins."
            )


def fingerprint(model: LanguageModel) -> str:
    """A digest of the model's parameters."""
    digest = hashlib.blake2b()
    for path, weight in sorted(flat_parameters(model).items()):
        digest.update(f"{path} {weight.dtype} {weight.shape}".encode())
        digest.update(np.array(weight.reshape(-1).view(mx.uint8)).tobytes())
    return digest.hexdigest()


def rescued(trainer: Trainer, directory: RunDirectory, began: int, error: LostRankError) -> LostRankError:
    """Save the last finished step of a run that began at step `began` and has lost a rank; what to tell people.

    All who are left have the same state. The first rank holds the directory's lock; if it is lost, the lock is free, and
    another rank saves.
    """
    if trainer.update.shards:
        return LostRankError(
            f"{error} after step {trainer.step}, and with it a part of the weights: only checkpoints are left."
        )
    try:
        saved = _saved(trainer, directory) if trainer.step > began else None
    except LmxError as problem:
        return LostRankError(f"{error}. Step {trainer.step} could not be saved: {problem}")
    if saved is None:
        return LostRankError(f"{error} before step {trainer.step + 1} was finished.")
    return LostRankError(
        f"{error} after step {trainer.step}, which is saved in {saved}. Go on with:\n"
        f"  lmx train --resume {shlex.quote(str(directory.path))}{launched_with()}",
        saved,
    )


def _saved(trainer: Trainer, directory: RunDirectory) -> Path:
    checkpoint = directory.path / CHECKPOINTS / f"step-{trainer.step:08d}"
    if trainer.ranks.first:
        return _written(trainer, directory, checkpoint)
    until = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while not checkpoint.exists():
            try:
                stack.enter_context(locked(directory.path))
                break
            except CheckpointError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        return _written(trainer, directory, checkpoint)


def _written(trainer: Trainer, directory: RunDirectory, checkpoint: Path) -> Path:
    if not checkpoint.exists():
        trainer.check_finite()
        directory.on_checkpoint(trainer)
    return checkpoint
