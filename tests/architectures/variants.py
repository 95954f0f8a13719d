"""Small configs of transformers, by families: one that all variants share, then what each of them has of its own.

Values are unusual on purpose, and differ from each other: a constant in the place of a key shows, and a turned matrix.
"""


def rope(kind="default", **numbers):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1234.0, **numbers}}


def yarn(**numbers):
    known = {"rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 32}
    return rope("yarn", **{**known, "beta_fast": 1.0, "beta_slow": 0.2, **numbers})


TOKENS = {"vocab_size": 160, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PLAIN = {
    **TOKENS,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    **rope(),
}
GPT = {**TOKENS, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64, "layer_norm_epsilon": 0.02}
NEO = {
    **TOKENS,
    "hidden_size": 48,
    "num_layers": 4,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 2]],
    "window_size": 5,
    "max_position_embeddings": 64,
    "layer_norm_epsilon": 0.02,
}
BLOOM = {**TOKENS, "hidden_size": 48, "n_layer": 3, "n_head": 6, "layer_norm_epsilon": 0.02}
MPT = {**TOKENS, "d_model": 48, "n_layers": 3, "n_heads": 6, "max_seq_len": 64, "layer_norm_epsilon": 0.02}
OPT = {
    **TOKENS,
    "hidden_size": 48,
    "ffn_dim": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
FALCON = {**PLAIN, "layer_norm_epsilon": 0.02}
RMS = {**PLAIN, "rms_norm_eps": 0.02}
LAYER_NORM = {**PLAIN, "layer_norm_eps": 0.02}
HALF = rope(partial_rotary_factor=0.5)
TYPES = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
SHORT, LONG = [1.0, 1.1, 1.25, 1.3, 1.5, 1.6], [2.0, 2.7, 3.4, 4.1, 4.7, 5.5]
LONGROPE = rope("longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=16)
GROWING = {**rope("dynamic", factor=2.0), "max_position_embeddings": 16}
VARIANTS = {
    "apertus": (RMS, LLAMA3, {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True}),
    "bloom": (BLOOM, {}, {"n_head": 3, "apply_residual_connection_post_layernorm": True}),
    "cohere": (
        LAYER_NORM,
        {"logit_scale": 0.4},
        {"logit_scale": 0.3, "use_qk_norm": True, "attention_bias": True, "tie_word_embeddings": False},
    ),
    "cohere2": (
        LAYER_NORM,
        {"logit_scale": 0.4, "head_dim": 16, "sliding_window": 8},
        {"sliding_window": 6, "layer_types": TYPES, "attention_bias": True, **rope("linear", factor=2.0)},
    ),
    "exaone4": (
        RMS,
        {"head_dim": 16, "sliding_window": 8},
        {"sliding_window": None, "layer_types": ["full_attention"] * 4, "tie_word_embeddings": True, **LLAMA3},
        {"sliding_window": 8, "layer_types": ["full_attention"] * 4},
    ),
    "falcon": (
        FALCON,
        {"ffn_hidden_size": 80},
        {"multi_query": False, "parallel_attn": False, "bias": True},
        {"multi_query": False, "parallel_attn": False, "bias": True, "alibi": True},
        {"num_attention_heads": 6, "multi_query": False, "alibi": True},
        {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True, "tie_word_embeddings": False},
        {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1, "activation": "relu"},
        {"new_decoder_architecture": True, "num_kv_heads": 1, "alibi": True},
        GROWING,
    ),
    "gemma": (RMS, {"head_dim": 16, "num_key_value_heads": 1}, {"head_dim": 10, "attention_bias": True}),
    "gemma2": (
        RMS,
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 8,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 2.0,
        },
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 20,
            "sliding_window": 6,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "gemma3_text": (
        RMS,
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 8,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
        {
            "head_dim": 16,
            "sliding_window": 6,
            "layer_types": TYPES,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 300.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 55.0},
            },
        },
    ),
    "glm": (
        RMS,
        {"head_dim": 16, "attention_bias": True, **HALF},
        {"head_dim": 16, "attention_bias": False, "tie_word_embeddings": True, **rope(partial_rotary_factor=0.25)},
    ),
    "glm4": (
        RMS,
        {"head_dim": 16, "attention_bias": True, **HALF},
        {"head_dim": 20, "attention_bias": False, **rope(partial_rotary_factor=1.0)},
    ),
    "gpt2": (
        GPT,
        {"n_inner": 80},
        {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu", "tie_word_embeddings": False},
        {"scale_attn_weights": False, "activation_function": "relu"},
    ),
    "gpt_bigcode": (
        GPT,
        {"n_inner": 80},
        {"multi_query": False},
        {"scale_attn_weights": False, "activation_function": "gelu"},
    ),
    "gpt_neo": (
        NEO,
        {"intermediate_size": 80},
        {"num_layers": 5, "attention_types": [[["global"], 1], [["local"], 2], [["global", "local"], 1]]},
        {"attention_types": [[["local"], 4]], "activation_function": "silu", "tie_word_embeddings": False},
    ),
    "gpt_neox": (
        LAYER_NORM,
        HALF,
        {"use_parallel_residual": False, "hidden_act": "gelu_fast", **HALF},
        {"attention_bias": False, "tie_word_embeddings": True, **rope("linear", factor=2.0, partial_rotary_factor=0.5)},
    ),
    "gptj": (GPT, {"rotary_dim": 8, "n_inner": 80}, {"rotary_dim": 4, "activation_function": "gelu"}),
    "granite": (
        RMS,
        {"attention_multiplier": 0.4, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.6},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    ),
    "helium": (
        RMS,
        {"head_dim": 12},
        {"head_dim": 12, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "hunyuan_v1_dense": (
        RMS,
        {"head_dim": 16},
        {
            "head_dim": 16,
            "attention_bias": True,
            "tie_word_embeddings": True,
            **rope("dynamic", alpha=50.0, factor=1.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0),
        },
        {"head_dim": 16, **GROWING},
    ),
    "llama": (
        RMS,
        {"head_dim": 16},
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        rope("linear", factor=3.0),
        GROWING,
        LLAMA3,
        yarn(),
        yarn(original_max_position_embeddings=8, mscale=0.7, mscale_all_dim=0.3, truncate=False),
        LONGROPE,
        {"head_dim": 16, **rope("proportional", partial_rotary_factor=0.5, factor=2.0)},
    ),
    "ministral": (
        RMS,
        {"head_dim": 16, "sliding_window": 8, "layer_types": TYPES},
        {"head_dim": 16, "sliding_window": 6},
    ),
    "ministral3": (
        RMS,
        {"head_dim": 16, **yarn(mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.4)},
        {"head_dim": 16, "sliding_window": 6, **yarn(original_max_position_embeddings=8, llama_4_scaling_beta=0.7)},
    ),
    "mistral": (RMS, {"head_dim": 16, "sliding_window": 8}, {"sliding_window": None}),
    "mpt": (
        MPT,
        {"attn_config": {"clip_qkv": 1.5, "softmax_scale": 0.3}},
        {"n_heads": 12},
        {"n_heads": 4, "tie_word_embeddings": False},
    ),
    "nemotron": (
        {**PLAIN, "norm_eps": 0.02},
        {"head_dim": 16, **HALF},
        {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu", "tie_word_embeddings": True, **HALF},
    ),
    "olmo": (PLAIN, {"clip_qkv": 0.9}, {"num_key_value_heads": 4, "attention_bias": True, "tie_word_embeddings": True}),
    "olmo2": (RMS, {}, {"attention_bias": True, **LLAMA3}),
    "olmo3": (
        RMS,
        {
            "sliding_window": 8,
            "rope_parameters": {
                "full_attention": yarn(attention_factor=1.2)["rope_parameters"],
                "sliding_attention": {"rope_type": "default", "rope_theta": 99.0},
            },
        },
        {"sliding_window": 7, "layer_types": TYPES, "attention_bias": True},
    ),
    "openai-gpt": (GPT, {}, {"afn": "swish"}, {"afn": "relu", "tie_word_embeddings": False}),
    "opt": (
        OPT,
        {"word_embed_proj_dim": 48},
        {"word_embed_proj_dim": 32, "do_layer_norm_before": False},
        {"word_embed_proj_dim": 32, "activation_function": "gelu"},
        {"word_embed_proj_dim": 48, "enable_bias": False, "layer_norm_elementwise_affine": False},
        {"word_embed_proj_dim": 48, "layer_norm_elementwise_affine": False, "do_layer_norm_before": False},
    ),
    "phi": (
        LAYER_NORM,
        {"hidden_act": "gelu_new", **HALF},
        {"qk_layernorm": True, "num_key_value_heads": 1, **rope("linear", factor=2.0, partial_rotary_factor=0.5)},
    ),
    "phi3": (
        RMS,
        {"sliding_window": 8},
        {"num_key_value_heads": 4, "sliding_window": None, "tie_word_embeddings": True, **HALF},
        {"sliding_window": None, "original_max_position_embeddings": 16, **LONGROPE},
    ),
    "qwen2": (
        RMS,
        {"sliding_window": 5},
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "tie_word_embeddings": True},
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": TYPES},
    ),
    "qwen3": (
        RMS,
        {"head_dim": 16},
        {"head_dim": 16, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True, **yarn()},
    ),
    "seed_oss": (
        RMS,
        {"head_dim": 16},
        {"head_dim": 16, "attention_bias": False, "attention_out_bias": True, "mlp_bias": True},
    ),
    "smollm3": (
        RMS,
        {"no_rope_layer_interval": 3},
        {"no_rope_layers": [0, 1, 1, 0], "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        {"use_sliding_window": True, "sliding_window": 8, "no_rope_layer_interval": 2},
    ),
    "stablelm": (
        LAYER_NORM,
        {"use_qkv_bias": True, **HALF},
        {"use_parallel_residual": True, "qk_layernorm": True, **HALF},
        {
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "qk_layernorm": True,
            "tie_word_embeddings": True,
            **rope(partial_rotary_factor=0.25),
        },
    ),
    "starcoder2": (
        {**PLAIN, "norm_epsilon": 0.02},
        {"sliding_window": 8},
        {"use_bias": False, "sliding_window": None, "hidden_act": "gelu", "tie_word_embeddings": False},
        {"sliding_window": 5, **LLAMA3},
    ),
}
