"""A reward model: a language model whose head is one number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.errors import CheckpointError
from lmx_rl.rewards.frozen import Frozen, FrozenOptions

WEIGHT, BIAS = "score.weight", "score.bias"


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RewardModelOptions(FrozenOptions):
    """Options of `reward="model"`."""

    head: str
    """A safetensors file with `score.weight`, (1, D), and perhaps `score.bias`, (1,); D is the model's width. Checkpoints
    for sequence classification have them under these names, in the last of their files."""


class RewardModel:
    """`score.weight @ hidden + score.bias`, of what a frozen model's head would read at the last token of prompt and
    completion: arXiv:2203.02155, 3.4.

    None where there are no tokens, where the tokenizer has none for the text, and where it is longer than the model reads.
    `CheckpointError` where the head does not fit the model.
    """

    Options = RewardModelOptions

    def __init__(self, options: RewardModelOptions) -> None:
        self.frozen = Frozen(options)
        self.weight, self.bias = read_head(Path(options.head), self.frozen.model.config.block.d_model)

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        return self.all([prompt], [completion], [answer])[0]

    def all(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[Any]) -> list[float | None]:
        begun, follow = self.frozen.both(prompts, completions)
        rows = [None if a is None or b is None else [*a, *b] for a, b in zip(begun, follow, strict=True)]
        return self.frozen.at_the_end(rows, lambda hidden: hidden @ self.weight + self.bias)


def read_head(file: Path, width: int) -> tuple[array, array]:
    """Weight, (D,), and bias, ()."""
    try:
        found: Any = mx.load(str(file), format="safetensors")
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"the head of a reward model cannot be read from {file}: {error}") from None
    if WEIGHT not in found:
        raise CheckpointError(f"{file} has no {WEIGHT}. Name the file that has the head.")
    weight, bias = found[WEIGHT], found.get(BIAS, mx.zeros((1,)))
    if weight.shape != (1, width) or bias.shape != (1,):
        raise CheckpointError(
            f"{file} has {WEIGHT} {weight.shape} and {BIAS} {bias.shape}; the model asks for (1, {width}) and (1,)"
        )
    return weight[0].astype(mx.float32), bias[0].astype(mx.float32)
