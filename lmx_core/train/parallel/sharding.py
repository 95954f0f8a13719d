"""Weights that are divided among the ranks: fully sharded data parallel (arXiv:2304.11277), stage 3 of arXiv:1910.02054."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.utils import tree_flatten, tree_map, tree_map_with_path, tree_unflatten

from lmx_core.construct import build
from lmx_core.lengths import sum_of_squares
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.train.config import TrainConfig
from lmx_core.train.parallel.ranks import Ranks

SCATTERING = {"nccl"}
"""Backends of `mx.distributed` that have `sum_scatter`."""


class Shards:
    """Each rank keeps 1 / size of every parameter of the blocks, along its first axis, and of what the optimizer and the
    moving averages have for it. A block's weights are gathered for its forward pass and once more for its gradient.

    Embeddings, the last norm and the head stay whole, and so does the model while it is evaluated or saved.
    """

    def __init__(self, model: nn.Module, optimizer_state: Any, averages: dict[str, array], ranks: Ranks) -> None:
        self.model, self.ranks = model, ranks
        self.blocks: list[Any] = [*model["layers"]]
        self.kept = (optimizer_state, averages)
        self.shapes = {path: weight.shape for path, weight in _of_blocks(model).items()}
        for tree in self.kept:
            _replace(tree, self._own)
        for layer in self.blocks:
            wrapper = nn.fully_shard(layer, group=ranks.group)
            layer.__class__ = _divided(type(layer))
            object.__setattr__(layer, "_wrapper", wrapper)  # beside its children: their paths stay what they are
            object.__setattr__(layer, "_gathered", False)
        mx.eval(model.parameters(), *self.kept)

    def sum(self, found: tuple[Any, ...]) -> tuple[Any, ...]:
        """What `Ranks.sum` gives, gradients last; those of the blocks are summed already, in parts, and averaged by MLX."""
        *others, gradients = found
        parts = {path: each * self.ranks.size for path, each in _flat(gradients).items() if path in self.shapes}
        whole = {path: each for path, each in _flat(gradients).items() if path not in self.shapes}
        with self.ranks.answering():
            mx.eval(parts)
        *others, whole = self.ranks.sum((*others, whole))
        return *others, tree_map_with_path(lambda path, _: (parts | whole)[path], gradients)

    def norm(self, gradients: Any) -> array:
        """The length of the gradients of all ranks as one vector."""
        zero = mx.array(0.0)
        squares = {path: sum_of_squares(each) for path, each in _flat(gradients).items()}
        of_parts = sum((each for path, each in squares.items() if path in self.shapes), zero)
        of_whole = sum((each for path, each in squares.items() if path not in self.shapes), zero)
        return mx.sqrt(self.ranks.sum(of_parts) + of_whole)

    @contextmanager
    def joined(self) -> Generator[None, None, None]:
        """Every rank has all of the model, the optimizer's state and the averages; changes within are lost."""
        parameters, *kept = self._parts()
        self.join()
        try:
            yield
        finally:
            self._set(parameters, kept, False)

    def join(self) -> None:
        """Give every rank all of it, for good."""
        parameters, *kept = (
            {path: self._gathered(path, each) for path, each in tree.items()} for tree in self._parts()
        )
        with self.ranks.answering():
            mx.eval(parameters, kept)
        self._set(parameters, kept, True)

    def _parts(self) -> list[dict[str, array]]:
        return [_of_blocks(self.model), *(_flat(tree) for tree in self.kept)]

    def _set(self, parameters: Mapping[str, array], kept: Any, gathered: bool) -> None:
        self.model.update(tree_unflatten([*parameters.items()]))
        for tree, values in zip(self.kept, kept, strict=True):
            _replace(tree, lambda path, _, values=values: values[path])
        for layer in self.blocks:
            object.__setattr__(layer, "_gathered", gathered)

    def _own(self, path: str, value: array) -> array:
        """This rank's part of what belongs to a parameter of a block, and has its shape."""
        if self._owner(path) is None or value.ndim == 0:
            return value
        return mx.contiguous(mx.split(value, self.ranks.size)[self.ranks.rank])

    def _gathered(self, path: str, value: array) -> array:
        if self._owner(path) is None or value.ndim == 0:
            return value
        return mx.distributed.all_gather(value, group=self.ranks.group)

    def _owner(self, path: str) -> str | None:
        """The parameter that a path within the optimizer's state is of: `states.0.layers.1.ffn.up.weight.m`."""
        words = path.split(".")
        spans = ((i, j) for i in range(len(words)) for j in range(len(words), i, -1))
        return next((name for i, j in spans if (name := ".".join(words[i:j])) in self.shapes), None)


def sharding_problem(model: LanguageModel, state: Any, config: TrainConfig, ranks: Ranks) -> str | None:
    """Why the ranks cannot divide the weights of this model, or None; with one rank there is nothing to divide."""
    if config.parallel != "fsdp" or ranks.size == 1:
        return None
    plain = 'With train.parallel="data" each rank has all of the weights.'
    if ranks.backend not in SCATTERING:
        return (
            f'train.parallel="fsdp" needs NCCL, that is NVIDIA GPUs; these ranks meet through {ranks.backend}. {plain}'
        )
    weights = _of_blocks(model)
    for path, weight in weights.items():
        if not mx.issubdtype(weight.dtype, mx.floating):
            return f'{path} is packed, and train.parallel="fsdp" divides none but floating-point weights. {plain}'
        if weight.ndim == 0 or weight.shape[0] % ranks.size:
            return f"{path} of shape {weight.shape} cannot be divided among {ranks.size} ranks along its first axis. {plain}"
    shapes = {weight.shape for weight in weights.values()} | {()}
    of_blocks = (value for path, value in _flat(state).items() if "layers." in path)
    if any(value.shape not in shapes for value in of_blocks) or not _treats_rows_alone(weights, config):
        return (
            f"train.optimizer={config.optimizer} reads a matrix as a whole, of which each rank has a part with "
            f'train.parallel="fsdp". Choose one that treats each number by itself. {plain}'
        )
    return None


def _treats_rows_alone(weights: Mapping[str, array], config: TrainConfig) -> bool:
    """Whether the optimizer does the same with the halves of a matrix as with all of it; tried on a small one."""
    path = next(path for path, weight in weights.items() if weight.ndim == 2)
    matrix = mx.arange(16.0).reshape(4, 4) / 16

    def updated(rows: slice) -> array:
        optimizer: Any = build("optimizer", config.optimizer, config)
        parameters, gradients = (tree_unflatten([(path, each[rows])]) for each in (matrix, mx.sin(7 * matrix)))
        optimizer.init(parameters)
        return _flat(optimizer.apply_gradients(gradients, parameters))[path]

    halves = mx.concatenate([updated(slice(0, 2)), updated(slice(2, 4))])
    return bool(mx.allclose(updated(slice(0, 4)), halves, rtol=1e-6, atol=1e-7).item())


@cache
def _divided(block: type) -> Any:
    """The class of blocks that are called through the wrapper of `mlx.nn.fully_shard`."""

    class Divided(block):  # pyright: ignore[reportUntypedBaseClass]
        def __call__(self, *args: Any, **more: Any) -> Any:
            if self._gathered:
                if self._types is not None:  # weights of several types travel as the widest of them
                    self.update(tree_map(lambda each, dtype: each.astype(dtype), self.parameters(), self._types))
                return super().__call__(*args, **more)
            object.__setattr__(self, "_types", tree_map(lambda each: each.dtype, self.parameters()))
            object.__setattr__(self, "_gathered", True)
            try:
                return self._wrapper(*args, **more)
            finally:
                object.__setattr__(self, "_gathered", False)
                object.__setattr__(self, "_types", None)

    Divided.__name__, Divided.__qualname__ = block.__name__, block.__qualname__
    Divided._types = None  # pyright: ignore[reportAttributeAccessIssue]
    return Divided


def _of_blocks(model: nn.Module) -> dict[str, array]:
    return {path: weight for path, weight in flat_parameters(model).items() if path.startswith("layers.")}


def _flat(tree: Any) -> dict[str, array]:
    flat: Any = tree_flatten(tree)
    return dict(flat)


def _replace(tree: Any, by: Callable[[str, array], array], path: str = "") -> None:
    """Put other arrays into a tree of dicts and lists that stay the same objects: compiled functions know these."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, array):
            tree[key] = by(where, value)
        elif isinstance(value, dict | list):
            _replace(value, by, where)
