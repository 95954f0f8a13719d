"""What MLA computes, token by token and head by head: slow, short enough to be believed, compared with it in the tests."""

import mlx.core as mx
from mlx.core import array

from lmx_attn_mla.attention import MLA
from lmx_core.components.reference import rms_norm
from lmx_core.components.reference import rotate as turned


def mla(module: MLA, x: array, frequencies: list[float], interleaved: bool = False, factor: float = 1.0) -> array:
    """Equations 9 to 19 of arXiv:2405.04434 for a causal (L, D), positions 0 to L - 1; `factor` is that of all scores.

    Pair i of the rotated numbers turns by `frequencies[i]` from one position to the next.
    """
    rows: list[array] = []
    for t in range(len(x)):
        heads = [_head(module, head, x[: t + 1], frequencies, interleaved, factor) for head in range(module.n_heads)]
        rows.append(mx.concatenate(heads))
    return module.o_proj(mx.stack(rows))


def _queries(module: MLA, x: array) -> array:
    if "q_proj" in module:
        return module.q_proj(x)
    return module.q_up.weight @ rms_norm(module.q_down(x), module.q_norm.weight, module.q_norm.eps)


def _head(module: MLA, head: int, x: array, frequencies: list[float], interleaved: bool, factor: float) -> array:
    """What one head says about the last of the tokens x."""
    last, split = len(x) - 1, module.nope_head_dim
    query = _queries(module, x[last]).reshape(module.n_heads, -1)[head]
    down = module.kv_down(x)
    latents = rms_norm(down[:, : module.kv_lora_rank], module.kv_norm.weight, module.kv_norm.eps)
    places = list(range(last + 1))
    shared = turned(down[None, None, :, module.kv_lora_rank :], frequencies, places, interleaved)[0, 0]
    asked = turned(query[None, None, None, split:], frequencies, [last], interleaved)[0, 0, 0]
    keys, values = (latents @ up.weight[head].T for up in (module.k_up, module.v_up))
    scores = factor * (keys @ query[:split] + shared @ asked) / len(query) ** 0.5
    weights = mx.exp(scores - scores.max())
    return (weights / weights.sum()) @ values
