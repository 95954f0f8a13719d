"""Rows of prompts and answers: on which side each is."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def share(row: Mapping[str, Any]) -> float:
    """Where a row stands among all that could be there, from 0 to 1: equal texts, and answers to one prompt, together.

    `row` has some of `prompt`, `text`, and, where it has neither, `messages`, `chosen`: what comes before the last turn
    decides.
    """
    content = row.get("prompt") or row.get("text") or _asked(row.get("messages") or row.get("chosen")) or row
    if not isinstance(content, str):
        content = json.dumps(content, sort_keys=True, default=str)
    digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _asked(conversation: Any) -> Any:
    return conversation[:-1] if isinstance(conversation, list) else None
