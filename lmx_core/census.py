"""What a model has and costs by its shapes alone: nothing is computed, so that models no machine holds are counted too."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import attrs
import mlx.core as mx
from mlx import nn

from lmx_core.block import ConfigurableBlock
from lmx_core.components.masks import ALL
from lmx_core.config import BlockConfig, ModelConfig
from lmx_core.errors import ConfigError
from lmx_core.model import LanguageModel, parameter_shapes

Shapes = Mapping[str, tuple[int, ...]]
GROUP = 64
"""Numbers that share a scale and a bias in bf16, where weights have 4 bits: 4.5 bits a number."""
TABLES = ("embed", "positions")
"""Parts of a model that are looked up or added, not multiplied."""


@attrs.frozen(kw_only=True)
class Layers:
    """Layers with one and the same block; the numbers are those of one layer."""

    name: str
    """Where the config states the block: `block`, `blocks.local`, `block_configs[0]`."""
    block: BlockConfig
    layers: Sequence[int]
    """Which ones, counted from 0."""
    parameters: int
    active: int
    """Parameters that one token uses."""
    flops_forward: int
    flops_attention: int | None
    """That part of them which grows with the context, or goes into a state; None where the mixer does not say."""
    cache_bytes_per_token: int
    cache_bytes_fixed: int
    """Of what does not grow: a recurrent state."""
    cache_bytes: int


@attrs.frozen(kw_only=True)
class Census:
    """A model in numbers. Bytes of caches are those of a model in bfloat16.

    FLOPs are of one token, the last of `context` tokens: 2 for each parameter of a matrix that it goes through (the head is
    one, also where it is the embedding's; rows that are looked up, norms and biases are not), and `4 n_heads head_dim` for
    each token that a softmax attention looks at, itself included: a score and a weighted sum (section 2.1 of
    arXiv:2001.08361, appendix B of arXiv:2204.02311). What is backwards takes twice as many.
    """

    total: int
    """Parameters; tied ones count once."""
    active: int
    """Parameters that one token uses: fewer where it goes to some experts of many."""
    shapes: Shapes
    """Of every parameter, by its path."""
    parts: Mapping[str, int]
    """Parameters by the parts of the model: `embed`, `layers`, `norm`, `head`."""
    layers: Sequence[Layers]
    """By distinct blocks, in the order in which they first come."""
    context: int
    """Tokens."""
    flops_forward: int
    flops_attention: int
    """That part of them which mixers take for looking at other tokens."""
    flops_backward: int
    flops_unknown: Sequence[str]
    """Mixers that do not say how many they take for that (`mixing_flops`), so that it is missing."""
    cache_bytes_per_token: int
    """Of a token as long as all layers still look at it."""
    cache_bytes_fixed: int
    cache_bytes: int
    """Of `context` tokens: of those that are still looked at."""
    memory_bytes_fp32: int
    memory_bytes_bf16: int
    memory_bytes_4bit: int
    """With the weights of whatever can be quantised in groups of 64 in 4.5 bits a number, and the rest in bf16."""


def census(config: ModelConfig, context: int | None = None) -> Census:
    """Counts a model for a context of so many tokens, `max_seq_len` unless given."""
    model = LanguageModel(config)
    context = _context(model, context)
    shapes, active = parameter_shapes(model), active_parameters(model)
    layers = _layers(model, shapes, active, context)
    head = prod(shapes["embed.weight"]) if "head" not in model else 0
    flops = 2 * (head + sum(active[path] for path in shapes if _multiplied(path, shapes)))
    mixing = sum(len(each.layers) * (each.flops_attention or 0) for each in layers)
    total, packed = sum(map(prod, shapes.values())), _quantisable(model)
    return Census(
        total=total,
        active=sum(active.values()),
        shapes=shapes,
        parts=_parts(shapes),
        layers=layers,
        context=context,
        flops_forward=flops + mixing,
        flops_attention=mixing,
        flops_backward=2 * (flops + mixing),
        flops_unknown=list(dict.fromkeys(each.block.attention.name for each in layers if each.flops_attention is None)),
        cache_bytes_per_token=sum(len(each.layers) * each.cache_bytes_per_token for each in layers),
        cache_bytes_fixed=sum(len(each.layers) * each.cache_bytes_fixed for each in layers),
        cache_bytes=sum(len(each.layers) * each.cache_bytes for each in layers),
        memory_bytes_fp32=4 * total,
        memory_bytes_bf16=2 * total,
        memory_bytes_4bit=packed // 2 + packed // GROUP * 4 + 2 * (total - packed),
    )


def active_parameters(model: nn.Module) -> dict[str, int]:
    """How many numbers of each parameter one token uses: all, unless a module above says otherwise.

    A module of which a token uses a part has a method `active_parameters()`, which gives these numbers by paths below it.
    """
    active = {path: prod(shape) for path, shape in parameter_shapes(model).items()}
    for above, module in model.named_modules():
        if hasattr(module, "active_parameters"):
            for path, number in module.active_parameters().items():
                path = f"{above}.{path}" if above else path
                active[path] = min(number, active[path])
    return active


def _context(model: LanguageModel, context: int | None) -> int:
    context = model.config.block.max_seq_len if context is None else context
    limit = model.longest()
    if limit is not None and context > limit:
        raise ConfigError(f"context={context} is longer than what the model's positions can place: {limit} tokens")
    return context


def _layers(model: LanguageModel, shapes: Shapes, active: Mapping[str, int], context: int) -> list[Layers]:
    """A hook may have changed some layers, so that those are alike whose blocks and shapes are."""
    kinds: list[tuple[BlockConfig, Shapes, list[int]]] = []
    for i, own in enumerate(_by_layer(model, shapes)):
        block = model.config.get_block_config(i)
        found = [layers for each, other, layers in kinds if each == block and other == own]
        if found:
            found[0].append(i)
        else:
            kinds.append((block, own, [i]))
    return [_counted(model, block, own, layers, active, context) for block, own, layers in kinds]


def _by_layer(model: LanguageModel, shapes: Shapes) -> list[dict[str, tuple[int, ...]]]:
    found: list[dict[str, tuple[int, ...]]] = [{} for _ in model.layers]
    for path, shape in shapes.items():
        part, *below = path.split(".", 2)
        if part == "layers":
            found[int(below[0])][below[1]] = shape
    return found


def _counted(
    model: LanguageModel,
    block: BlockConfig,
    shapes: Shapes,
    layers: Sequence[int],
    active: Mapping[str, int],
    context: int,
) -> Layers:
    layer = model.layers[layers[0]]
    used = {path: active[f"layers.{layers[0]}.{path}"] for path in shapes}
    mixing = _mixing_flops(layer.attention, context)
    growing, fixed = _cache_bytes(layer)
    return Layers(
        name=model.config.where(layers[0]),
        block=block,
        layers=layers,
        parameters=sum(map(prod, shapes.values())),
        active=sum(used.values()),
        flops_forward=2 * sum(used[path] for path in shapes if _multiplied(path, shapes)) + (mixing or 0),
        flops_attention=mixing,
        cache_bytes_per_token=growing,
        cache_bytes_fixed=fixed,
        cache_bytes=growing * getattr(layer.make_cache(), "scope", ALL).seen(context) + fixed,
    )


def _mixing_flops(attention: Any, context: int) -> int | None:
    if getattr(attention, "silent", False):
        return 0
    return attention.mixing_flops(context) if hasattr(attention, "mixing_flops") else None


def _cache_bytes(layer: ConfigurableBlock) -> tuple[int, int]:
    """Bytes that one token adds to the layer's cache, and of what does not grow; makes the layer one in bfloat16.

    Two tokens go through it, lazily, and the shapes of what it remembers are read.
    """
    layer.set_dtype(mx.bfloat16)
    cache, sizes = layer.make_cache(), list[int]()
    for _ in range(2):
        layer(mx.zeros((1, 1, layer.config.d_model), mx.bfloat16), None, cache)
        sizes.append(sum(part.nbytes for part in cache.state if part.ndim > 1))  # others are counters
    return sizes[1] - sizes[0], 2 * sizes[0] - sizes[1]


def _multiplied(path: str, shapes: Shapes) -> bool:
    """Whether tokens are multiplied with a matrix; (heads, 1, width) is a vector for each head, (experts, width) a bias."""
    part, _, name = path.rpartition(".")
    shape = shapes[path]
    matrix = len(shape) == 2 or (len(shape) > 2 and shape[-2] > 1)
    return matrix and name != "bias" and part.partition(".")[0] not in TABLES


def _parts(shapes: Shapes) -> dict[str, int]:
    parts: dict[str, int] = {}
    for path, shape in shapes.items():
        part = path.partition(".")[0]
        parts[part] = parts.get(part, 0) + prod(shape)
    return parts


def _quantisable(model: nn.Module) -> int:
    """Numbers in the weights of layers that can be quantised in groups."""
    weights: list[Any] = [module.weight for _, module in model.named_modules() if hasattr(module, "to_quantized")]
    return sum(weight.size for weight in weights if weight.shape[-1] % GROUP == 0)
