"""What one call of a reward comes to: a number, None, or what went wrong."""

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from lmx_core.errors import told

Call = tuple[str, str, Any]
"""Prompt, completion, answer."""


@attrs.frozen
class Failure:
    """A call that raised, took too long, or returned what is no reward."""

    message: str


@attrs.frozen
class Interrupt:
    """KeyboardInterrupt or SystemExit, on its way from a thread to the one who asked."""

    error: BaseException


Found = float | Failure | None


def called(reward: Any, call: Call) -> Found:
    try:
        return number(reward(*call))
    except Exception as error:
        return Failure(f"raised {told(error)}")


def called_together(reward: Any, calls: Sequence[Call]) -> list[Found]:
    """By the reward's `all`."""
    if not calls:
        return []
    try:
        return numbers(reward.all(*_columns(calls)), len(calls))
    except Exception as error:
        return [Failure(f"raised {told(error)}")] * len(calls)


async def awaited(reward: Any, call: Call, room: asyncio.Semaphore, limit: float | None) -> Found | Interrupt:
    async with room:
        return await _settled(reward(*call), number, limit)


async def awaited_together(reward: Any, calls: Sequence[Call], limit: float | None) -> Sequence[Found | Interrupt]:
    """By the reward's `all`."""
    if not calls:
        return []
    found = await _settled(reward.all(*_columns(calls)), lambda values: numbers(values, len(calls)), limit)
    return [found] * len(calls) if isinstance(found, Failure | Interrupt) else found


async def _settled(coroutine: Any, read: Callable[[Any], Any], limit: float | None) -> Any:
    """What is read of what it returns, `Failure` or `Interrupt`."""
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return read(await coroutine)
    except (Exception, asyncio.CancelledError) as error:
        return Failure(f"took more than {limit:g} s" if scope.expired() else f"raised {told(error)}")
    except BaseException as error:
        return Interrupt(error)


def numbers(values: Any, count: int) -> list[Found]:
    found = [number(value) for value in values]
    if len(found) != count:
        return [Failure(f"returned {len(found)} values for {count} completions")] * count
    return found


def number(value: Any) -> Found:
    """A finite float of what may stand for one: True, a Fraction, a scalar of NumPy or MLX."""
    if value is None:
        return None
    if inspect.iscoroutine(value):
        value.close()
        return Failure("returned a coroutine; a reward that is awaited has an async def __call__")
    if isinstance(value, str | bytes) or getattr(value, "ndim", 0):
        return Failure(f"returned {value!r:.60}, no number")
    try:
        found = float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, OverflowError):
        return Failure(f"returned {value!r:.60}, no number")
    return found if math.isfinite(found) else Failure(f"returned {found}")


def _columns(calls: Sequence[Call]) -> tuple[list[Any], ...]:
    prompts, texts, answers = zip(*calls, strict=True)
    return [*prompts], [*texts], [*answers]
