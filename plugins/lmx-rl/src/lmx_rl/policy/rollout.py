"""Completions that a policy is learning from."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lmx_core.data.prompts import Prompt
from lmx_core.errors import CheckpointError
from lmx_core.evaluate import STRETCH

Arrays = dict[str, NDArray[Any]]
OLD, REFERENCE = "old_logps", "reference_logps"


@attrs.frozen(eq=False)
class Rollout:
    """N completions of at most M tokens."""

    number: int
    """Counted from 0 since the run began."""
    prompts: NDArray[np.int32]
    """(N,): places among the training prompts."""
    tokens: NDArray[np.int32]
    """(N, M), filled up with zeros."""
    lengths: NDArray[np.int32]
    """(N,)."""
    counts: NDArray[np.bool_]
    """(N,): whether anything is learned from it."""
    advantages: NDArray[np.float32]
    """(N,)."""
    logps: Mapping[str, NDArray[np.float32]] = attrs.field(factory=dict[str, NDArray[np.float32]])
    """(N, M) of each: by the policy that drew them as `old_logps`, by the reference as `reference_logps`."""

    def __len__(self) -> int:
        return len(self.prompts)

    def batch(self, rows: Sequence[int] | NDArray[Any], prompts: Sequence[Prompt], longest: int) -> Arrays:
        """Some of them, (B,): `inputs` (B, L), filled up behind; `starts` (B,), which of the inputs the first token of a
        completion follows; `targets` and `mask` (B, C), the completions; and what is known of them. L is at most `longest`.
        """
        chosen = np.asarray(rows)
        asked = [prompts[place].tokens for place in self.prompts[chosen].tolist()]
        lengths = self.lengths[chosen]
        starts = np.array([len(each) - 1 for each in asked], np.int32)
        width = _stretched(int(lengths.max()), self.tokens.shape[1])
        targets = self.tokens[chosen, :width]
        inputs = np.zeros((len(chosen), _stretched(int((starts + lengths).max()), longest)), np.int32)
        for row, (each, length) in enumerate(zip(asked, lengths.tolist(), strict=True)):
            inputs[row, : len(each)] = each
            inputs[row, len(each) : len(each) + length - 1] = targets[row, : length - 1]
        mask = (np.arange(width) < lengths[:, None]) & self.counts[chosen, None]
        known = {name: each[chosen, :width] for name, each in self.logps.items()}
        found = {"inputs": inputs, "starts": starts, "targets": targets, "mask": mask}
        return {**found, "advantages": self.advantages[chosen], **known}

    def saved(self) -> dict[str, mx.array]:
        """What `restored` makes it from again."""
        names = ("prompts", "tokens", "lengths", "counts", "advantages")
        arrays = {name: mx.array(getattr(self, name)) for name in names}
        return {
            "number": mx.array(self.number),
            **arrays,
            **{name: mx.array(each) for name, each in self.logps.items()},
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, mx.array]) -> "Rollout":
        """`CheckpointError` where something is missing."""
        found = {name: np.array(each) for name, each in arrays.items()}
        logps = {name: found.pop(name) for name in (OLD, REFERENCE) if name in found}
        try:
            return cls(int(found.pop("number")), **found, logps=logps)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the checkpoint's rollout is damaged ({error}). Start a new run.") from None


def _stretched(size: int, limit: int) -> int:
    """Filled up, so that few shapes are compiled."""
    return min(-(-size // STRETCH) * STRETCH, limit)
