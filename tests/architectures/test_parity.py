"""Logits equal those of mlx-lm's models of the same name, with the same weights."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from lmx_core import LanguageModel, make_config
from lmx_core.testing import randomise
from lmx_core.testing.checks import close

pytest.importorskip("mlx_lm", reason="compares with mlx-lm, which is not installed")

LLAMA = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
    "attention.q_proj": "self_attn.q_proj",
    "attention.k_proj": "self_attn.k_proj",
    "attention.v_proj": "self_attn.v_proj",
    "attention.o_proj": "self_attn.o_proj",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
    "layout.attention_norm": "input_layernorm",
    "layout.ffn_norm": "post_attention_layernorm",
    "layers.": "model.layers.",
}
GPT2 = {
    "embed.weight": "model.wte.weight",
    "positions.0.weight": "model.wpe.weight",
    "norm.": "model.ln_f.",
    "attention.o_proj": "attn.c_proj",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
    "layout.attention_norm": "ln_1",
    "layout.ffn_norm": "ln_2",
    "layers.": "model.h.",
}
TOKENS = mx.random.randint(0, 256, (2, 48), key=mx.random.key(7))


def renamed(weights, names):
    for ours, theirs in names.items():
        weights = {
            key.replace(ours, theirs, 1) if key.startswith(ours) or f".{ours}" in key else key: value
            for key, value in weights.items()
        }
    return list(weights.items())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_llama_equals_mlx_lm(kv_heads, tied):
    """The same weights give mlx-lm's LLaMA logits, in one pass and with a cache."""
    from mlx_lm.models.llama import Model, ModelArgs

    config = make_config("llama", size="tiny", n_kv_heads=kv_heads, tie_embeddings=tied, rope_theta=500.0)
    ours = randomise(LanguageModel(config))
    theirs = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=64,
            num_hidden_layers=2,
            intermediate_size=128,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            rms_norm_eps=config.block.norm_eps,
            vocab_size=256,
            rope_theta=500.0,
            tie_word_embeddings=tied,
        )
    )
    theirs.load_weights(renamed(dict(tree_flatten(ours.parameters())), LLAMA))

    close(ours(TOKENS)[0], theirs(TOKENS))
    cache, others = ours.make_cache(), ours.make_cache()  # mlx-lm's model runs on lmx's caches
    for part in (TOKENS[:, :20], TOKENS[:, 20:21], TOKENS[:, 21:]):
        close(ours(part, cache=cache)[0], theirs(part, cache=others))


def test_lmx_runs_on_mlx_lm_caches():
    """A model decodes with mlx-lm's cache as with its own."""
    from mlx_lm.models.cache import KVCache

    model = randomise(LanguageModel(make_config("llama", size="tiny")))
    cache = [KVCache() for _ in model.layers]
    parts = [model(TOKENS[:, :20], cache=cache)[0], model(TOKENS[:, 20:], cache=cache)[0]]
    close(mx.concatenate(parts, axis=1), model(TOKENS)[0])


def test_gpt_equals_mlx_lm():
    """With learned positions the same weights give mlx-lm's GPT-2 logits."""
    from mlx_lm.models.gpt2 import Model, ModelArgs

    config = make_config("gpt", size="tiny")
    ours = randomise(LanguageModel(config))
    theirs = Model(
        ModelArgs(
            model_type="gpt2",
            n_ctx=256,
            n_embd=64,
            n_head=4,
            n_layer=2,
            n_positions=256,
            layer_norm_epsilon=config.block.norm_eps,
            vocab_size=256,
        )
    )
    weights = dict(tree_flatten(ours.parameters()))
    for i in range(2):
        for part in ("weight", "bias"):
            of_one = [weights.pop(f"layers.{i}.attention.{name}_proj.{part}") for name in "qkv"]
            weights[f"layers.{i}.attn.c_attn.{part}"] = mx.concatenate(of_one)
    theirs.load_weights(renamed(weights, GPT2))

    close(ours(TOKENS)[0], theirs(TOKENS))
