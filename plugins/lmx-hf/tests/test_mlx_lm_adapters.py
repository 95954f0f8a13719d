"""Adapters that mlx-lm writes while the test runs, fused by lmx and by mlx-lm."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from lmx_hf.adapters import fused
from lmx_hf.shards import tensors_of

from .small_adapters import close, numbers

pytest.importorskip("mlx_lm", reason="the test writes adapters with mlx-lm")

pytestmark = pytest.mark.once

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SIZES |= {"rms_norm_eps": 1e-5, "rope_theta": 1e4, "head_dim": 8, "max_position_embeddings": 64}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
CONFIGS = {
    "llama": SIZES | {"intermediate_size": 64, "tie_word_embeddings": False},
    "gpt2": {"n_ctx": 64, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "layer_norm_epsilon": 1e-5}
    | {"vocab_size": 50},
    "qwen3_moe": SIZES
    | EXPERTS
    | {"intermediate_size": 64, "mlp_only_layers": [], "norm_topk_prob": True}
    | {"tie_word_embeddings": False},
    "gpt_oss": SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32, "sliding_window": 8},
}


def layer(kind):
    """Tensors of a layer as the hub has them, without those that all families have."""
    if kind == "gpt2":
        return {"attn.c_attn": (32, 96), "attn.c_proj": (32, 32), "mlp.c_fc": (32, 128), "mlp.c_proj": (128, 32)}
    attention = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32)}
    attention |= {"self_attn.o_proj": (32, 32)}
    if kind == "llama":
        return attention | {"mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)}
    if kind == "gpt_oss":
        attention["mlp.router"] = (4, 32)
        return attention | {"mlp.experts.gate_up_proj": (4, 64, 32), "mlp.experts.down_proj": (4, 32, 32)}
    attention["mlp.gate"] = (4, 32)
    for e in range(4):
        attention |= {f"mlp.experts.{e}.gate_proj": (24, 32), f"mlp.experts.{e}.up_proj": (24, 32)}
        attention[f"mlp.experts.{e}.down_proj"] = (32, 24)
    return attention


def checkpoint(kind):
    """Matrices under the hub's names."""
    stem, embedding = ("h", "wte") if kind == "gpt2" else ("model.layers", "model.embed_tokens")
    weights = {f"{embedding}.weight": numbers(50, 32)}
    weights |= {"wpe.weight": numbers(64, 32)} if kind == "gpt2" else {"lm_head.weight": numbers(50, 32, seed=1)}
    for i in range(2):
        for seed, (name, shape) in enumerate(layer(kind).items()):
            weights[f"{stem}.{i}.{name}.weight"] = numbers(*shape, seed=10 * seed + i)
    return weights


def built(kind, weights):
    """mlx-lm's model with these weights in it."""
    from importlib import import_module

    module = import_module(f"mlx_lm.models.{kind}")
    model = module.Model(module.ModelArgs.from_dict({"model_type": kind} | CONFIGS[kind]))
    model.load_weights(list(model.sanitize(dict(weights)).items()), strict=False)
    return model


def adapted(path, model, dora=False, keys=None, layers=2):
    """The model with an adapter of numbers, and the folder that mlx-lm would write."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    parameters = {"rank": 4, "scale": 1.7, "dropout": 0.0} | ({"keys": keys} if keys else {})
    model.freeze()
    linear_to_lora_layers(model, layers, parameters, use_dora=dora)
    trained = dict(tree_flatten(model.trainable_parameters()))
    trained = {name: each for name, each in trained.items() if name.rpartition(".")[2] in ("lora_a", "lora_b", "m")}
    trained = {name: 0.3 * numbers(*each.shape, seed=len(name)) for name, each in trained.items()}
    model.load_weights(list(trained.items()), strict=False)
    path.mkdir()
    mx.save_safetensors(str(path / "adapters.safetensors"), trained)
    config = {"fine_tune_type": "dora" if dora else "lora", "num_layers": layers, "lora_parameters": parameters}
    (path / "adapter_config.json").write_text(json.dumps(config))


def fuse(model):
    """As `mlx_lm.fuse --dequantize` does it."""
    modules = [
        (name, module.fuse(dequantize=True)) for name, module in model.named_modules() if hasattr(module, "fuse")
    ]
    model.update_modules(tree_unflatten(modules))
    return dict(tree_flatten(model.parameters()))


CASES = {
    "llama": ("llama", {}),
    "some layers": ("llama", {"layers": 1}),
    "some modules": ("llama", {"keys": ["self_attn.v_proj", "mlp.down_proj", "lm_head", "model.embed_tokens"]}),
    "dora": ("llama", {"dora": True, "keys": ["self_attn.q_proj", "mlp.down_proj", "model.embed_tokens"]}),
    "Conv1D": ("gpt2", {}),
    "Conv1D dora": ("gpt2", {"dora": True}),
    "experts": ("qwen3_moe", {}),
    "experts in turn": ("gpt_oss", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_as_mlx_lm_fuses(name, tmp_path):
    """A checkpoint of the hub with the adapter in it is, to mlx-lm, what it makes of the two itself."""
    kind, options = CASES[name]
    weights = checkpoint(kind)
    model = built(kind, weights)
    adapted(tmp_path / "adapter", model, **options)

    new = fused(weights, tmp_path / "adapter", lambda name: ".c_" in name, lambda name: kind == "gpt_oss")

    assert {name: each.shape for name, each in new.items()} == {name: each.shape for name, each in weights.items()}
    changed = {name for name in new if new[name] is not weights[name]}
    assert changed
    ours, theirs = built(kind, new), fuse(model)
    assert any(not mx.array_equal(weights[name], new[name]) for name in changed)
    for key, value in tree_flatten(ours.parameters()):
        if value.ndim > 1:
            close(value, theirs[key], 1e-5)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_as_mlx_lm_fuses_packed_weights(mode, dora, tmp_path):
    """A checkpoint that mlx-lm has packed, embedding included, and an adapter that was trained on it."""
    model = built("llama", checkpoint("llama"))
    nn.quantize(model, 32, 4, mode=mode)
    (tmp_path / "model").mkdir()
    mx.save_safetensors(str(tmp_path / "model" / "model.safetensors"), dict(tree_flatten(model.parameters())))
    adapted(tmp_path / "adapter", model, dora=dora)

    new = fused(tensors_of(tmp_path / "model"), tmp_path / "adapter")

    theirs = fuse(model)
    assert set(new) == set(theirs)
    for name, value in new.items():
        close(value, np.array(theirs[name].astype(mx.float32)), 1e-5 if value.dtype == mx.float32 else 2**-6)
