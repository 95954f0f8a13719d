"""A training run of a second, to look on at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import numpy as np

from lmx_core.config import ModelConfig
from lmx_core.data.tokenizers import ByteTokenizer
from lmx_core.model import LanguageModel
from lmx_core.testing.subjects import SMALL, current_seed, randomise
from lmx_core.train.config import TrainConfig
from lmx_core.train.trainer import Trainer

BRIEF: Mapping[str, Any] = {
    "batch_size": 2,
    "seq_len": 12,
    "log_interval": 1,
    "eval_interval": 2,
    "checkpoint_interval": 3,
}


class RandomBytes:
    """A source of bytes by chance, sample by sample; every third target does not count."""

    def __init__(self, seq_len: int) -> None:
        self.seq_len = seq_len

    def __len__(self) -> int:
        return 100

    def batch(self, samples: Sequence[int], step: int) -> dict[str, Any]:
        rows = [
            np.random.default_rng([current_seed(), sample]).integers(0, 256, self.seq_len + 1) for sample in samples
        ]
        tokens = np.stack(rows).astype(np.int32)
        mask = np.broadcast_to(np.arange(self.seq_len) % 3 > 0, tokens[:, 1:].shape)
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "mask": mask}


def brief_trainer(
    callbacks: Sequence[Any] = (), path: Path | None = None, config: TrainConfig | None = None, **block: Any
) -> Trainer:
    """Of a model of two small blocks with dropout, on bytes; each call is the same run, but for who looks on."""
    config = TrainConfig(**BRIEF, max_steps=6, warmup_steps=2) if config is None else config
    mx.random.seed(current_seed())
    sizes = {"dropout": 0.1, **block}
    model = LanguageModel(ModelConfig(block=attrs.evolve(SMALL, **sizes), vocab_size=256, n_layers=2))
    trainer = Trainer(
        randomise(model),  # pyright: ignore[reportArgumentType]
        config,
        RandomBytes(config.seq_len),
        evaluate=lambda _, final: {"val_loss": 5.0 + final},
        callbacks=callbacks,
    )
    trainer.path, trainer.tokenizer = path, ByteTokenizer()
    return trainer
