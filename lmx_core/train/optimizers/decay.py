"""Weight decay that is no part of the gradient."""

from typing import Any

from mlx import optimizers as optim
from mlx.core import array
from mlx.utils import tree_map_with_path


class DecoupledDecay(optim.Optimizer):
    """Takes `decay` times the learning rate of each matrix beside its update (arXiv:1711.05101), and of nothing else."""

    decay: float

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        updated = super().apply_gradients(gradients, parameters)
        if not self.decay:
            return updated
        return tree_map_with_path(lambda path, new, old: new - self._taken(path, old), updated, parameters)

    def _taken(self, path: str, weight: array) -> array | float:
        # A norm's gain has one axis, a bias too, or one for each of many experts; to pull it to zero is not to regularise it.
        if weight.ndim < 2 or path.rpartition(".")[2] == "bias":
            return 0.0
        return (self.learning_rate * self.decay).astype(weight.dtype) * weight
