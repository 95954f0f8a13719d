"""Calls of rewards: in turn, in threads, or awaited in an event loop."""

import asyncio
import inspect
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import attrs

from lmx_core.errors import ConfigError
from lmx_rl.rewards.found import Call, Found, Interrupt, awaited, awaited_together, called, called_together

Waiting = Callable[[], Any]


@attrs.define(slots=False, eq=False)
class Calls:
    """Where rewards are called. The event loop and the threads begin when they are needed."""

    concurrency: int
    """Calls of one reward that are under way at once."""
    time_limit: float | None
    """Seconds that a call may take that is awaited."""

    def check(self, rewards: Sequence[Any]) -> None:
        """`ConfigError` where a time limit is given that no call has."""
        if self.time_limit is not None and not any(_is_awaited(each) for each in rewards):
            raise ConfigError(
                f"a time limit of {self.time_limit:g} s is for rewards with an async __call__, which can be left; none of "
                "these is. Leave it out, or have a reward of your own await what may hang."
            )

    def __attrs_post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"concurrency={self.concurrency}: at least one call is under way")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ConfigError(f"time_limit={self.time_limit}: a call takes some seconds; None sets no limit")

    @cached_property
    def threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.concurrency, thread_name_prefix="lmx-reward")

    @cached_property
    def loop(self) -> "Loop":
        return Loop()

    def of(self, rewards: Sequence[Any], calls: Sequence[Call]) -> list[list[Found]]:
        """What each reward finds of each call: first those are begun that need not be waited for."""
        futures: list[Future[Any]] = []
        try:
            begun = [self._begun(reward, calls, futures) for reward in rewards]
            here = [in_turn(reward, calls) if wait is None else [] for reward, wait in zip(rewards, begun, strict=True)]
            return [found if wait is None else _let_through(wait()) for found, wait in zip(here, begun, strict=True)]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _begun(self, reward: Any, calls: Sequence[Call], futures: list[Future[Any]]) -> Waiting | None:
        """What waits for a reward's calls; None where they are made in turn."""
        if hasattr(reward, "all"):
            if not _is_awaited(reward):
                return None
            futures.append(self.loop.begin(awaited_together(reward, calls, self.time_limit)))
            return futures[-1].result
        if _is_awaited(reward):
            room = asyncio.Semaphore(self.concurrency)
            own = [self.loop.begin(awaited(reward, call, room, self.time_limit)) for call in calls]
        elif getattr(reward, "concurrent", False):
            own = [self.threads.submit(called, reward, call) for call in calls]
        else:
            return None
        futures += own
        return lambda: [future.result() for future in own]

    def close(self) -> None:
        """End the loop and the threads; another call begins new ones."""
        if "loop" in vars(self):
            self.loop.close()
            del self.loop
        if "threads" in vars(self):
            self.threads.shutdown(cancel_futures=True)
            del self.threads


def in_turn(reward: Any, calls: Sequence[Call]) -> list[Found]:
    return called_together(reward, calls) if hasattr(reward, "all") else [called(reward, call) for call in calls]


def _let_through(found: Sequence[Any]) -> list[Found]:
    """Raises here what ended the program in the loop's thread, where it would end the loop alone."""
    for each in found:
        if isinstance(each, Interrupt):
            raise each.error
    return [*found]


class Loop:
    """An event loop in a thread of its own, so that it may be used where one runs already, and clients outlive a call."""

    def __init__(self) -> None:
        begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=(_held(begun),), name="lmx-rewards", daemon=True)
        self._thread.start()
        self._loop, stop = begun.result()
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, stop.set)

    def begin(self, call: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def close(self) -> None:
        self._stop()
        self._thread.join()


async def _held(begun: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    stop = asyncio.Event()
    begun.set_result((asyncio.get_running_loop(), stop))
    await stop.wait()


def _is_awaited(reward: Any) -> bool:
    return inspect.iscoroutinefunction(reward.all if hasattr(reward, "all") else reward.__call__)
