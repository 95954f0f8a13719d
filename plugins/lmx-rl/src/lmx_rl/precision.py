"""The precision in which a frozen model computes."""

import mlx.core as mx
from mlx.core import array
from mlx.utils import tree_map_with_path

from lmx_core.model import LanguageModel


def lowered(model: LanguageModel, dtype: mx.Dtype) -> None:
    """Leave it its weights as a training step in this precision has them: rounded, but for what says of itself that it
    stays whole.
    """
    whole = {
        f"{path}.{name}" for path, module in model.named_modules() for name in getattr(module, "full_precision", ())
    }

    def rounded(path: str, weight: array) -> array:
        return weight.astype(dtype) if mx.issubdtype(weight.dtype, mx.floating) and path not in whole else weight

    model.update(tree_map_with_path(rounded, model.parameters()))
