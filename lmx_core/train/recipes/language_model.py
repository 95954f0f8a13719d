"""Learning texts."""

from typing import Any

import attrs

from lmx_core.data.corpus import Corpus, read_corpus
from lmx_core.data.sources import training_source
from lmx_core.evaluate import evaluate
from lmx_core.model import LanguageModel
from lmx_core.protocols import Objective, Tokenizer
from lmx_core.train.config import RunConfig
from lmx_core.train.parallel.ranks import Ranks
from lmx_core.train.trainer import Trainer


class LanguageModelling:
    """Predicting documents, or what of them is to be learned, as `train.objective`, `data.source` and `data.curriculum` say.

    Evaluations measure plain cross-entropy, whatever the objective is.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def read(self, tokenizer: Tokenizer | None) -> Corpus:
        train = self.config.train
        return read_corpus(self.config.data, train.final_eval_bytes, train.eval_bytes, tokenizer)

    def trainer(
        self, model: LanguageModel, material: Corpus, ranks: Ranks, objective: Objective | None = None
    ) -> Trainer:
        train = self.config.train
        together = attrs.evolve(train, batch_size=train.batch_size * ranks.size)
        source = training_source(material.parts, self.config.data, together)

        def measured(model: LanguageModel, final: bool) -> dict[str, Any]:
            held_out = material.validation if final else material.glimpse
            return evaluate(model, held_out, train.seq_len, train.batch_size, train.compile, ranks)

        return Trainer(model, train, source, objective=objective, evaluate=measured, ranks=ranks)
