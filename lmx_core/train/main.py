"""A training job, from a config file or from a run that is to go on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.checkpoint import TOKENIZER
from lmx_core.construct import build
from lmx_core.data.tokenizers import decode, load_tokenizer
from lmx_core.errors import ConfigError
from lmx_core.files import half_written, write_text
from lmx_core.generation import generate
from lmx_core.model import LanguageModel
from lmx_core.overrides import overridden
from lmx_core.protocols import Material, Recipe
from lmx_core.serialize import plain, read_file
from lmx_core.train import run as runs
from lmx_core.train.config import RunConfig, run_config
from lmx_core.train.parallel.ranks import LostRankError, Ranks, alone
from lmx_core.train.parallel.together import check_same, rescued
from lmx_core.train.plot import plot_run
from lmx_core.train.rules import vocabulary_problem
from lmx_core.train.start import begun
from lmx_core.train.trainer import Callback, Trainer

FIXED = (
    *("start", "model", "data", "train.seed", "train.seq_len"),
    *("train.trainer.name", "train.objective.name", "train.optimizer.name", "train.freeze", "train.ema_decay"),
)
"""What a resumed run keeps, beside what its recipe says."""


class Job:
    """A trainer, and the directory that keeps its run once it has one; of several ranks the first has one."""

    path: Path | None = None

    def __init__(
        self,
        config: RunConfig,
        recipe: Recipe,
        material: Material,
        model: LanguageModel | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.material = config, material
        mx.random.seed(config.train.seed)
        self.prompt = self._prompt()
        self.trainer = recipe.trainer(model or LanguageModel(config.model), material, ranks or alone())
        self.trainer.about, self.trainer.tokenizer = plain(config), material.tokenizer

    def keep_in(self, path: Path) -> None:
        """Keep the run in a directory that exists; the first rank does, the others know it for when that is lost."""
        self.directory = runs.RunDirectory(path, self.config, self.material)
        self.began = self.trainer.step
        if self.trainer.ranks.first:
            self.path = self.trainer.path = path
            self.trainer.callbacks.append(self.directory)

    def _prompt(self) -> list[int]:
        """What the sample continues, as tokens: said before the training, not after it, if it has none."""
        stated = self.config.train.sample_prompt
        return list(self.material.beginning) if stated is None else self.material.tokenizer.encode(stated)

    def run(self, watchers: Sequence[Callback] = ()) -> dict[str, Any]:
        """Train; the summary, with a sample of text where the run came to its end."""
        self.trainer.callbacks += watchers
        if self.path is None:
            return self._trained()
        with runs.locked(self.path):
            summary = self._trained()
            if summary["stopped"] is None:
                summary |= {"sample": self._sample()}
            summary |= {"run": str(self.path), "prompt": decode(self.material.tokenizer, self.prompt)}
            write_text(self.path / runs.SUMMARY, json.dumps(runs.jsonable(summary), indent=2))
            plot_run(self.path, self.path / runs.CURVE)
        return summary

    def _trained(self) -> dict[str, Any]:
        try:
            check_same(self.trainer, self.material.identity)
            return {**self.trainer.run(), **self.material.fingerprint()}
        except LostRankError as error:
            raise self.rescued(error) from None

    def rescued(self, error: LostRankError) -> LostRankError:
        """Save the last step of a run that has lost a rank; what to tell people."""
        return rescued(self.trainer, self.directory, self.began, error)

    def _sample(self) -> str:
        wanted = self.config.train.sample_tokens
        if not wanted or not self.prompt:
            return ""
        model, longest = self.trainer.model, self.trainer.model.longest()
        prompt = self.prompt if longest is None else self.prompt[:longest]
        drawn = generate(model, prompt, max_tokens=model.room_after(len(prompt), wanted), temperature=0.8, seed=0)
        return decode(self.material.tokenizer, [*self.prompt, *drawn])


def started(
    file: Path, assignments: Sequence[str], run_dir: Path | None, force: bool, ranks: Ranks | None = None
) -> Job:
    """A new run of a config file. Nothing is written before all of it fits together."""
    ranks = ranks or alone()
    table, origins = overridden(read_file(file), assignments)
    table, beginning = begun(table)
    config = run_config(table, ", ".join([str(file), *origins]))
    path = run_dir or Path("runs", file.stem)
    if ranks.first and (run_dir or force):
        _must_be_free(path, file, force)
    recipe: Recipe = build("trainer", config.train.trainer, config)
    with ranks.first_goes_first():
        material = recipe.read(beginning.tokenizer if beginning else None)
    model = _with_vocabulary(config, material, stated="vocab_size" in table["model"])
    job = Job(attrs.evolve(config, model=model), recipe, material, beginning.model if beginning else None, ranks)
    if ranks.first:
        path = runs.claim(path, another=run_dir is None and not force, replace=force)
    job.keep_in(Path(ranks.text_of_first(str(path))))
    return job


def resumed(path: Path, assignments: Sequence[str], ranks: Ranks | None = None) -> Job:
    """A run that goes on from its last checkpoint; what decides on the order of the data cannot change."""
    ranks = ranks or alone()
    before = runs.read_run(path)
    table, origins = overridden(plain(before), assignments)
    config = run_config(table, ", ".join([str(path), *origins]))
    recipe: Recipe = build("trainer", config.train.trainer, config)
    fixed = [*FIXED, *(f"train.trainer.{name}" for name in getattr(recipe, "fixed", ()))]
    if changed := [key for key in fixed if _at(plain(before), key) != _at(plain(config), key)]:
        raise ConfigError(f"{' and '.join(changed)} cannot change when a run is resumed; start a new run")
    saved = load_tokenizer(runs.checkpoints(path)[-1] / TOKENIZER) if config.start is not None else None
    with ranks.first_goes_first():
        material = recipe.read(saved)
    job = Job(config, recipe, material, ranks=ranks)
    runs.restore(job.trainer, path, material)
    if problem := _spent(job.trainer):
        raise ConfigError(f"{path} is finished: {problem}")
    job.keep_in(path)
    return job


def _spent(trainer: Trainer) -> str | None:
    """Why a run has come to its end, and how to go on, or None."""
    if not trainer.finished:
        return None
    config, done = trainer.config, f"{trainer.step} steps, {trainer.seconds:.0f} seconds"
    if trainer.progress < 1:
        return (
            f"{done}, and {trainer.stale} evaluations without a new best {trainer.criterion}. To go on, raise its patience: "
            f"--set train.patience={2 * trainer.stale}"
        )
    limits = {"max_seconds": config.max_seconds, "max_tokens": config.max_tokens, "max_flops": config.max_flops}
    more = "".join(f" --set train.{name}={2 * limit:g}" for name, limit in limits.items() if limit)
    return f"{done}. To go on, raise its budget: --set train.max_steps={2 * trainer.step}{more}"


def _at(table: Any, path: str) -> Any:
    """What a table has under a path, None where it has nothing; a component that has no options is its name."""
    for key in path.split("."):
        if isinstance(table, str):
            return table if key == "name" else None
        table = None if table is None else table.get(key)
    return table


def _must_be_free(path: Path, file: Path, force: bool) -> None:
    """Refuse a directory that exists, or that `--force` must not replace because it is not, or not only, a run."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_dir():
        raise ConfigError(f"{path} is no directory. Choose another --run-dir.")
    if not force:
        raise ConfigError(
            f"{path} exists. Choose another --run-dir, go on with --resume {path}, or replace it with --force."
        )
    others = sorted({entry.name for entry in path.iterdir() if not half_written(entry)} - runs.FILES)
    if others:
        problem = f"holds {', '.join(others[:3])}, which no run writes"
    elif path.resolve() in (Path.cwd(), file.resolve().parent):
        problem = "is where you work"
    else:
        return
    raise ConfigError(f"{path} {problem}, so that --force does not replace it. Choose another --run-dir.")


def _with_vocabulary(config: RunConfig, material: Material, stated: bool) -> Any:
    """The model with the tokenizer's vocabulary, unless the file states one, which must be large enough."""
    size = material.tokenizer.vocab_size
    if not stated:
        return attrs.evolve(config.model, vocab_size=size)
    if problem := vocabulary_problem(config, size):
        raise ConfigError(problem)
    return config.model
