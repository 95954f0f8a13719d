"""How far heads of attention spread their looks."""

from collections.abc import Mapping

import mlx.core as mx
from mlx.core import array

from lmx_core.components.softmax import watching
from lmx_core.shapes import Float
from lmx_core.train.callbacks.measurement import Measurement
from lmx_core.train.callbacks.probe import counted, heard, layers
from lmx_core.train.trainer import Trainer


class AttentionEntropy(Measurement):
    """`-sum p log p` in nats over what a token looks at, in the mean over tokens, of each head and of all heads of a layer.

    0 where a head looks at one token, `log n` where at n alike; heads whose entropy collapses go with unstable training
    (arXiv:2303.06296). Of softmax attention; other mixers have no such weights, and are left out. A sink counts as something
    that is looked at. Tokens whose targets do not count are left out. It costs a forward pass with all scores written out.
    """

    def measure(self, trainer: Trainer) -> Mapping[str, array]:
        batch = trainer.batches[-1]
        heads = {path: _by_head(batch, calls) for path, calls in _entropies(trainer, batch).items()}
        found = {f"entropy/{path}/mean": each.mean() for path, each in heads.items()}
        return found | {f"entropy/{path}/head.{h}": each[h] for path, each in heads.items() for h in range(each.size)}


def entropy(weights: Float[array, "B H L S"]) -> Float[array, "B H L"]:
    """In nats; what weighs nothing adds nothing."""
    return -(weights * mx.log(mx.where(weights > 0, weights, 1.0))).sum(axis=-1)


def _by_head(batch: Mapping[str, array], calls: list[array]) -> Float[array, "H"]:
    """The mean over the tokens that count, of calls of (B, H, L)."""
    counts = [counted(batch, each.swapaxes(1, 2))[:, None] for each in calls]
    total = sum(((each * count).sum(axis=(0, 2)) for each, count in zip(calls, counts, strict=True)), mx.array(0.0))
    return total / sum((count.sum() for count in counts), mx.array(0.0))


def _whole(parts: list[array], length: int) -> list[array]:
    """Parts of the queries put together to all of them, once for each group of heads that was given weights by itself."""
    groups: list[array] = []
    run: list[array] = []
    for each in parts:
        run.append(each)
        if sum(piece.shape[2] for piece in run) == length:
            groups.append(mx.concatenate(run, axis=2))
            run = []
    return groups


def _entropies(trainer: Trainer, batch: Mapping[str, array]) -> dict[str, list[array]]:
    """(B, H, L) of each call of each layer's mixer that made weights."""
    found: dict[str, list[array]] = {}
    parts: list[array] = []

    def mixer(path: str, x: array, _: object) -> None:
        if whole := _whole(parts, x.shape[1]):
            found.setdefault(path, []).append(mx.concatenate(whole, axis=1))
        parts.clear()

    mixers = {path: layer.attention for path, layer in layers(trainer.model).items()}
    with heard(mixers, mixer), watching(lambda weights: parts.append(entropy(weights))):
        trainer.objective(trainer.model, batch)
    return found
