"""What a step makes smaller, built as `Class(config)` or `Class(config, options)` of a `TrainConfig`."""

from collections.abc import Mapping
from typing import Any

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.losses import cross_entropy
from lmx_core.train.config import TrainConfig


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class NextTokenOptions:
    """Options of `objective="next_token"`."""

    label_smoothing: float = attrs.field(default=0.0, validator=[validators.ge(0), validators.lt(1)])
    """This share of each target's weight is spread evenly over the vocabulary."""
    z_loss: float = attrs.field(default=0.0, validator=validators.ge(0))
    """Coefficient of `logsumexp(logits)^2`, which keeps logits near 0 (arXiv:2204.02311)."""
    chunk: int | None = attrs.field(default=None, validator=validators.optional(validators.ge(1)))
    """Tokens whose logits are held at once; by the size of the head unless given."""


class NextToken:
    """Cross-entropy of each next token, in nats, whose logits are never held all at once.

    Where something is added to it, the metric `nats` is without, and `z_loss` what the z-loss adds.
    """

    Options = NextTokenOptions
    unit = "nats a token"
    by_rows = True

    def __init__(self, config: TrainConfig, options: NextTokenOptions) -> None:
        self.options = options

    def __call__(self, model: Any, batch: Mapping[str, array]) -> tuple[array, array, dict[str, array]]:
        targets, mask = batch["targets"], batch.get("mask")
        chosen = attrs.asdict(self.options)
        sums = cross_entropy(model, hidden_of(model, batch), targets, mask, **chosen)
        metrics = {"nats": sums.nats} if chosen["label_smoothing"] or chosen["z_loss"] else {}
        metrics |= {"z_loss": sums.z} if chosen["z_loss"] else {}
        return sums.loss, mx.array(targets.size) if mask is None else mask.sum(), metrics


def hidden_of(model: Any, batch: Mapping[str, array]) -> array:
    """What the head reads of the inputs, (B, L, D), each document of a row by itself."""
    segments = {"segments": batch["segments"]} if "segments" in batch else {}
    return model.hidden(batch["inputs"], **segments)[0]
