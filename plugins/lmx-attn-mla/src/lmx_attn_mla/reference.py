"""What MLA computes, token by token and head by head: slow, short enough to be believed, compared with it in the tests."""

import mlx.core as mx
from mlx.core import array

from lmx_attn_mla.attention import LATENT_EPS, MLA
from lmx_core.components.reference import rms_norm
from lmx_core.components.reference import rotate as turned


def mla(module: MLA, x: array, theta: float) -> array:
    """Equations 9 to 19 of arXiv:2405.04434 for a causal (L, D), positions 0 to L - 1."""
    split = module.nope_head_dim
    rows = [
        mx.concatenate([_head(module, head, x[: t + 1], theta, split) for head in range(module.n_heads)])
        for t in range(len(x))
    ]
    return module.o_proj(mx.stack(rows))


def _queries(module: MLA, x: array) -> array:
    if "q_proj" in module:
        return module.q_proj(x)
    return module.q_up.weight @ rms_norm(module.q_down(x), module.q_norm.weight, LATENT_EPS)


def _head(module: MLA, head: int, x: array, theta: float, split: int) -> array:
    """What one head says about the last of the tokens x."""
    last = len(x) - 1
    query = _queries(module, x[last]).reshape(module.n_heads, -1)[head]
    down = module.kv_down(x)
    latents = rms_norm(down[:, : module.kv_lora_rank], module.kv_norm.weight, LATENT_EPS)
    width = len(query) - split
    frequencies = [theta ** (-2 * i / width) for i in range(width // 2)]
    shared = turned(down[None, None, :, module.kv_lora_rank :], frequencies, list(range(last + 1)))[0, 0]
    asked = turned(query[None, None, None, split:], frequencies, [last])[0, 0, 0]
    keys, values = (latents @ up.weight[head].T for up in (module.k_up, module.v_up))
    scores = (keys @ query[:split] + shared @ asked) / (split + len(asked)) ** 0.5
    weights = mx.exp(scores - scores.max())
    return (weights / weights.sum()) @ values
