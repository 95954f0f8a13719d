"""How well a model predicts a text."""

import math
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.core import array

from lmx_core.data.batches import Tokens
from lmx_core.data.corpus import HeldOut
from lmx_core.model import evaluating
from lmx_core.objective import next_token_loss


def total_nats(model: nn.Module, tokens: Tokens, seq_len: int, batch_size: int, compile: bool = True) -> float:  # noqa: A002
    """Summed cross-entropy of every token but the first, in windows of `seq_len` that start without context."""

    def loss(inputs: array, targets: array) -> array:
        return next_token_loss(model, inputs, targets)[0]

    nats: Any = mx.compile(loss, inputs=[model.state]) if compile else loss
    with evaluating(model):
        return sum(
            nats(mx.array(inputs), mx.array(targets)).item()
            for inputs, targets in _batches(tokens, seq_len, batch_size)
        )


def _batches(tokens: Tokens, seq_len: int, batch_size: int) -> Iterator[tuple[Any, Any]]:
    inputs, targets = tokens[:-1].astype(np.int32), tokens[1:].astype(np.int32)
    whole = len(inputs) // seq_len * seq_len
    rows = inputs[:whole].reshape(-1, seq_len), targets[:whole].reshape(-1, seq_len)
    for i in range(0, len(rows[0]), batch_size):
        yield rows[0][i : i + batch_size], rows[1][i : i + batch_size]
    if whole < len(inputs):
        yield inputs[None, whole:], targets[None, whole:]


def evaluate(
    model: nn.Module,
    held_out: HeldOut,
    seq_len: int,
    batch_size: int = 16,
    compile: bool = True,  # noqa: A002
) -> dict[str, float]:
    """`val_loss` in nats a token, `val_bpb` in bits per byte of text, over `val_bytes` of it."""
    nats = total_nats(model, held_out.tokens, seq_len, batch_size, compile)
    bits = nats / math.log(2)
    return {
        "val_loss": nats / (len(held_out.tokens) - 1),
        "val_bpb": bits / held_out.scored,
        "val_bytes": held_out.size,
    }
