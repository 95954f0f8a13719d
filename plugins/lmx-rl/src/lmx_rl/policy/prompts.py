"""Which prompts come next, and what a run knows of them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lmx_core.config import ComponentSpec
from lmx_core.construct import build
from lmx_core.data.corpus import DataConfig, tokenizer_of
from lmx_core.data.prompts import Prompt
from lmx_core.data.reading import shares_of
from lmx_core.errors import ConfigError, DataError
from lmx_core.protocols import Tokenizer
from lmx_rl.problems.curriculum import PassRate, PassRateOptions


@attrs.frozen(kw_only=True, eq=False)
class Prompts:
    """What a run asks."""

    tokenizer: Any
    train: Sequence[Prompt]
    validation: Sequence[Prompt]

    @property
    def identity(self) -> str:
        return digest(self.train)

    @property
    def held_out(self) -> dict[str, str]:
        return {"prompts": digest(self.validation)}

    @property
    def beginning(self) -> list[int]:
        """The first prompt that is held out."""
        return self.validation[0].tokens.tolist()

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(each.tokens) for each in (*self.train, *self.validation))

    def fingerprint(self) -> dict[str, Any]:
        return {
            "train_prompts": len(self.train),
            "train_sha256": self.identity,
            "validation_prompts": len(self.validation),
            "validation_sha256": digest(self.validation),
        }


def read_prompts(config: DataConfig, tokenizer: Tokenizer | None) -> Prompts:
    """The prompts of a dataset; `ConfigError` of one without any."""
    dataset = build("dataset", config.dataset)
    known = tokenizer_of(config, shares_of(dataset, config.dataset), tokenizer)
    return Prompts(
        tokenizer=known,
        train=_read(dataset, config.dataset, known, "train"),
        validation=_read(dataset, config.dataset, known, "validation"),
    )


def _read(dataset: Any, named: ComponentSpec, tokenizer: Any, split: str) -> list[Prompt]:
    if not hasattr(dataset, "prompts"):
        raise ConfigError(
            f"data.dataset={named} has no prompts, only texts: rewards are for answers to prompts. Choose another dataset."
        )
    found = [*dataset.prompts(tokenizer, split)]
    if not found:
        raise DataError(f"data.dataset={named} has no prompts for {split}")
    if any(not len(each.tokens) for each in found):
        raise DataError(f"data.dataset={named} has an empty prompt for {split}; a model continues at least one token")
    return found


def digest(prompts: Sequence[Prompt]) -> str:
    """Of what is asked and what is right, in this order."""
    found = hashlib.sha256()
    for each in prompts:
        found.update(np.asarray(each.tokens, np.int32).tobytes())
        found.update(f"{each.text!r} {each.answer!r}\n".encode())
    return found.hexdigest()


class Epochs:
    """All prompts in an order, then in another one, and so on; the seed and the epoch draw it."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.taken = count, seed, 0

    def choose(self, count: int, rng: np.random.Generator) -> list[int]:
        """Places of prompts; nothing is drawn from `rng`."""
        places = range(self.taken, self.taken + count)
        orders = {epoch: self._order(epoch) for epoch in {place // self.count for place in places}}
        self.taken += count
        return [int(orders[place // self.count][place % self.count]) for place in places]

    def tell(self, indices: Sequence[int], rewards: Sequence[Any] | NDArray[Any]) -> None:
        """What was earned changes nothing."""

    def saved(self) -> dict[str, mx.array]:
        return {"taken": mx.array(self.taken, mx.int64)}

    def restore(self, arrays: Mapping[str, mx.array]) -> None:
        taken: Any = arrays["taken"].item()
        self.taken = taken

    def _order(self, epoch: int) -> Any:
        return np.random.default_rng([self.seed, epoch]).permutation(self.count)


def order_of(prompts: Sequence[Prompt], options: PassRateOptions | None, seed: int) -> Epochs | PassRate:
    """What chooses prompts; `DataError` where one has no difficulty that a curriculum could go by."""
    if options is None:
        return Epochs(len(prompts), seed)
    difficulties = [each.about.get("difficulty") for each in prompts]
    if (first := next((i for i, each in enumerate(difficulties) if each is None), None)) is not None:
        raise DataError(
            f"prompt {first + 1} of the training data has no `difficulty`, by which a curriculum chooses. Add one to each "
            "row, or leave curriculum out."
        )
    return PassRate([float(each) for each in difficulties if each is not None], options)
