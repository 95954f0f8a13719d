"""MLX's generator of random numbers, left as it was."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


@contextmanager
def drawing_apart(seed: int | None = None) -> Generator[None, None, None]:
    """What is drawn within it takes nothing from the numbers that follow; it comes from the seed where one is given.

    Also where a trace fails, which leaves the generator without a value.
    """
    state: Any = mx.random.state
    high, low = state[0].tolist()
    if seed is not None:
        mx.random.seed(seed)
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)  # a seed is the generator's key
