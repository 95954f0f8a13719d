"""How many directions a layer uses."""

from collections.abc import Mapping
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from lmx_core.config import exact_types
from lmx_core.model import flat_parameters
from lmx_core.train.callbacks.measurement import Measurement, MeasurementOptions
from lmx_core.train.callbacks.probe import counted, heard, layers
from lmx_core.train.config import TrainConfig
from lmx_core.train.trainer import Trainer


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RankOptions(MeasurementOptions):
    """Options of `callback="effective_rank"`."""

    weights: bool = False
    """Whether it is measured of every matrix among the weights, too."""


class EffectiveRank(Measurement):
    """`exp(-sum p log p)`, `p` the singular values over their sum (Roy and Vetterli 2007): from 1 to the number of them.

    Of the stream after each block, a row for each token whose target counts. Singular values are the roots of eigenvalues of
    `x^T x` in float64, on the CPU: O(tokens width^2 + width^3) beside a forward pass.
    """

    Options = RankOptions

    def __init__(self, config: TrainConfig, options: RankOptions) -> None:
        super().__init__(config, options)
        self.weights = options.weights

    def measure(self, trainer: Trainer) -> Mapping[str, array]:
        batch = trainer.batches[-1]
        streams: dict[str, list[array]] = {}

        def block(path: str, _: array, returned: Any) -> None:
            streams.setdefault(path, []).append(returned[0] * counted(batch, returned[0])[..., None])

        with heard(layers(trainer.model), block):
            trainer.objective(trainer.model, batch)
        found = {f"rank/{path}": mx.concatenate([_rows(x) for x in parts]) for path, parts in streams.items()}
        if self.weights:
            matrices = {path: weight for path, weight in flat_parameters(trainer.model).items() if weight.ndim == 2}
            found |= {f"rank/{path}": weight for path, weight in matrices.items()}
        return {name: mx.array(effective_rank(np.array(x.astype(mx.float32)))) for name, x in found.items()}


def _rows(x: array) -> array:
    return x.reshape(-1, x.shape[-1])


def effective_rank(matrix: NDArray[np.floating]) -> float:
    """1 to the number of singular values; 0 of zeros, nan where a number is not finite."""
    wide = matrix.astype(np.float64)
    if not np.isfinite(wide).all():
        return float("nan")
    square = wide.T @ wide if wide.shape[0] >= wide.shape[1] else wide @ wide.T
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(square), 0.0))
    if not values.any():
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
