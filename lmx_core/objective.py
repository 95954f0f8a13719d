"""What a step makes smaller."""

from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.nn.losses import cross_entropy

from lmx_core.shapes import Float, Int


def next_token_loss(
    model: nn.Module, inputs: Int[array, "B L"], targets: Int[array, "B L"]
) -> tuple[Float[array, ""], dict[str, array]]:
    """Summed cross-entropy in nats, and what components reported in this pass, by `module.name`."""
    logits, _ = model(inputs)
    nats = cross_entropy(logits.astype(mx.float32), targets, reduction="sum")
    return nats, take_reports(model)


def take_reports(model: nn.Module) -> dict[str, array]:
    """The scalars that modules assigned to `_report` in the last pass; they are removed, so that none counts twice."""
    reports: dict[str, array] = {}
    for path, module in model.named_modules():
        found: dict[str, Any] = module.pop("_report", {})
        reports |= {f"{path}.{name}": value for name, value in found.items()}
    return reports


def auxiliary_loss(reports: dict[str, array]) -> array:
    """The sum of the reports whose names end in `_loss`."""
    return sum((value for name, value in reports.items() if name.endswith("_loss")), start=mx.array(0.0))
