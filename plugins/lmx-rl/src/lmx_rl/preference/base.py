"""What trainers have in common that learn from comparisons."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import mlx.core as mx
from attrs import validators

from lmx_core.components import vectorised
from lmx_core.config import exact_types
from lmx_core.errors import DataError
from lmx_core.model import LanguageModel, evaluating
from lmx_core.objective import take_reports
from lmx_core.protocols import Tokenizer
from lmx_core.train.config import RunConfig
from lmx_core.train.parallel.ranks import Ranks, alone
from lmx_core.train.recipes import must_be_left_out
from lmx_core.train.trainer import Trainer
from lmx_rl.preference.material import Comparisons, read_pairs
from lmx_rl.preference.objective import Compared, Outcome, PairObjective
from lmx_rl.preference.reference import Reference
from lmx_rl.preference.rows import Truncation
from lmx_rl.preference.source import PairSource, ReferredSource


@attrs.frozen(kw_only=True, slots=False, field_transformer=exact_types)
class ComparisonOptions:
    """What is read of comparisons."""

    truncation: Truncation = "keep_end"
    """What is cut where a prompt and a completion are longer than `train.seq_len`: `keep_end` cuts the beginning of the
    prompt, `keep_start` the end of the completion. Where no prompt, or no completion, would be left, the pair is left out."""
    shuffle: bool = True
    """In an order of its own for each epoch."""
    eval_pairs: int = attrs.field(default=256, validator=validators.ge(1))
    """How many of the held-out pairs, or completions, the evaluations on the way read, always the first; the last reads
    all."""


class Comparing(ABC):
    """The recipe of a trainer that learns from comparisons; `train.batch_size` counts pairs, or completions that were judged.

    A subclass says what is read and how good it is. `fixed` are the options that a resumed run keeps.
    """

    fixed: Sequence[str] = ("truncation",)

    def __init__(self, config: RunConfig, options: ComparisonOptions) -> None:
        must_be_left_out(config)
        self.config, self.options = config, options

    def read(self, tokenizer: Tokenizer | None) -> Comparisons:
        return read_pairs(self.config.data, self.config.train.seq_len, self.options.truncation, tokenizer)

    def trainer(self, model: LanguageModel, material: Comparisons, ranks: Ranks | None = None) -> Trainer:
        config, ranks = self.config.train, ranks or alone()
        _check_tokens(model, material)
        reference = self.reference(material)
        if reference:
            reference.check(model.config)
        train, held_out = self.sources(material, reference)
        objective = self.objective()
        evaluate = Evaluation(objective, held_out, config.batch_size, self.options.eval_pairs, ranks, config.compile)
        found = Trainer(model, config, train, objective=objective, evaluate=evaluate, ranks=ranks)
        evaluate.trainer = found
        return found

    @abstractmethod
    def objective(self) -> Any: ...

    def reference(self, material: Comparisons) -> Reference | None:
        """None where the loss knows no reference."""
        return None

    def sources(self, material: Comparisons, reference: Reference | None) -> tuple[ReferredSource, ReferredSource]:
        """Of training, and of what is held out, always in the same order."""
        seed, shuffle = self.config.train.seed, self.options.shuffle
        return (
            PairSource("train", material.train.rows, seed, shuffle, reference),
            PairSource("validation", material.validation.rows, shuffle=False, reference=reference),
        )


class Pairing(Comparing):
    """A recipe of a loss that needs no reference: `outcome(compared)`."""

    def objective(self) -> PairObjective:
        return PairObjective(self.outcome)

    @abstractmethod
    def outcome(self, compared: Compared) -> Outcome: ...


class Evaluation:
    """The objective of what is held out, without dropout, in the precision of training: its loss and metrics, as `val_*`."""

    trainer: Trainer

    def __init__(
        self, objective: Any, source: ReferredSource, batch_size: int, glimpse: int, ranks: Ranks, compiled: bool
    ) -> None:
        self.objective, self.source, self.ranks = objective, source, ranks
        self.batch_size, self.glimpse, self.compiled = batch_size, glimpse, compiled

    def __call__(self, model: LanguageModel, final: bool) -> dict[str, Any]:
        self.source.on_train_begin(self.trainer)  # where nothing is trained before
        count = len(self.source) if final else min(self.glimpse, len(self.source))
        with evaluating(model), self.trainer.update.rounded():
            loss, counted, metrics = self.ranks.sum(self._sums(model, count))
        found: dict[str, Any] = {name: value.item() / counted.item() for name, value in metrics.items()}
        if settled := getattr(self.objective, "settled", None):
            settled(found)
        return {
            "val_loss": loss.item() / counted.item(),
            **{f"val_{name}": value for name, value in found.items()},
        }

    def _sums(self, model: LanguageModel, count: int) -> Any:
        """Over this rank's part of the batches; zeros where it has none."""
        run: Callable[..., Any] = self._of_batch(model)
        firsts = range(0, count, self.batch_size)
        total: Any = None
        for i, first in enumerate(firsts):
            mine = i % self.ranks.size == self.ranks.rank
            if not mine and i:
                continue  # but the first, of which every rank learns the names of the metrics
            batch = self.source.read(range(first, min(first + self.batch_size, count)))
            found = run({name: mx.array(value) for name, value in batch.items()})
            found = found if mine else _times(found, 0)
            total = found if total is None else _plus(total, found)
            mx.eval(total)
        return total

    def _of_batch(self, model: LanguageModel) -> Callable[..., Any]:
        def of_batch(batch: Mapping[str, mx.array]) -> Any:
            loss, count, metrics = self.objective(model, batch)
            take_reports(model)
            return loss, count.astype(mx.float32), metrics

        return vectorised.compiled(of_batch, inputs=[model.state]) if self.compiled else of_batch


def _plus(a: Any, b: Any) -> Any:
    return a[0] + b[0], a[1] + b[1], {name: value + b[2][name] for name, value in a[2].items()}


def _times(a: Any, factor: float) -> Any:
    return a[0] * factor, a[1] * factor, {name: value * factor for name, value in a[2].items()}


def _check_tokens(model: LanguageModel, material: Comparisons) -> None:
    """Before a model reads them: MLX would read what lies beyond the embedding, or crash."""
    known = model.config.vocab_size
    largest = max(material.train.rows.largest, material.validation.rows.largest)
    if largest >= known:
        raise DataError(
            f"the data has token {largest}, and the model knows 0 to {known - 1}: the dataset was made with another "
            "tokenizer."
        )
