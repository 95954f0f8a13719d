"""What a policy wrote while it learned, as a table."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lmx_core.errors import CheckpointError
from lmx_core.files import write_text
from lmx_core.train.callback import COMPLETIONS
from lmx_core.train.history import whole_lines
from lmx_rl.policy.groups import Asking, Groups


def forget_later(run: Path, step: int) -> None:
    """Drop the lines of steps that are taken again."""
    file = run / COMPLETIONS
    if file.exists():
        kept = [text for text, line in whole_lines(file) if line["step"] <= step]
        write_text(file, "".join(f"{line}\n" for line in kept))


def write_down(run: Path, step: int, asking: Asking, prompts: Any, groups: Groups, advantages: Any) -> None:
    """A line for each completion of the groups, of the rollout that a step begins."""
    lines: list[str] = []
    for g, k in np.ndindex(*groups.lengths.shape):
        asked = prompts[int(groups.prompts[g])]
        each = dict(zip(asking.names, map(_number, groups.each[g, k].tolist()), strict=True))
        length = int(groups.lengths[g, k])
        line = {
            "step": step,
            "prompt": asked.text,
            "completion": asking.text(groups.tokens[g, k, :length].tolist()),
            "answer": asked.answer,
            "reward": _number(groups.rewards[g, k].item()),
            "rewards": each,
            "advantage": _number(float(advantages[g, k])),
            "tokens": length,
            "truncated": not groups.ended[g, k],
        }
        lines.append(json.dumps(line, default=str))
    try:
        with (run / COMPLETIONS).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise CheckpointError(
            f"could not write {run / COMPLETIONS}: {error.strerror}. train.trainer.log_completions writes fewer."
        ) from None


def _number(value: float) -> float | None:
    """JSON has no NaN; float32 as it is written in decimal."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
