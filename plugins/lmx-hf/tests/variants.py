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
DBRX = {**TOKENS, "d_model": 48, "n_heads": 4, "n_layers": 3, "max_seq_len": 64, **rope()}
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 6, "num_experts_per_tok": 2}
ROUTED = {"moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 3}
LATENT = {
    **RMS,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
}
LINEAR = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 3,
    **rope(partial_rotary_factor=0.25),
}
KIMI = {
    **{key: value for key, value in LATENT.items() if key not in ("q_lora_rank", "rope_parameters")},
    "moe_intermediate_size": 32,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "linear_num_heads": 3,
    "linear_head_dim": 8,
}
NO_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": None}}
LINEAR_TYPES = ["linear_attention", "full_attention", "linear_attention", "linear_attention"]
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
    "dbrx": (
        DBRX,
        {
            "attn_config": {"clip_qkv": 0.9, "kv_n_heads": 2, "rope_theta": 1234.0},
            "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 5, "moe_top_k": 3},
        },
        {
            "attn_config": {"clip_qkv": 4, "kv_n_heads": 4, "rope_theta": 1234.0},
            "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 4, "moe_normalize_expert_weights": None},
        },
    ),
    "deepseek_v2": (
        {**LATENT, **ROUTED},
        {"n_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.7, **yarn()},
        {
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "n_shared_experts": 1,
            "routed_scaling_factor": 0.6,
            **yarn(mscale=0.707, mscale_all_dim=0.707),
        },
        {
            "q_lora_rank": None,
            "attention_bias": True,
            "n_shared_experts": 1,
            "first_k_dense_replace": 2,
            "num_experts_per_tok": 1,
            "tie_word_embeddings": True,
        },
    ),
    "deepseek_v3": (
        {**LATENT, **ROUTED},
        {"n_group": 2, "topk_group": 1, "routed_scaling_factor": 1.8, **yarn(mscale=1.0, mscale_all_dim=0.7)},
        {
            "q_lora_rank": None,
            "rope_interleave": False,
            "attention_bias": True,
            "norm_topk_prob": False,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 2,
            "first_k_dense_replace": 0,
            "tie_word_embeddings": True,
        },
        {"n_group": 4, "topk_group": 2, "first_k_dense_replace": 2, "num_experts_per_tok": 1, "v_head_dim": 24},
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
    "glm4_moe": (
        {**RMS, **ROUTED},
        {
            "head_dim": 16,
            "use_qk_norm": True,
            "attention_bias": True,
            "n_group": 2,
            "topk_group": 1,
            "routed_scaling_factor": 1.8,
            **HALF,
        },
        {
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": False,
            "n_shared_experts": 2,
            "first_k_dense_replace": 2,
            "tie_word_embeddings": True,
            **rope(partial_rotary_factor=0.34),
        },
        {"head_dim": 16, "first_k_dense_replace": 0, "num_experts_per_tok": 1, **HALF},
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
    "gpt_oss": (
        {**RMS, "num_local_experts": 5, "intermediate_size": 40, "head_dim": 16},
        {"num_experts_per_tok": 2, "sliding_window": 8, "swiglu_limit": 0.9, **yarn(truncate=False)},
        {
            "num_experts_per_tok": 3,
            "sliding_window": 6,
            "swiglu_limit": 0.3,
            "layer_types": TYPES,
            "attention_bias": False,
            "tie_word_embeddings": True,
        },
        {"num_experts_per_tok": 1, "sliding_window": 5, "layer_types": ["full_attention"] * 4},
    ),
    "gptj": (GPT, {"rotary_dim": 8, "n_inner": 80}, {"rotary_dim": 4, "activation_function": "gelu"}),
    "granite": (
        RMS,
        {"attention_multiplier": 0.4, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.6},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    ),
    "granitemoe": (
        {**RMS, "intermediate_size": 40, "num_local_experts": 6},
        {"attention_multiplier": 0.4, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.6},
        {"attention_bias": True, "num_experts_per_tok": 1, "tie_word_embeddings": True},
        {"num_experts_per_tok": 4, **LLAMA3},
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
    "kimi_linear": (
        KIMI,
        {"layer_types": LINEAR_TYPES, "routed_scaling_factor": 1.8, "linear_conv_kernel_dim": 3},
        {
            "num_hidden_layers": 5,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": False,
            "n_shared_experts": 2,
            "mlp_layer_types": ["dense", "dense", "sparse", "sparse", "sparse"],
            "tie_word_embeddings": True,
        },
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
    "llama4_text": (
        {**RMS, "intermediate_size": 40, "intermediate_size_mlp": 80, "num_local_experts": 4, "floor_scale": 4},
        {
            "head_dim": 16,
            "attention_chunk_size": 8,
            "attn_scale": 0.3,
            "no_rope_layer_interval": 2,
            "interleave_moe_layer_step": 2,
            **LLAMA3,
        },
        {
            "head_dim": 16,
            "attention_chunk_size": 6,
            "attn_temperature_tuning": False,
            "use_qk_norm": False,
            "no_rope_layers": [0, 1, 1, 0],
            "moe_layers": [0, 3],
            "num_experts_per_tok": 2,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
        {
            "head_dim": 16,
            "attention_chunk_size": 32,
            **rope(
                "llama3", factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0, original_max_position_embeddings=32
            ),
        },
    ),
    "minicpm3": (
        LATENT,
        {"scale_emb": 3, "scale_depth": 1.1, "dim_model_base": 24},
        {
            "q_lora_rank": None,
            "v_head_dim": None,
            "attention_bias": True,
            "mlp_bias": True,
            "scale_emb": 2.5,
            "scale_depth": None,
            "dim_model_base": None,
            "tie_word_embeddings": False,
            **rope(
                "longrope",
                short_factor=[1.0, 1.1, 1.2, 1.3],
                long_factor=[2.0, 2.7, 3.4, 4.1],
                original_max_position_embeddings=16,
            ),
        },
    ),
    "minimax_m2": (
        {**RMS, "intermediate_size": 40, "num_local_experts": 6},
        {"head_dim": 16, "num_experts_per_tok": 2, **HALF},
        {"head_dim": 12, "num_experts_per_tok": 1, "tie_word_embeddings": True},
        {"head_dim": 16, "num_experts_per_tok": 4, **rope(partial_rotary_factor=0.25)},
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
    "mixtral": (
        {**RMS, "num_local_experts": 5},
        {"head_dim": 16, "sliding_window": 8},
        {"num_experts_per_tok": 1, "tie_word_embeddings": True},
        {"num_experts_per_tok": 3, "num_key_value_heads": 4, **LLAMA3},
    ),
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
    "olmo_hybrid": (
        RMS,
        {
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 12,
            **NO_ROPE,
        },
        {"layer_types": LINEAR_TYPES, "linear_allow_neg_eigval": False, "linear_conv_kernel_dim": 3},
        {
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 6,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "olmoe": (
        {**RMS, "intermediate_size": 40, "num_experts": 6},
        {"clip_qkv": 0.9, "num_experts_per_tok": 2},
        {"norm_topk_prob": True, "num_experts_per_tok": 3, "attention_bias": True, "tie_word_embeddings": True},
        {"num_experts_per_tok": 1, "num_key_value_heads": 4, **LLAMA3},
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
    "phimoe": (
        {**RMS, "intermediate_size": 40, "num_local_experts": 12},
        {"attention_bias": True, "lm_head_bias": True, "router_jitter_noise": 0.2},
        {
            "sliding_window": 8,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 48,
            **rope(
                "longrope",
                short_factor=SHORT,
                long_factor=LONG,
                original_max_position_embeddings=48,
                short_mscale=1.3,
                long_mscale=1.3,
            ),
        },
    ),
    "qwen2": (
        RMS,
        {"sliding_window": 5},
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "tie_word_embeddings": True},
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": TYPES},
    ),
    "qwen2_moe": (
        {**RMS, **EXPERTS, "shared_expert_intermediate_size": 56},
        {"mlp_only_layers": [1]},
        {"norm_topk_prob": True, "qkv_bias": False, "decoder_sparse_step": 2, "tie_word_embeddings": True},
        {"num_experts_per_tok": 1, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        {
            "num_experts_per_tok": 4,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": TYPES,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
        },
    ),
    "qwen3": (
        RMS,
        {"head_dim": 16},
        {"head_dim": 16, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True, **yarn()},
    ),
    "qwen3_5_moe_text": (
        {**RMS, **EXPERTS, **LINEAR, "shared_expert_intermediate_size": 24},
        {},
        {"layer_types": LINEAR_TYPES, "num_experts_per_tok": 1, "attention_bias": True, "tie_word_embeddings": True},
    ),
    "qwen3_5_text": (
        {**RMS, **LINEAR},
        {},
        {
            "layer_types": LINEAR_TYPES,
            "linear_num_value_heads": 2,
            "attention_bias": True,
            "tie_word_embeddings": True,
            **rope(partial_rotary_factor=0.5),
        },
    ),
    "qwen3_moe": (
        {**RMS, **EXPERTS, "head_dim": 16},
        {"mlp_only_layers": [0]},
        {"norm_topk_prob": True, "decoder_sparse_step": 3, "attention_bias": True, "tie_word_embeddings": True},
        {"norm_topk_prob": True, "num_experts_per_tok": 1, "use_sliding_window": True, "sliding_window": 8},
        {"num_experts_per_tok": 5, **yarn()},
    ),
    "qwen3_next": (
        {**RMS, **EXPERTS, **LINEAR, "shared_expert_intermediate_size": 24},
        {"norm_topk_prob": False, "decoder_sparse_step": 2},
        {
            "layer_types": LINEAR_TYPES,
            "linear_num_value_heads": 2,
            "linear_conv_kernel_dim": 4,
            "attention_bias": True,
            "mlp_only_layers": [0],
            "num_experts_per_tok": 1,
            "tie_word_embeddings": True,
        },
        {"linear_num_key_heads": 1, "linear_value_head_dim": 8, "layer_types": ["linear_attention"] * 3 + TYPES[:1]},
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
