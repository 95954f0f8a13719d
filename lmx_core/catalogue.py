"""What lmx's own plugins provide, so that the error about one that is missing can say what to install."""

from lmx_core.hookspecs import hookimpl

PROVIDERS = {
    "lmx-attn-mla": ("attention.mla",),
    "lmx-deltanet": ("attention.gated_deltanet", "cache.recurrent"),
    "lmx-ffn-moe": ("ffn.moe",),
    "lmx-hf": ("tokenizer.hf",),
    "lmx-rl": ("reward.exact_match", "reward.length", "reward.numeric", "reward.regex"),
}


@hookimpl
def lmx_missing(kind: str, name: str) -> str | None:
    return next((dist for dist, keys in PROVIDERS.items() if f"{kind}.{name}" in keys), None)
