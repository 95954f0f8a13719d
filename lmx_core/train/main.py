"""A training job, from a config file or from a run that is to go on."""

import itertools
import json
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
        self.prompt = self._prompt()
        self.directory = runs.RunDirectory(path, config)
        self.trainer = Trainer(LanguageModel(config.model), corpus, config.train, [self.directory])

    def _prompt(self) -> list[int]:
        """What the sample continues, as tokens: said before the training, not after it, if it has none."""
        stated = self.config.train.sample_prompt
        return self.corpus.glimpse.tokens[:8].tolist() if stated is None else self.corpus.tokenizer.encode(stated)

    def run(self, watchers: Sequence[Callback] = ()) -> dict[str, Any]:
        """Train; the summary, with a sample of text where the run came to its end."""
        self.trainer.callbacks = [*self.trainer.callbacks, *watchers]
        summary = self.trainer.run()
        if summary["stopped"] is None:
            summary |= {"sample": self._sample()}
        summary |= {"run": str(self.path), "prompt": decode(self.corpus.tokenizer, self.prompt)}
        write_text(self.path / runs.SUMMARY, json.dumps(summary, indent=2))
        plot_run(self.directory.metrics, self.path / runs.CURVE)
        return summary

    def _sample(self) -> str:
        room = self.config.train.sample_tokens
        if (limit := self.trainer.model.longest()) is not None:
            room = min(room, limit + 1 - len(self.prompt))
        if room < 1 or not self.prompt:
            return ""
        drawn = generate(self.trainer.model, self.prompt, max_tokens=room, temperature=0.8, seed=0)
        return decode(self.corpus.tokenizer, [*self.prompt, *drawn])


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
    if run_dir is None and not force:
        names = itertools.chain([file.stem], (f"{file.stem}-{i}" for i in itertools.count(2)))
        return next(path for name in names if not (path := Path("runs", name)).exists())
    path = run_dir or Path("runs", file.stem)
    if path.exists() and not force:
        raise ConfigError(
            f"{path} exists. Choose another --run-dir, go on with --resume {path}, or replace it with --force."
        )
    if path.exists() and not (path / runs.CONFIG).exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(
            f"{path} is not a run directory, so that --force does not replace it. Choose another --run-dir."
        )
    return path


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
