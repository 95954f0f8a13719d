"""Tokenizers of core in the form that transformers and mlx-lm read."""

from typing import Any

from lmx_core.data.tokenizers import ByteTokenizer
from lmx_hf.text.pieces import ALPHABET
from lmx_hf.text.settings import Settings
from lmx_hf.text.tokenizer import HFTokenizer

END = "<|end|>"
"""The name of byte 0. No text has it, and mlx-lm's trainer wants a token that ends texts."""


def hf_form(tokenizer: Any) -> HFTokenizer | None:
    """The tokenizer as one of Hugging Face, itself if it is one; None where it has no such form."""
    if isinstance(tokenizer, HFTokenizer):
        return tokenizer
    if isinstance(tokenizer, ByteTokenizer):
        return HFTokenizer(_of_bytes(), settings=Settings(roles={"eos_token": END}))
    return None


def _of_bytes() -> dict[str, Any]:
    """Tokens are the bytes of a text, and byte 0 ends one."""
    names = {END if byte == 0 else character: byte for byte, character in enumerate(ALPHABET)}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": END, **special}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": names, "merges": []},
    }
