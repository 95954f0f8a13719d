"""Core's tokenizer `bytes` as a `tokenizer.json`."""

import json
from pathlib import Path
from typing import Any

from lmx_core.files import write_text
from lmx_hf.pieces import ALPHABET
from lmx_hf.settings import Settings
from lmx_hf.tokenizer import FILE

END = "<|end|>"
"""The name of byte 0. No text has it, and mlx-lm's trainer wants a token that ends texts."""


def write(folder: Path) -> None:
    """The files that transformers and mlx-lm read; tokens are the bytes of a text, and byte 0 ends one."""
    write_text(folder / FILE, json.dumps(tokenizer()))
    Settings(roles={"eos_token": END}).write(folder)


def tokenizer() -> dict[str, Any]:
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
