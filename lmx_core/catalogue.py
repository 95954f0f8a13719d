"""What lmx's own plugins provide, so that the error about one that is missing can say what to install."""

from lmx_core.hookspecs import hookimpl

PROVIDERS = {
    "lmx-attn-mla": ("attention.mla", "config.deepseek", "config.deepseek_v3", "config.minicpm3"),
    "lmx-deltanet": (
        *("attention.deltanet", "attention.gated_deltanet", "attention.gated_linear_attention", "attention.kda"),
        *("attention.linear_attention", "cache.recurrent"),
        *("config.kimi_linear", "config.olmo_hybrid", "config.qwen3_5", "config.qwen3_next"),
    ),
    "lmx-ffn-moe": (
        *("config.dbrx", "config.glm4_moe", "config.gpt_oss", "config.granitemoe", "config.llama4"),
        *("config.minimax_m2", "config.mixtral", "config.olmoe", "config.phimoe", "config.qwen2_moe"),
        *("config.qwen3_moe", "ffn.latent_moe", "ffn.moe", "ffn.shared_moe"),
    ),
    "lmx-hf": (
        *("command.convert", "command.mlx-lm", "command.quantize", "command.upload", "dataset.hf", "tokenizer.hf"),
    ),
    "lmx-rl": (
        *("command.eval", "dataset.addition", "dataset.code_problems", "dataset.jsonl", "reward.code_tests"),
        *("reward.exact_match", "reward.format", "reward.length", "reward.likelihood", "reward.maths"),
        *("reward.model", "reward.numeric", "reward.regex", "reward.repetition", "reward.verdict"),
        *("sandbox.monty", "sandbox.process", "sandbox.unsafe", "trainer.cpo", "trainer.dpo", "trainer.grpo"),
        *("trainer.kto", "trainer.orpo", "trainer.sft", "trainer.simpo"),
    ),
}


@hookimpl
def lmx_missing(kind: str, name: str) -> str | None:
    return next((dist for dist, keys in PROVIDERS.items() if f"{kind}.{name}" in keys), None)
