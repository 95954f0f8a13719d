"""Adapters on weights of few bits."""

import mlx.core as mx
import pytest

from lmx_hf.adapters import fused

from .small_adapters import LAYER, close, named, numbers, peft, scaled

pytestmark = pytest.mark.once

Q = f"{LAYER}.q_proj"
PACKINGS = [("affine", bits, 32) for bits in (2, 3, 4, 5, 6, 8)] + [("affine", 4, 64), ("affine", 8, 128)]
PACKINGS += [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]


def packed(name, weight, mode, bits, group_size):
    parts = mx.quantize(weight, group_size, bits, mode=mode)
    return {f"{name}.{part}": value for part, value in zip(("weight", "scales", "biases"), parts, strict=False)}


@pytest.mark.parametrize(("mode", "bits", "group_size"), PACKINGS)
def test_packed_weights(mode, bits, group_size, tmp_path):
    """A packed weight that changes becomes dense, how it is packed is told by its shapes; others stay as they are."""
    weights = packed(Q, numbers(16, 256, dtype=mx.bfloat16), mode, bits, group_size)
    others = packed("other", numbers(16, 256, dtype=mx.bfloat16), mode, bits, group_size)
    a, b = (0.1 * each for each in (numbers(2, 256), numbers(16, 2)))

    new = fused(weights | others, peft(tmp_path, named(Q, a, b)))

    assert list(new) == [f"{Q}.weight", *others]
    dense = mx.dequantize(*weights.values(), group_size=group_size, bits=bits, mode=mode)
    assert new[f"{Q}.weight"].dtype == dense.dtype == mx.bfloat16
    close(new[f"{Q}.weight"], scaled(dense, a, b, 3), 2**-7)


def test_packed_square(tmp_path):
    """It is stored (out, in) whatever the caller knows of dense ones: MLX packs along the input."""
    weights = packed(Q, numbers(64, 64), "affine", 8, 32)
    a, b = numbers(2, 64), numbers(64, 2)

    new = fused(weights, peft(tmp_path, named(Q, a, b)), lambda _: True)

    close(new[f"{Q}.weight"], scaled(mx.dequantize(*weights.values(), group_size=32, bits=8), a, b, 3))


def test_packed_tied_head(tmp_path):
    """The head keeps the packed embedding, which becomes dense itself."""
    weights = packed("model.embed_tokens", numbers(96, 64), "affine", 4, 32)
    a, b = numbers(2, 96), numbers(64, 2)
    parts = ("lora_embedding_A", "lora_embedding_B")

    new = fused(weights, peft(tmp_path, named("model.embed_tokens", a, b, parts=parts)))

    assert {name.replace("lm_head", "model.embed_tokens") for name in new} == set(weights)
    assert all(
        mx.array_equal(new[name.replace("model.embed_tokens", "lm_head")], value) for name, value in weights.items()
    )
    dense = mx.dequantize(*weights.values(), group_size=32, bits=4)
    close(new["model.embed_tokens.weight"], scaled(dense.T, a, b, 3).T)


def test_packed_whole(tmp_path):
    weights, head = packed("lm_head", numbers(7, 64, dtype=mx.float16), "affine", 4, 32), numbers(7, 64, seed=5)

    new = fused(weights, peft(tmp_path, {"lm_head.weight": head}))

    assert list(new) == ["lm_head.weight"]
    assert mx.array_equal(new["lm_head.weight"], head.astype(mx.float16))
