"""A training job, from a config file or from a run that is to go on."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.data.corpus import Corpus, read_corpus
from lmx_core.data.tokenizers import decode
from lmx_core.errors import ConfigError
from lmx_core.files import write_text
from lmx_core.generation import generate
from lmx_core.model import LanguageModel
from lmx_core.overrides import overridden
from lmx_core.serialize import plain, read_file, structure
from lmx_core.train import run as runs
from lmx_core.train.config import RunConfig
from lmx_core.train.plot import plot_run
from lmx_core.train.trainer import Callback, Trainer


class Job:
    """A trainer and the directory that keeps its run."""

    def __init__(self, path: Path, config: RunConfig, corpus: Corpus) -> None:
        self.path, self.config, self.corpus = path, config, corpus
        mx.random.seed(config.train.seed)
        self.directory = runs.RunDirectory(path, config)
        self.trainer = Trainer(LanguageModel(config.model), corpus, config.train, [self.directory])

    @property
    def prompt(self) -> str:
        """The sample's prompt, as a shell reads it."""
        return shlex.quote(self.config.train.sample_prompt)

    def run(self, watchers: Sequence[Callback] = ()) -> dict[str, Any]:
        """Train; the summary, with a sample of text where the run came to its end."""
        self.trainer.callbacks = [*self.trainer.callbacks, *watchers]
        summary = self.trainer.run()
        if summary["stopped"] is None:
            summary |= {"sample": self._sample()}
        summary |= {"run": str(self.path)}
        write_text(self.path / runs.SUMMARY, json.dumps(summary, indent=2))
        plot_run(self.directory.metrics, self.path / runs.CURVE)
        return summary

    def _sample(self) -> str:
        settings, tokenizer = self.config.train, self.corpus.tokenizer
        prompt = tokenizer.encode(settings.sample_prompt)
        limit = self.trainer.model.longest()
        room = settings.sample_tokens if limit is None else min(settings.sample_tokens, limit + 1 - len(prompt))
        if room < 1 or len(prompt) == 0:
            return ""
        return decode(
            tokenizer, [*prompt, *generate(self.trainer.model, prompt, max_tokens=room, temperature=0.8, seed=0)]
        )


def started(file: Path, assignments: Sequence[str], run_dir: Path | None, force: bool) -> Job:
    """A new run of a config file."""
    table, origins = overridden(read_file(file), assignments)
    config = structure(table, RunConfig, ", ".join([str(file), *origins]), installed=True)
    path = _run_path(file, run_dir, force)
    corpus = corpus_of(config)
    model = _with_vocabulary(config, corpus, stated="vocab_size" in table["model"])
    job = Job(path, attrs.evolve(config, model=model), corpus)
    if path.exists():
        shutil.rmtree(path)
    job.directory.begin()
    return job


def resumed(path: Path, assignments: Sequence[str]) -> Job:
    """A run that goes on from its last checkpoint; budgets and intervals may change, the model and the data may not."""
    before = runs.read_run(path)
    table, origins = overridden(plain(before), assignments)
    config = structure(table, RunConfig, ", ".join([str(path), *origins]), installed=True)
    job = Job(path, config, corpus_of(config))
    runs.restore(job.trainer, path)
    job.directory.forget_after(job.trainer.step)
    job.directory.begin()
    return job


def corpus_of(config: RunConfig) -> Corpus:
    return read_corpus(config.data, config.train.final_eval_bytes, config.train.eval_bytes)


def _run_path(file: Path, run_dir: Path | None, force: bool) -> Path:
    """The directory asked for, or the first free one named after the config file."""
    if run_dir is None:
        names = (file.stem if i == 1 else f"{file.stem}-{i}" for i in range(1, 1_000_000))
        paths = (Path("runs") / name for name in names)
        return next(path for path in paths if force or not path.exists())
    if run_dir.exists() and not force:
        raise ConfigError(
            f"{run_dir} exists. Choose another --run-dir, go on with --resume {run_dir}, or replace it with --force."
        )
    if run_dir.exists() and any(run_dir.iterdir()) and not (run_dir / runs.CONFIG).exists():
        raise ConfigError(f"{run_dir} is not a run directory; --force does not replace it")
    return run_dir


def _with_vocabulary(config: RunConfig, corpus: Corpus, stated: bool) -> Any:
    """The model with the tokenizer's vocabulary, unless the file states one, which must be large enough."""
    size = corpus.tokenizer.vocab_size
    if not stated:
        return attrs.evolve(config.model, vocab_size=size)
    if config.model.vocab_size < size:
        raise ConfigError(
            f"model.vocab_size={config.model.vocab_size} is too small: tokenizer {config.data.tokenizer} has {size} tokens. "
            "Leave it out to take the tokenizer's."
        )
    return config.model
