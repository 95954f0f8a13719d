"""How well a model predicts a text."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.core import array
from numpy.typing import NDArray

from lmx_core.components import vectorised
from lmx_core.data.corpus import HeldOut
from lmx_core.data.documents import Documents, Tokens
from lmx_core.errors import DataError
from lmx_core.losses import hidden_logps
from lmx_core.model import evaluating
from lmx_core.objective import take_reports

STRETCH = 32
"""Rows of documents are filled up to a multiple of so many tokens, so that few lengths are compiled."""
Arrays = Mapping[str, NDArray[Any]]


@runtime_checkable
class Sharing(Protocol):
    """Ranks that evaluate together."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def sum(self, tree: Any) -> Any: ...


def total_nats(
    model: nn.Module,
    text: Tokens | Documents,
    seq_len: int,
    batch_size: int,
    compile: bool = True,  # noqa: A002
    ranks: Sharing | None = None,
) -> float:
    """Summed cross-entropy: of every token of a text but the first, of every one that documents have to be learned.

    A text is read in windows of `seq_len` that start without context, and so is each document by itself. Each rank reads
    a part of the batches, and all return the sum.
    """

    def loss(batch: Mapping[str, array]) -> array:
        model_: Any = model
        logps = hidden_logps(model_, model_.hidden(batch["inputs"])[0], batch["targets"])
        take_reports(model)
        return -(mx.where(batch["mask"], logps, 0) if "mask" in batch else logps).sum()

    nats: Any = vectorised.compiled(loss, inputs=[model.state]) if compile else loss
    batches = _rows(text, seq_len, batch_size) if isinstance(text, Documents) else _windows(text, seq_len, batch_size)
    first, step = (0, 1) if ranks is None else (ranks.rank, ranks.size)
    with evaluating(model):
        found: Any = sum(
            nats({name: mx.array(value) for name, value in batch.items()}).item()
            for i, batch in enumerate(batches)
            if i % step == first
        )
    return found if ranks is None or ranks.size == 1 else ranks.sum(mx.array(found, mx.float32)).item()


def evaluate(
    model: nn.Module,
    text: HeldOut | Documents,
    seq_len: int,
    batch_size: int = 16,
    compile: bool = True,  # noqa: A002
    ranks: Sharing | None = None,
) -> dict[str, float]:
    """Plain cross-entropy, whatever is trained for.

    Of a held-out text `val_loss` in nats a token, `val_bpb` in bits per byte, over `val_bytes` of it; of documents
    `val_loss` in nats a token that is learned, over `val_tokens` of them. `DataError` where there are none.
    """
    if isinstance(text, Documents):
        learned = count_learned(text)
        if not learned:
            raise DataError("of the held-out documents nothing is learned. Give it others, or more of them.")
        nats = total_nats(model, text, seq_len, batch_size, compile, ranks)
        return {"val_loss": nats / learned, "val_tokens": learned}
    nats = total_nats(model, text.tokens, seq_len, batch_size, compile, ranks)
    return {
        "val_loss": nats / (len(text.tokens) - 1),
        "val_bpb": nats / math.log(2) / text.scored,
        "val_bytes": text.size,
    }


def count_learned(documents: Documents) -> int:
    """Tokens that the loss counts: those that are learned, but for the first of each document, which nothing predicts."""
    if documents.learn is None:
        return len(documents.tokens) - len(documents)
    return int(documents.learn.sum() - documents.learn[documents.starts].sum())


def _windows(tokens: Tokens, seq_len: int, batch_size: int) -> Iterator[Arrays]:
    """Windows of one length, and what is left of the text."""
    inputs, targets = tokens[:-1].astype(np.int32), tokens[1:].astype(np.int32)
    whole = len(inputs) // seq_len * seq_len
    rows = inputs[:whole].reshape(-1, seq_len), targets[:whole].reshape(-1, seq_len)
    for i in range(0, len(rows[0]), batch_size):
        yield {"inputs": rows[0][i : i + batch_size], "targets": rows[1][i : i + batch_size]}
    if whole < len(inputs):
        yield {"inputs": inputs[None, whole:], "targets": targets[None, whole:]}


def _rows(documents: Documents, seq_len: int, batch_size: int) -> Iterator[Arrays]:
    """Windows of each document, those of like length together; windows in which nothing is learned are left out."""
    spans = [
        (start, min(start + seq_len, end - 1))
        for first, end in zip(documents.starts.tolist(), documents.ends.tolist(), strict=True)
        for start in range(first, end - 1, seq_len)
        if documents.learn is None or documents.learn[start + 1 : min(start + seq_len + 1, end)].any()
    ]
    spans.sort(key=lambda span: span[0] - span[1])
    for i in range(0, len(spans), batch_size):
        yield _filled(documents, spans[i : i + batch_size], seq_len)


def _filled(documents: Documents, spans: list[tuple[int, int]], seq_len: int) -> Arrays:
    """Rows of these inputs, filled up behind, where nothing looks and nothing counts."""
    longest = max(end - start for start, end in spans)
    shape = len(spans), min(-(-longest // STRETCH) * STRETCH, seq_len)
    inputs, targets, mask = (np.zeros(shape, dtype) for dtype in (np.int32, np.int32, np.bool_))
    for row, (start, end) in enumerate(spans):
        inputs[row, : end - start] = documents.tokens[start:end]
        targets[row, : end - start] = documents.tokens[start + 1 : end + 1]
        mask[row, : end - start] = True if documents.learn is None else documents.learn[start + 1 : end + 1]
    return {"inputs": inputs, "targets": targets, "mask": mask}
