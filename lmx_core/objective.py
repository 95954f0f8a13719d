"""What components report beside the loss."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array


def take_reports(model: nn.Module) -> dict[str, array]:
    """What modules assigned to `_report` in the last pass; it is removed, so that nothing counts twice."""
    reports: dict[str, array] = {}
    for path, module in model.named_modules():
        found: dict[str, Any] = module.pop("_report", {})
        reports |= {f"{path}.{name}": value for name, value in found.items()}
    return reports


def put_reports(model: nn.Module, reports: Mapping[str, array]) -> None:
    """Assign to each module again what `take_reports` took from it."""
    for module, own in _shared_out(model, reports):
        module["_report"] = own


def settle(model: nn.Module, reports: Mapping[str, array]) -> None:
    """After an update: modules with a `settle` are told what they reported, to move what no gradient moves."""
    for module, own in _shared_out(model, reports):
        if hasattr(module, "settle"):
            module.settle(own)


def _shared_out(model: nn.Module, reports: Mapping[str, array]) -> list[tuple[Any, dict[str, array]]]:
    """Every module that reported something, with its own part."""
    parts: dict[str, dict[str, array]] = {}
    for key, value in reports.items():
        path, _, name = key.rpartition(".")
        parts.setdefault(path, {})[name] = value
    return [(module, parts[path]) for path, module in model.named_modules() if path in parts]


def auxiliary_loss(reports: dict[str, array]) -> array:
    """The sum of the reports whose names end in `_loss`."""
    return sum((value for name, value in reports.items() if name.endswith("_loss")), start=mx.array(0.0))
