"""Small adapters, and slow sums that say what becomes of a weight with them."""

import json

import mlx.core as mx
import numpy as np

PEFT = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "another/base", "revision": "gone"}
MLX_LM = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": 2, "scale": 3.0, "dropout": 0.0}}
LAYER = "model.layers.0.self_attn"


def numbers(*shape, seed=0, dtype=mx.float32):
    return mx.array(np.random.default_rng((seed, *shape)).normal(size=shape)).astype(dtype)


def peft(path, tensors, **config):
    """A folder as PEFT writes it; names without their prefix."""
    named = {f"base_model.model.{name}": value for name, value in tensors.items()}
    return folder(path, PEFT | config, named, "adapter_model.safetensors")


def mlx_lm(path, tensors, **config):
    return folder(path, MLX_LM | config, tensors, "adapters.safetensors")


def folder(path, config, tensors, file):
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(path / file), tensors)
    return path


def low_rank(module, rows, columns, rank=2, seed=1):
    """PEFT's factors of a matrix (rows, columns)."""
    return {
        f"{module}.lora_A.weight": numbers(rank, columns, seed=seed),
        f"{module}.lora_B.weight": numbers(rows, rank, seed=seed),
    }


def named(module, *values, parts=("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")):
    """A module's tensors by their parts."""
    return {f"{module}.{part}": value for part, value in zip(parts, values, strict=False)}


def product(a, b):
    """Row by row, column by column: (rank, in) and (out, rank) make (out, in)."""
    a, b = np.array(a, np.float64), np.array(b, np.float64)
    delta = np.zeros((b.shape[0], a.shape[1]))
    for out in range(b.shape[0]):
        for into in range(a.shape[1]):
            delta[out, into] = sum(b[out, i] * a[i, into] for i in range(a.shape[0]))
    return delta


def scaled(weight, a, b, scale):
    """Of a weight (out, in)."""
    return np.array(weight.astype(mx.float32), np.float64) + scale * product(a, b)


def dora(weight, a, b, scale, magnitude):
    """Each output as long as its magnitude says."""
    new = scaled(weight, a, b, scale)
    for out in range(new.shape[0]):
        new[out] *= float(magnitude[out]) / np.sqrt(sum(each**2 for each in new[out]))
    return new


def close(found, expected, tolerance=1e-5):
    found = np.array(found.astype(mx.float32))
    assert found.shape == np.array(expected).shape
    np.testing.assert_allclose(found, np.array(expected), rtol=tolerance, atol=tolerance)
