"""The module that mlx-lm imports for the model type `lmx`: a model of lmx with the interface of mlx-lm's."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from mlx import nn
from mlx.core import array

from lmx_core.model import flat_parameters
from lmx_hf.bridge.memory import Memory, memory_of, read
from lmx_hf.transforms import Tensors

MODEL_TYPE = "lmx"


@attrs.frozen
class ModelArgs:
    """What mlx-lm hands over of a config.json."""

    place: str
    """Of the model, as `lmx_hf.load.opened` opens it."""
    model_type: str = MODEL_TYPE

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "ModelArgs":
        return cls(config["place"])


class Model(nn.Module):
    """`tokens -> logits`. lmx reads it where it lies, in whatever format; mlx-lm's loader finds nothing left to do."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        from lmx_hf.load import opened

        self.args, self.model_type = args, args.model_type
        self.lmx = opened(args.place).model  # so that an adapter tells by its names what it was trained on

    def __call__(self, inputs: array, cache: Sequence[Memory] | None = None) -> array:
        return self.lmx(inputs)[0] if cache is None else read(self.lmx, inputs, cache)

    @property
    def layers(self) -> list[Any]:
        return self.lmx.layers

    def make_cache(self) -> list[Memory]:
        return [memory_of(cache) for cache in self.lmx.make_cache()]

    def sanitize(self, weights: Tensors) -> Tensors:
        """The parameters, which are there already, in place of a file's."""
        return flat_parameters(self)
