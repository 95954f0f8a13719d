"""What a component is: the calls that two distributions must agree on. No base class is required."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import mlx.core as mx

    from lmx_core.config import ModelConfig
    from lmx_core.model import LanguageModel
    from lmx_core.train.parallel.ranks import Ranks
    from lmx_core.train.trainer import Trainer

    Mask = mx.array | str | None
    Offset = int | mx.array
    Sublayer = Callable[[mx.array], mx.array]
    Batch = Mapping[str, Any]
    """Arrays of a batch by name. Of text: `inputs` and `targets`, (B, L), int32; `mask`, (B, L), bool, the targets that
    count, all unless given; `segments`, (B, L), int32, the document of its row that a token belongs to, one unless given."""


@runtime_checkable
class Cache(Protocol):
    """One layer's memory between calls: keys and values, latents, or a recurrent state.

    It is updated in place. The names are mlx-lm's where it has one.
    """

    offset: "int | mx.array"
    """Tokens seen: an int, or (B,) where the rows of a batch differ."""

    @property
    def state(self) -> "Sequence[mx.array]":
        """The arrays to save; assigning them restores the cache."""
        ...

    @property
    def nbytes(self) -> int: ...

    def is_trimmable(self) -> bool:
        """Whether `trim` can take tokens back; a recurrent state cannot."""
        ...

    def trim(self, n: int) -> int:
        """Forget the last `n` tokens; returns how many were forgotten."""
        ...

    def checkpoint(self) -> Any:
        """A mark to come back to with `restore`, at no cost until then; good until one goes back before it."""
        ...

    def restore(self, mark: Any) -> None: ...

    def filter(self, rows: "Sequence[int]") -> None:
        """Go on with these rows of the batch alone, in this order; one that is named several times goes on as several."""
        ...

    def extend(self, other: Any) -> None:
        """Take in the rows of another cache of this kind, which may have seen another number of tokens."""
        ...

    def extract(self, row: int) -> Any:
        """One row as a cache of its own."""
        ...


@runtime_checkable
class Scaling(Protocol):
    """`Class(rotary)` or `Class(rotary, options)`: how rotary wavelengths are stretched; `rotary` is a `Rotary`."""

    by_length: bool
    """Whether the frequencies depend on how long the sequence is."""
    horizon: int | None
    """Where they change at one length alone: the longest sequence before."""

    def frequencies(self, length: int) -> "tuple[list[float], float]":
        """By what each pair turns from one position to the next, in a sequence of so many tokens, and a factor of it all."""
        ...


@runtime_checkable
class Attention(Protocol):
    """Any mixer of positions: `(x, mask, cache) -> (y, cache)`, shapes (B, L, D).

    `mask` is None (all visible), `"causal"` (counted from the cache's offset) or boolean, True = may look, broadcastable
    to (B, 1, L, S). A `__call__` with a `position` parameter is given the block's position. What it may take from a
    position it says in `takes`, a set of `"rotate"` and `"bias"` (both, unless it says so).

    Where a row holds several documents, a mixer is given `lmx_core.components.segments.Segments` in place of a cache, and a
    boolean mask. One that keeps keys and values need not know of it. One with a state is refused unless it says
    `segments = True`: its state then begins anew at each token of `cache.starts`, (B, L).

    `mixing_flops(context) -> int`, if it has one, says what `lmx count` cannot see: the FLOPs of the last of so many tokens
    beside those of its matrices.
    """

    def __call__(self, x: "mx.array", mask: "Mask" = None, cache: Any = None) -> "tuple[mx.array, Any]": ...

    def make_cache(self) -> Any:
        """An empty cache of the kind that this mixer reads, or None where it keeps nothing."""
        ...


@runtime_checkable
class FeedForward(Protocol):
    """`(x) -> y`, shapes (B, L, D).

    An auxiliary loss or a statistic is *assigned* (never accumulated) to `self._report`, a dict of scalars; names that end
    in `_loss` are added to the training loss. A module with a method `settle(report)` may also report arrays: after each
    update it is called with the whole report, averaged over the batches of the update, and moves what no gradient moves.

    `full_precision`, which any module may have, names parameters of its own that stay in float32 where training computes in
    half; `sensitive = True` says that a small change of its input may make a large one of its output, which the conformance
    kit then allows.

    `active_parameters() -> {path: number}`, which any module may have, says how many numbers of the parameters below it one
    token uses, where those are not all.
    """

    def __call__(self, x: "mx.array") -> "mx.array": ...


@runtime_checkable
class Norm(Protocol):
    """`Class(config, width=None)`: normalises the last axis, of `config.d_model` numbers unless `width` says otherwise."""

    def __call__(self, x: "mx.array") -> "mx.array": ...


@runtime_checkable
class Position(Protocol):
    """Where a token stands; an encoding provides one of three things and leaves the others alone.

    `offset` is the position of the first token: an int, (B,) where rows differ, or (B, L), that of every token in its
    document where a row holds several. Padding stands below 0.
    """

    def embed(self, x: "mx.array", offset: "Offset" = 0) -> "mx.array":
        """What it adds to the embeddings (B, L, D)."""
        ...

    def rotate(self, q: "mx.array", k: "mx.array", offset: "Offset" = 0) -> "tuple[mx.array, mx.array]":
        """Queries (B, H, L, E) and keys (B, K, L, E), turned."""
        ...

    def bias(self, queries: "mx.array", keys: "mx.array") -> "mx.array | None":
        """What it adds to the scores, (1 or B, H, L, S), by positions: (L,) or (B, L) of queries, (S,) or (B, S) of keys."""
        ...


@runtime_checkable
class Layout(Protocol):
    """`Class(config, attention=True, ffn=True)`: how norms, sublayers and residuals are wired.

    It owns the norms, one for each sublayer that is there, and is called with the sublayers as functions (None where the
    block has none). `normalised = True` says that its output needs no final norm.
    """

    normalised: bool

    def __call__(self, x: "mx.array", attention: "Sublayer | None", ffn: "Sublayer | None") -> "mx.array": ...


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    A str stands for bytes as `bytes.decode("utf-8", "surrogateescape")` reads them, so that any file comes back exactly.

    `lmx generate` uses what else it has of these: `eos_tokens`, the ids before which generation ends; `special_tokens`, the
    ids that are not printed; `encode_prompt(text)`, the tokens of a text that a model continues, with those that begin every
    text; `apply_chat_template(messages)`, the tokens of a conversation that the model answers, `messages` being tables with
    a `role` and a `content`.
    """

    vocab_size: int

    @classmethod
    def fit(cls, texts: "Iterable[str]", *options: Any) -> "Tokenizer":
        """The tokenizer for these texts; its `Options`, if it has some, come after them."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes behind the tokens, also where a character is not complete yet."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """What `from_dict` needs to be this tokenizer again: plain data, saved with the model."""
        ...

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Tokenizer": ...


@runtime_checkable
class Dataset(Protocol):
    """`Class()` or `Class(options)`: documents in a fixed order, apart for training and validation.

    One whose documents are not texts to be learned as a whole has more. `encoded(tokenizer, split)` gives them as
    `lmx_core.data.documents.Example`, tokens with what of them is learned, or None where they are texts after all; `parts`
    are the datasets of a mixture, each with its weight; `prepared` are training `Documents` that are tokens already, with
    `own_tokenizer` and `tokenizer_spec`, what made them. `pairs`, `judged` and `prompts`, called like `encoded`, give what
    trainers learn from that compare or reward answers: `Pair`, `Judged` and `Prompt` of `lmx_core.data.prompts`.
    """

    def documents(self, split: Literal["train", "validation"]) -> Iterable[str]: ...


@runtime_checkable
class Schedule(Protocol):
    """`Class(config)` or `Class(config, options)`, of a `TrainConfig`."""

    def __call__(self, step: int, progress: float) -> float:
        """The learning rate of a step, counted from 0; `progress` is the share of the budget that is spent, 0 to 1."""
        ...


@runtime_checkable
class Source(Protocol):
    """`Class(documents, config)` or `Class(documents, config, options)`, of `Documents` and a `TrainConfig`.

    Training samples are numbered from 0 without end, epoch after epoch, and a number is the same sample in every process:
    how many were read is all that a run must save. `config.batch_size` is that of all ranks together, so that what depends
    on it does not depend on their number.

    `row_tokens`, if it has it, is how many tokens a row has on average, where these are not `seq_len`: a mixture divides
    the tokens by its weights. `rows`, their number, and `read(rows)`, rows by number as a batch, are for curricula that
    rank them. One that has methods of a `Callback` is told like one; one whose samples depend on more than their number says
    in `saved() -> {name: array}` what a checkpoint is to keep, and is given it by `restore(arrays, run)`, `run` being the
    directory of the run that goes on.
    """

    def __len__(self) -> int:
        """Samples of an epoch."""
        ...

    def batch(self, samples: Sequence[int], step: int) -> "Batch":
        """These samples in this order, a row each; `step`, counted from 0, matters to curricula alone."""
        ...


@runtime_checkable
class Curriculum(Source, Protocol):
    """`Class(source, config)` or `Class(source, config, options)`: a `Source` in place of another, of a `TrainConfig`."""


@runtime_checkable
class Objective(Protocol):
    """`Class(config)` or `Class(config, options)`, of a `TrainConfig`: what a step makes smaller.

    One that has methods of a `Callback` is told like one, and may keep what it needs like a source.
    """

    def __call__(
        self, model: Any, batch: "Mapping[str, mx.array]"
    ) -> "tuple[mx.array, mx.array, Mapping[str, mx.array]]":
        """The loss, summed over what it counts (tokens, pairs); how many these are; metrics, summed over the same.

        Sums over several batches and ranks, divided by the sum of what they count, are the loss of all of them at once.
        Where a batch's arrays can be cut anywhere between rows, too, and `by_rows` is true, parts of a batch may be computed
        side by side; without it a batch stays whole.
        """
        ...


@runtime_checkable
class Callback(Protocol):
    """`Class(config)` or `Class(config, options)`, of a `TrainConfig`: what looks on at a run.

    Any of the methods of `lmx_core.train.callback.Callback`, which trainers call where they are there.
    """


@runtime_checkable
class Material(Protocol):
    """What a run reads, as tokens."""

    tokenizer: Any

    @property
    def identity(self) -> str:
        """A digest of all that is trained on: what a resumed run must find again."""
        ...

    @property
    def held_out(self) -> Mapping[str, str]:
        """Digests of what evaluations read, by how much of it: one that a resumed run has, too, must be the same."""
        ...

    @property
    def beginning(self) -> Sequence[int]:
        """Tokens that the sample at the end of a run continues, unless it is given others; empty for no sample."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies it, for the summary of a run."""
        ...


@runtime_checkable
class Recipe(Protocol):
    """`Class(config)` or `Class(config, options)`, of a `RunConfig`, of kind `trainer`: what a run reads, learns, measures.

    It says no to a config before anything is read. `fixed`, if it has it, names options of its own that a resumed run keeps.
    """

    def read(self, tokenizer: "Tokenizer | None") -> Material:
        """The data as `[data]` says; `tokenizer` is that of the model that training starts from, if it has one."""
        ...

    def trainer(self, model: "LanguageModel", material: Material, ranks: "Ranks") -> "Trainer":
        """The loop, with an objective, a source and an evaluation. A source is for the batches of all ranks together."""
        ...


@runtime_checkable
class ConfigFactory(Protocol):
    """An architecture: a function that returns a `ModelConfig`, with its published sizes in `sizes`, `"tiny"` among them."""

    sizes: Mapping[str, Mapping[str, Any]]

    def __call__(self, **numbers: Any) -> "ModelConfig": ...


@runtime_checkable
class Optimizer(Protocol):
    """`Class(config)` or `Class(config, options)`, of a `TrainConfig`: MLX's interface of optimizers."""

    def init(self, parameters: Any) -> None: ...

    def update(self, model: Any, gradients: Any) -> None:
        """Change the model's parameters in place."""
        ...


@runtime_checkable
class Command(Protocol):
    """A click command, which becomes `lmx <name>`."""

    def make_context(self, info_name: str | None, args: list[str]) -> Any: ...

    def main(self) -> Any: ...
