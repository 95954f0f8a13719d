"""muP, the maximal update parametrisation: rates and initial weights that suit one width suit every width.

Table 8 of arXiv:2203.03466, with `m = d_model / mup_base_width`. At the base width everything is as without it, but for
the scores.

    embedding, positions, norms, biases    initial size as at the base    rate 1
    matrices inside of blocks              variance 1 / inputs            rate 1 / m
    head (the embedding where it is tied)  initial size as at the base    rate 1     its input is multiplied with 1 / m
    scores of attention                    8 / head_dim in place of 1 / sqrt(head_dim), unless its options state a `scale`

The rates are those of Adam. `optimizer.mup_rate(path, weight, fan_in, fan_out)` gives those of another optimizer. Which
axes of a matrix are inputs that grow is seen on a block of twice the width: `d_model`, `d_ff` and the number of heads grow,
`head_dim` does not, and a width that a component's own options state (a rank) does not either. What maps a width to a number
that does not grow (a router) has the rate of a matrix.
"""

from typing import Any

import attrs
from mlx import nn
from mlx.core import array
from mlx.utils import tree_flatten

from lmx_core.block import ConfigurableBlock
from lmx_core.config import BlockConfig, ComponentSpec, ModelConfig
from lmx_core.construct import filled
from lmx_core.errors import ConfigError, LmxError
from lmx_core.parts import rewritten
from lmx_core.randomness import drawing_apart
from lmx_core.registry import registry


@attrs.frozen
class Growth:
    """How many times the inputs and outputs a parameter has that it had at the base width."""

    fan_in: float = 1.0
    fan_out: float = 1.0


def widening(config: Any) -> float:
    """The model's width by its base width; 1 without one."""
    base = getattr(config, "mup_base_width", None)
    return 1.0 if base is None else config.block.d_model / base


def block_of(config: ModelConfig, block: BlockConfig) -> BlockConfig:
    """A block of the model as it is built: with muP's scale where its attention has the option and states none."""
    if config.mup_base_width is None:
        return block

    def scaled(kind: str, chosen: ComponentSpec) -> ComponentSpec:
        options = filled(kind, registry(kind).get(chosen.name), chosen) if kind == "attention" else ()
        unset = any(getattr(each, "scale", 1.0) is None for each in options)
        return chosen.having(scale=8 / block.head_dim) if unset else chosen

    return rewritten(block, scaled)


def initialise(model: Any) -> None:
    """The initial sizes of a model that MLX drew by the number of inputs."""
    wider = widening(model.config) ** 0.5
    if wider == 1:
        return
    ends = ["project_out"] if "project_out" in model else ["embed", "head"]
    for module in [model[name] for name in ends if name in model]:
        for name in module.keys() & {"weight", "bias"}:
            module[name] = module[name] * wider
    grown = growths(model)
    for path, module in model.named_modules():
        drawn = "weight" in module and "bias" in module and path.startswith("layers.")
        if drawn and grown[f"{path}.weight"].fan_in != 1:
            module.bias = module.bias * wider


def rate_factors(model: nn.Module, optimizer: Any) -> dict[str, float]:
    """The factor of the learning rate of each parameter, by its path; none at the base width."""
    if widening(getattr(model, "config", None)) == 1:
        return {}
    weights = _flat(model)
    return {
        path: optimizer.mup_rate(path, weights[path], each.fan_in, each.fan_out)
        for path, each in growths(model).items()
    }


def problem(model: nn.Module, optimizer: Any, name: str) -> str | None:
    """Why the model cannot be trained with an optimizer, or None."""
    base = getattr(getattr(model, "config", None), "mup_base_width", None)
    if base is None or hasattr(optimizer, "mup_rate"):
        return None
    return (
        f"model.mup_base_width={base} asks for rates by width, and optimizer {name!r} has no mup_rate that says them. Take "
        "another optimizer, or leave mup_base_width out."
    )


def growths(model: Any) -> dict[str, Growth]:
    """How each parameter of a language model has grown, by its path."""
    m = widening(model.config)
    ends = Growth(1.0, 1.0 if "project_out" in model else m)
    within = {
        **dict.fromkeys(("norm", "embedding_norm", "project_in", "project_out"), Growth(fan_out=m)),
        **dict.fromkeys(("embed", "head"), ends),
    }
    found = {path: within.get(path.partition(".")[0], Growth()) for path in _flat(model)}
    found |= {path: Growth() for path in ("head.bias", "head_bias") if path in found}
    places = {id(position): f"positions.{i}" for i, position in enumerate(model.positions)}
    with drawing_apart():  # a block that only shows its shapes
        wide: dict[BlockConfig, ConfigurableBlock] = {}
        for i, layer in enumerate(model.layers):
            probe = wide.setdefault(layer.config, wide.get(layer.config) or _twice_as_wide(layer.config))
            found |= _compared(layer, probe, f"layers.{i}", m)
            found |= _compared(layer.placement, probe.placement, places[id(layer.placement)], m, tables=True)
    return found


def _compared(module: nn.Module, wide: nn.Module, path: str, m: float, *, tables: bool = False) -> dict[str, Growth]:
    """By the axes that differ. What the wider one lacks was added later: matrices count as having grown all over."""
    shapes = {name: weight.shape for name, weight in _flat(wide).items()}
    found: dict[str, Growth] = {}
    for name, weight in _flat(module).items():
        vector = tables or weight.ndim < 2 or name.rpartition(".")[2] == "bias"
        if name not in shapes:
            found[f"{path}.{name}"] = Growth() if vector else Growth(m, m)
            continue
        grows = [a != b for a, b in zip(weight.shape, shapes[name], strict=True)]
        inputs, outputs = ([], grows) if vector else (grows[-1:], grows[:-1])
        found[f"{path}.{name}"] = Growth(m if any(inputs) else 1.0, m if any(outputs) else 1.0)
    return found


def _twice_as_wide(block: BlockConfig) -> ConfigurableBlock:
    sizes = {name: 2 * getattr(block, name) for name in ("d_model", "d_ff", "n_heads", "n_kv_heads")}
    try:
        return ConfigurableBlock(attrs.evolve(block, head_dim=block.head_dim, **sizes))
    except LmxError as error:
        raise ConfigError(
            f"mup_base_width: a block of twice the width cannot be built to compare with. {error}"
        ) from None


def folded(model: Any) -> Any:
    """A model that computes the same without muP, for programs that have none.

    1 / m goes into the head's weights, or where these are the embedding's into `logit_multiplier`, and the scale into the
    options of the attention. `ConfigError` for a tied head with a bias. A model without muP is returned as it is.
    """
    config, m = model.config, widening(model.config)
    if config.mup_base_width is None:
        return model
    end = next((name for name in ("project_out", "head") if name in model), None)
    if end is None and config.head_bias and m != 1:
        raise ConfigError("mup_base_width cannot be taken out of a model whose tied head has a bias")
    blocks = {
        "block": block_of(config, config.block),
        "blocks": config.blocks and {name: block_of(config, block) for name, block in config.blocks.items()},
    }
    if config.block_pattern is None and config.block_configs is not None:
        blocks["block_configs"] = tuple(block_of(config, block) for block in config.block_configs)
    multiplier = config.logit_multiplier / (m if end is None else 1)
    other = type(model)(attrs.evolve(config, mup_base_width=None, logit_multiplier=multiplier, **blocks))
    other.update(model.parameters())
    if end is not None:
        other[end].weight = other[end].weight / m
    return other


def _flat(module: nn.Module) -> dict[str, array]:
    flat: Any = tree_flatten(module.parameters())
    return dict(flat)
