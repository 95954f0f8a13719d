"""A run directory: the resolved config, the metrics, the checkpoints, the curve."""

import fcntl
import itertools
import json
import math
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from lmx_core.checkpoint import (
    CHECKPOINTS,
    POSITION,
    TOKENIZER,
    WEIGHTS,
    load_weights,
    needs_of,
    read_config,
    save_model,
)
from lmx_core.data.tokenizers import save_tokenizer
from lmx_core.errors import CheckpointError
from lmx_core.files import atomically, clear, write_text
from lmx_core.freeze import check_installed, migrated, records
from lmx_core.model import flat_parameters
from lmx_core.protocols import Material
from lmx_core.serialize import plain, structure, to_toml
from lmx_core.train.callback import COMPLETIONS, LOGS, REFERENCE, SAMPLES
from lmx_core.train.config import RunConfig
from lmx_core.train.history import CONFIG, LOCK, METRICS, SUMMARY, whole_lines
from lmx_core.train.trainer import Callback, Trainer

CURVE = "loss.png"
FILES = {CONFIG, METRICS, SUMMARY, CURVE, CHECKPOINTS, LOCK, SAMPLES, LOGS, COMPLETIONS, REFERENCE}
"""What a run writes; a directory with anything else in it is never replaced."""
OPTIMIZER, TRAINED, STATE = "optimizer.safetensors", "weights.safetensors", "state.safetensors"
"""The optimizer's state; the weights that are trained, where the checkpoint's model has their averages; and what the source
and the objective keep, where they keep something."""


class RunDirectory(Callback):
    """Keeps a run on disk as it goes. Each file, and each checkpoint as a whole, is there or not there."""

    logs = True

    def __init__(self, path: Path, config: RunConfig, material: Material) -> None:
        self.path, self.config, self.material = path, config, material

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    def on_train_begin(self, trainer: Trainer) -> None:
        """Write the resolved config; drop what a kill left half written, and the metrics of steps that are taken again."""
        for folder in (self.path, self.path / CHECKPOINTS):
            clear(folder)
        write_text(self.path / CONFIG, to_toml(plain(self.config)))
        if self.metrics.exists():
            lines = [text for text, line in whole_lines(self.metrics) if line["step"] <= trainer.step]
            write_text(self.metrics, "".join(f"{line}\n" for line in lines))

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        """Every `log_interval` steps, and where a callback has measured something."""
        if trainer.step % self.config.train.log_interval == 0 or metrics.keys() - trainer.usual:
            self._log(trainer, metrics)

    def on_eval_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        self._log(trainer, metrics)

    def on_checkpoint(self, trainer: Trainer) -> None:
        with atomically(self.path / CHECKPOINTS / f"step-{trainer.step:08d}") as temporary:
            temporary.mkdir()
            if trainer.update.averages:
                mx.save_safetensors(str(temporary / TRAINED), flat_parameters(trainer.model))
            with trainer.averaged():
                save_model(trainer.model, temporary)
            save_tokenizer(self.config.data.tokenizer.name, self.material.tokenizer, temporary / TOKENIZER)
            mx.save_safetensors(str(temporary / OPTIMIZER), dict(tree_flatten(trainer.optimizer.state)))
            if state := trainer.saved():
                mx.save_safetensors(str(temporary / STATE), state)
            needed = [attrs.asdict(each) for each in records(self.config)]
            position = {**trainer.position, "corpus": self.material.identity, "score": trainer.evaluated}
            position["held_out"] = dict(self.material.held_out)
            write_text(
                temporary / POSITION,
                json.dumps({**position, "config": plain(self.config), "components": needed}, indent=2),
            )
        self._prune()

    def _prune(self) -> None:
        """Leave the latest checkpoints, and those with the lowest loss."""
        train, found = self.config.train, checkpoints(self.path)
        losses = {path: loss for path in found if (loss := _loss(path)) is not None}
        kept = {*found[-train.keep_checkpoints :], *sorted(losses, key=lambda path: losses[path])[: train.keep_best]}
        for old in set(found) - kept:
            shutil.rmtree(old, ignore_errors=True)

    def on_train_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        write_text(self.path / SUMMARY, json.dumps(jsonable(summary), indent=2))

    def _log(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        where = {"step": trainer.step, "seconds": round(trainer.seconds, 3), "tokens": trainer.tokens}
        line = json.dumps(where | jsonable(metrics))
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise CheckpointError(f"could not write {self.metrics}: {error.strerror}") from None


def jsonable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """With None for numbers that are not finite, for which JSON has no word."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }


def _loss(checkpoint: Path) -> float | None:
    """That of the evaluation of which the checkpoint was made, if one was."""
    with suppress(OSError, ValueError, AttributeError):
        return json.loads((checkpoint / POSITION).read_text(encoding="utf-8")).get("score")
    return None


@contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Keep other processes from writing to a run's directory meanwhile."""
    with (path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckpointError(f"another process is training in {path}. Wait for it, or stop it.") from None
        yield


def claim(path: Path, another: bool, replace: bool) -> Path:
    """Make a run's directory, this process's own: `path`, or the next free name like it, or in place of a run there."""
    if replace and path.exists():
        with locked(path):
            shutil.rmtree(path)
    names = (path if i == 1 else path.with_name(f"{path.name}-{i}") for i in itertools.count(1))
    for place in names if another else [path]:
        with suppress(FileExistsError):
            place.mkdir(parents=True)
            return place
    raise CheckpointError(f"{path} exists by now. Choose another --run-dir.")


def checkpoints(run: Path) -> list[Path]:
    """A run's whole checkpoints, oldest first."""
    return sorted((run / CHECKPOINTS).glob("step-*"))


def read_run(path: Path) -> RunConfig:
    """The resolved config of a run directory, as the installed components read it.

    That of the last checkpoint, which says what versions its options have; config.toml is there for people, and was
    written by whoever ran last.
    """
    file = path / CONFIG
    if not file.is_file():
        raise CheckpointError(f"{path} is no run directory: it has no {CONFIG}")
    if not checkpoints(path):
        raise CheckpointError(f"{path} has no checkpoint yet; start it again with --force")
    file = checkpoints(path)[-1] / POSITION
    needed = needs_of(file)
    check_installed(needed, file)
    return migrated(structure(_config(file), RunConfig, str(file)), needed)


def _config(position: Path) -> Any:
    try:
        return json.loads(position.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(position.parent, error) from None


def _damaged(checkpoint: Path, error: Exception) -> CheckpointError:
    problem = f"{type(error).__name__}: {error}"
    return CheckpointError(f"{checkpoint} is damaged ({problem}). Remove it to go on from the one before.")


def _must_fit(trainer: Trainer, state: dict[str, mx.array]) -> None:
    """The saved optimizer has exactly what this one keeps for the model's parameters."""
    trainer.optimizer.init(trainer.model.trainable_parameters())
    expected: dict[str, mx.array] = dict(tree_flatten(trainer.optimizer.state))
    shapes, saved = ({name: value.shape for name, value in each.items()} for each in (expected, state))
    if differing := sorted(name for name in {*shapes, *saved} if shapes.get(name) != saved.get(name)):
        raise ValueError(
            f"{len(differing)} of the optimizer's arrays are missing or of another shape, {differing[0]} first"
        )


def restore(trainer: Trainer, run: Path, material: Material) -> None:
    """Put the trainer where the run's last checkpoint left it, so that it goes on as if it had never stopped."""
    checkpoint = checkpoints(run)[-1]
    if read_config(checkpoint) != trainer.model.config:
        raise CheckpointError(f"the model of {run} cannot change when it is resumed; start a new run for another model")
    try:
        position = json.loads((checkpoint / POSITION).read_text(encoding="utf-8"))
        state: Any = mx.load(str(checkpoint / OPTIMIZER))
        identity, held_out = position["corpus"], dict(position["held_out"])
        trainer.resume(position)
        _must_fit(trainer, state)
        kept: Any = mx.load(str(checkpoint / STATE)) if (checkpoint / STATE).exists() else {}
    except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:  # RecursionError is a RuntimeError
        raise _damaged(checkpoint, error) from None
    if identity != material.identity:
        raise CheckpointError(
            f"the corpus changed since {run} began: its training tokens, or where documents end, are others. Start a new "
            "run."
        )
    now = material.held_out
    if any(held_out[size] != now[size] for size in now.keys() & held_out.keys()):
        raise CheckpointError(
            f"the held-out text changed since {run} began, so that its losses could not be compared. Start a new run."
        )
    load_weights(trainer.model, checkpoint / WEIGHTS)
    if averages := trainer.update.averages:
        trained: Any = dict(tree_flatten(trainer.model.trainable_parameters()))
        averages.update({path: trained[path] for path in averages})
        load_weights(trainer.model, checkpoint / TRAINED)
    trainer.optimizer.state = tree_unflatten(list(state.items()))
    mx.eval(trainer.optimizer.state, averages)
    trainer.restore(kept, run)
