"""What a run holds."""

import os
import resource
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx

from lmx_core.train.callback import Callback
from lmx_core.train.config import TrainConfig
from lmx_core.train.trainer import Trainer

STATM = Path("/proc/self/statm")


class Memory(Callback):
    """Bytes: `active` and `peak` of MLX's arrays, on the GPU or in its place; `resident` and `resident_peak` of the process.

    Peaks are those since the process began. What is resident now is known on Linux alone.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.every = config.log_interval

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        if trainer.step % self.every == 0:
            metrics |= {f"memory/{name}": value for name, value in held().items()}


def held() -> dict[str, int]:
    """Of this process, now."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    found = {"active": mx.get_active_memory(), "peak": mx.get_peak_memory()}
    if STATM.exists():
        found["resident"] = int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return found | {"resident_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
