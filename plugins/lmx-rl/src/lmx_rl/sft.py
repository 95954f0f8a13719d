"""Learning answers from examples of them."""

import attrs
import numpy as np

from lmx_core.config import exact_types, spec
from lmx_core.data.corpus import Corpus, HeldOut
from lmx_core.data.documents import Documents, digest
from lmx_core.errors import DataError
from lmx_core.protocols import Tokenizer
from lmx_core.train.config import RunConfig
from lmx_core.train.recipes import LanguageModelling, must_be_left_out


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SFTOptions:
    """Options of `trainer="sft"`."""

    completion_only: bool = True
    """Whether completions alone are learned, and of conversations what the assistant says. Otherwise prompts are, too."""
    packing: bool = False
    """Several examples in each row of `seq_len` tokens, none of which sees another, in place of one and padding."""


class SFT(LanguageModelling):
    """Supervised fine-tuning: predicting the answers that a dataset marks, each after its own prompt.

    The loss is the mean over all tokens of a step that are learned, however they are spread over its examples, and so is
    `val_loss`. An example that is longer than `seq_len` tokens is cut there, and left out where nothing before that is
    learned. `DataError` for plain texts, which the trainer `language_model` learns.
    """

    Options = SFTOptions
    fixed = ("completion_only", "packing")

    def __init__(self, config: RunConfig, options: SFTOptions | None = None) -> None:
        self.options = options or SFTOptions()
        must_be_left_out(config, ("data", "source"))
        source = spec("packed", strategy="bfd") if self.options.packing else spec("padded")
        super().__init__(attrs.evolve(config, data=attrs.evolve(config.data, source=source)))

    def read(self, tokenizer: Tokenizer | None) -> Corpus:
        corpus = super().read(tokenizer)
        if any(documents.learn is None for documents, _ in corpus.parts):
            raise DataError(
                f"dataset {self.config.data.dataset} has texts, and none of them marks an answer. To learn them as a whole, "
                'leave train.trainer out; train.trainer = "sft" needs prompts and completions, or messages.'
            )
        if self.options.completion_only:
            return corpus
        return attrs.evolve(
            corpus,
            parts=tuple((_whole(documents), share) for documents, share in corpus.parts),
            validation=_whole(corpus.validation),
            glimpse=_whole(corpus.glimpse),
        )


def _whole(documents: Documents | HeldOut) -> Documents:
    """Every token of the documents in which something is learned."""
    assert isinstance(documents, Documents), "what is held out of documents that are learned in part is documents"
    assert documents.learn is not None
    lengths = documents.ends - documents.starts
    learn = np.repeat(np.logical_or.reduceat(documents.learn, documents.starts), lengths)
    return attrs.evolve(documents, learn=learn, sha256=digest(documents.tokens, learn))
