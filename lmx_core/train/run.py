"""A run directory: the resolved config, the metrics, the checkpoints, the curve."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from lmx_core.checkpoint import CHECKPOINTS, WEIGHTS, load_weights, read_config, save_model
from lmx_core.data.tokenizers import save_tokenizer
from lmx_core.errors import CheckpointError
from lmx_core.files import atomically, write_text
from lmx_core.serialize import plain, read_file, structure, to_toml
from lmx_core.train.config import RunConfig
from lmx_core.train.trainer import Callback, Trainer

CONFIG, METRICS, SUMMARY, CURVE = "config.toml", "metrics.jsonl", "summary.json", "loss.png"
TOKENIZER, OPTIMIZER, POSITION = "tokenizer.json", "optimizer.safetensors", "training.json"


class RunDirectory(Callback):
    """Keeps a run on disk as it goes. Each file, and each checkpoint as a whole, is there or not there."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    def begin(self) -> None:
        """Make the directory, with the resolved config in it."""
        write_text(self.path / CONFIG, to_toml(plain(self.config)))

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.step % self.config.train.log_interval == 0:
            self._log(trainer, metrics)

    def on_eval_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self._log(trainer, metrics)

    def on_checkpoint(self, trainer: Trainer) -> None:
        with atomically(self.path / CHECKPOINTS / f"step-{trainer.step:08d}") as temporary:
            temporary.mkdir()
            save_model(trainer.model, temporary)
            save_tokenizer(self.config.data.tokenizer.name, trainer.corpus.tokenizer, temporary / TOKENIZER)
            mx.save_safetensors(str(temporary / OPTIMIZER), dict(tree_flatten(trainer.optimizer.state)))
            write_text(temporary / POSITION, json.dumps(training_position(trainer), indent=2))
        for old in checkpoints(self.path)[: -self.config.train.keep_checkpoints]:
            shutil.rmtree(old, ignore_errors=True)

    def on_train_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        write_text(self.path / SUMMARY, json.dumps(summary, indent=2))

    def _log(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        line = json.dumps({"step": trainer.step, "seconds": round(trainer.seconds, 3)} | metrics)
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise CheckpointError(f"could not write {self.metrics}: {error.strerror}") from None

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that a resumed run will take again."""
        if self.metrics.exists():
            lines = [line for line in _whole_lines(self.metrics) if json.loads(line)["step"] <= step]
            write_text(self.metrics, "".join(f"{line}\n" for line in lines))


def _whole_lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def checkpoints(run: Path) -> list[Path]:
    """A run's whole checkpoints, oldest first."""
    return sorted((run / CHECKPOINTS).glob("step-*"))


def read_run(path: Path) -> RunConfig:
    """The resolved config of a run directory."""
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{path} is no run directory: it has no {CONFIG}")
    return structure(read_file(path / CONFIG), RunConfig, str(path / CONFIG), installed=True)


def training_position(trainer: Trainer) -> dict[str, Any]:
    """What the next step depends on beside the parameters and the optimizer, and what the corpus must still be."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    return {
        "step": trainer.step,
        "samples": trainer.samples,
        "seconds": trainer.seconds,
        "random": high << 32 | low,
        "corpus": trainer.corpus.fingerprint(),
    }


def restore(trainer: Trainer, run: Path) -> None:
    """Put the trainer where the run's last checkpoint left it, so that it goes on as if it had never stopped."""
    found = checkpoints(run)
    if not found:
        raise CheckpointError(f"{run} has no checkpoint yet; start it again with --force")
    checkpoint = found[-1]
    if read_config(checkpoint) != trainer.model.config:
        raise CheckpointError(f"the model of {run} cannot change when it is resumed; start a new run for another model")
    try:
        position = json.loads((checkpoint / POSITION).read_text(encoding="utf-8"))
        state: Any = mx.load(str(checkpoint / OPTIMIZER))
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} is damaged: {error}. Remove it to go on from the one before.") from None
    if position["corpus"] != trainer.corpus.fingerprint():
        raise CheckpointError(
            f"the corpus changed since {run} began: it was {position['corpus']}, now it is {trainer.corpus.fingerprint()}"
        )
    load_weights(trainer.model, checkpoint / WEIGHTS)
    trainer.optimizer.state = tree_unflatten(list(state.items()))
    mx.random.seed(position["random"])  # a seed is the generator's key
    trainer.step, trainer.samples, trainer.seconds = (position[name] for name in ("step", "samples", "seconds"))
    mx.eval(trainer.optimizer.state)
