"""One name for what PEFT, mlx-lm and checkpoints call differently."""

import re
from collections import defaultdict
from collections.abc import Iterable

from lmx_core.errors import did_you_mean
from lmx_hf.adapters.stored import SIDES

WRAPPERS = ("base_model", "model", "transformer", "language_model", "text_model", "module", "_orig_mod")
"""Parts that a model is put into; which of them a name begins with differs with who wrote it."""
SAME = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\bblock_sparse_moe\.input_linear\.weight$", "mlp.experts.gate_up_proj"),
        (r"\bblock_sparse_moe\.output_linear\.weight$", "mlp.experts.down_proj"),
        (r"\bblock_sparse_moe\.", "mlp."),
        (r"\bswitch_mlp\.fc1\.", "switch_mlp.up_proj."),
        (r"\bswitch_mlp\.fc2\.", "switch_mlp.down_proj."),
        (r"(?:\bexperts\.)?\bswitch_(?:mlp|glu)\.", "experts."),
        (r"\b(experts\.(?:\d+\.)?)w1\b", r"\1gate_proj"),
        (r"\b(experts\.(?:\d+\.)?)w2\b", r"\1down_proj"),
        (r"\b(experts\.(?:\d+\.)?)w3\b", r"\1up_proj"),
        (r"\b(experts\.(?:gate|up|gate_up|down)_proj)\.weight$", r"\1"),
        (r"^gpt_neox\.layers\.", "h."),
        (r"^gpt_neox\.", ""),
        (r"^embed_out\.", "lm_head."),
    )
]
HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "embeddings", "embedding")


def canonical(name: str) -> str:
    """Without wrappers, and with one spelling of experts and of the head."""
    parts = name.split(".")
    while len(parts) > 2 and parts[0] in WRAPPERS:
        del parts[0]
    name = ".".join(parts)
    for pattern, replacement in SAME:
        name = pattern.sub(replacement, name)
    return name


class Names:
    """A checkpoint's tensors by their canonical names."""

    def __init__(self, tensors: Iterable[str]) -> None:
        self.known = [name for name in tensors if not name.endswith(tuple(f".{side}" for side in SIDES))]
        self._exact = set(self.known)
        self._alike: dict[str, list[str]] = defaultdict(list)
        self._numbered: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name in self.known:
            self._alike[canonical(name)].append(name)
            self._numbered[numbers(name)].append(name)

    def find(self, name: str) -> list[str]:
        """The tensor of this name, or all those that differ from it in nothing but wrappers and spelling."""
        return [name] if name in self._exact else self._alike.get(canonical(name), [])

    def one(self, name: str) -> str | None:
        """The only one that `find` finds."""
        found = self.find(name)
        return found[0] if len(found) == 1 else None

    def experts(self, stem: str, leaf: str) -> list[str]:
        """The weights of experts that a checkpoint has one by one, in their order."""
        found: list[str] = []
        while each := self.one(f"{stem}.{len(found)}.{leaf}.weight"):
            found.append(each)
        return found

    def near(self, name: str) -> str:
        """Which was probably meant, of those of the same layer, as a sentence."""
        return did_you_mean(name, self._numbered.get(numbers(name), []))

    def head(self) -> list[str]:
        return self._alike.get(HEAD, [])

    def embedding(self) -> str | None:
        """The weight of token embeddings, if there is one alone."""
        found = [name for name in self.known if is_embedding(name.removesuffix(".weight"))]
        return found[0] if len(found) == 1 else None


def numbers(name: str) -> tuple[str, ...]:
    """Of layer and expert."""
    return tuple(re.findall(r"\d+", name))


def is_embedding(module: str) -> bool:
    return module.rpartition(".")[2] in EMBEDDINGS
