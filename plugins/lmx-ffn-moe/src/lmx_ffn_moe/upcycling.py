"""A mixture from a dense model."""

from collections.abc import Sequence

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core import LanguageModel, ModelConfig
from lmx_core.components.feedforward import GatedFFN
from lmx_core.config import BlockConfig, ComponentSpec, as_spec
from lmx_core.construct import filled
from lmx_core.errors import ConfigError
from lmx_core.model import flat_parameters
from lmx_core.registry import registry
from lmx_ffn_moe.moe import LatentMoE, MoE


def upcycle(model: LanguageModel, moe: ComponentSpec | str, layers: Sequence[int] | None = None) -> LanguageModel:
    """The model with a mixture in `layers` (all, unless given) whose experts all start as copies of the dense FFN there.

    Sparse upcycling, arXiv:2212.05055: only the router starts from nothing. Where the weights of the chosen experts sum to
    1, as they do by default for more than one, the new model computes at first what the dense one does. `ConfigError` for
    FFNs that are not gated, or quantised, and for mixtures that no copy of one can fill (another width or activation, a
    clamp, a latent, shared experts, weights on the input).
    """
    chosen = as_spec(moe)
    blocks = [model.config.get_block_config(i) for i in range(model.config.n_layers)]
    for i in range(len(blocks)) if layers is None else layers:
        if not 0 <= i < len(blocks):
            raise ConfigError(f"layer {i} of a model with n_layers={len(blocks)}; layers count from 0")
        blocks[i] = _upcycled(blocks[i], model.layers[i].ffn, chosen)
    mixture = LanguageModel(_with_blocks(model.config, blocks))
    dense = flat_parameters(model)
    mixture.load_weights([(path, _grown(path, dense, fresh)) for path, fresh in flat_parameters(mixture).items()])
    return mixture


def _with_blocks(config: ModelConfig, blocks: Sequence[BlockConfig]) -> ModelConfig:
    bare = attrs.evolve(config, blocks=None, block_pattern=None, block_configs=None)
    if all(block == blocks[0] for block in blocks):
        return attrs.evolve(bare, block=blocks[0])
    return attrs.evolve(bare, block_configs=blocks)


def _upcycled(block: BlockConfig, ffn: object, moe: ComponentSpec) -> BlockConfig:
    """The block with a mixture of FFNs like its own."""
    mixture = registry("ffn").get(moe.name)
    if not (isinstance(mixture, type) and issubclass(mixture, MoE)) or issubclass(mixture, LatentMoE):
        raise ConfigError(f"upcycle makes experts of whole FFNs; {moe.name!r} has none such. Use 'moe'.")
    if not isinstance(ffn, GatedFFN) or isinstance(ffn.gate, nn.QuantizedLinear):
        raise ConfigError(f"upcycle copies gated FFNs that are not quantised, but ffn = {block.ffn} is none")
    [dense] = filled("ffn", registry("ffn").get(block.ffn.name), block.ffn)
    like = {"activation": dense.activation, "bias": "bias" in ffn.up, "d_ff": block.d_ff}
    for key, value in moe.options.items():
        if key in like and value is not None and value != like[key]:
            raise ConfigError(f"experts that start as the dense FFN have {key}={like[key]!r}, got {value!r}")
    spec = moe.having(activation=like["activation"], bias=like["bias"])
    [options] = filled("ffn", mixture, spec)
    if options.n_shared_experts or options.clamp is not None or options.up_shift or options.weigh == "input":
        raise ConfigError(
            f"{spec} computes more than copies of the dense FFN do: leave out shared experts, clamp, up_shift, weigh"
        )
    return attrs.evolve(block, ffn=spec)


def _grown(path: str, dense: dict[str, array], fresh: array) -> array:
    """The dense model's array, once for each expert; a fresh one for what it does not have."""
    if path in dense:
        return dense[path]
    found = dense.get(path.replace(".ffn.experts.", ".ffn."))
    if found is None or found.shape == fresh.shape:  # a trained activation is one for all
        return fresh if found is None else found
    return mx.repeat(found[None], len(fresh), axis=0)
