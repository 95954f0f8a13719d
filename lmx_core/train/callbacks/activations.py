"""What the layers of a model say."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.train.callbacks.measurement import Measurement
from lmx_core.train.callbacks.probe import counted, heard, layers
from lmx_core.train.callbacks.statistics import named, statistics
from lmx_core.train.trainer import Trainer


class ActivationStats(Measurement):
    """Of the stream after each block: `norm`, the mean length of a token's vector, `mean`, `std`, `max`, `zeros`.

    Where an FFN ends with a matrix, also of the hidden units that it reads: `hidden_zeros`, the share of zeros among their
    values, and `hidden_dead`, the share of units that are 0 for every token. Tokens whose targets do not count are left out.
    It costs a forward pass.
    """

    def measure(self, trainer: Trainer) -> Mapping[str, array]:
        batch = trainer.batches[-1]
        streams, hidden = _seen(trainer, batch)
        found: dict[str, array] = {}
        for where, parts in streams.items():
            counts = [counted(batch, x)[..., None] for x in parts]
            found |= named("activation", where, {"norm": _length(parts, counts), **statistics(parts, counts)})
        for where, parts in hidden.items():
            counts = [counted(batch, x)[..., None] for x in parts]
            dead = mx.stack([((x == 0) | (i == 0)).all(axis=(0, 1)) for x, i in zip(parts, counts, strict=True)])
            values = {"hidden_zeros": statistics(parts, counts)["zeros"], "hidden_dead": dead.all(axis=0).mean()}
            found |= named("activation", where, values)
        return found


def _length(parts: list[array], counts: list[array]) -> array:
    lengths = [mx.linalg.norm(x.astype(mx.float32), axis=-1, keepdims=True) for x in parts]
    total: Any = sum((length * count).sum() for length, count in zip(lengths, counts, strict=True))
    return total / sum(count.sum() for count in counts)


def _seen(trainer: Trainer, batch: Mapping[str, array]) -> tuple[dict[str, list[array]], dict[str, list[array]]]:
    """What came out of each block, and what the last matrix of its FFN read, in each call of the objective."""
    streams: dict[str, list[array]] = {}
    hidden: dict[str, list[array]] = {}
    read: list[tuple[array, array]] = []
    blocks = layers(trainer.model)
    matrices = {
        f"{path}.{name}": module
        for path, block in blocks.items()
        for name, module in block.ffn.named_modules()
        if name and getattr(module.get("weight"), "ndim", 0) == 2
    }

    def matrix(_: str, x: array, y: array) -> None:
        read.append((x, y))

    def ffn(path: str, _: array, y: array) -> None:
        last = next((x for x, returned in read if returned is y), None)
        if last is not None and last.ndim == 3:
            hidden.setdefault(path, []).append(last)
        read.clear()

    def block(path: str, _: array, returned: Any) -> None:
        streams.setdefault(path, []).append(returned[0])

    ffns = {path: layer.ffn for path, layer in blocks.items()}
    with heard(matrices, matrix), heard(ffns, ffn), heard(blocks, block):
        trainer.objective(trainer.model, batch)
    return streams, hidden
