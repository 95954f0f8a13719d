"""Programs run by Monty, an interpreter of a part of Python that has no files, no network and no processes."""

import builtins
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Generator, Sequence
from typing import Any

import attrs
from attrs import validators

from lmx_core.config import exact_types
from lmx_core.errors import ConfigError, LmxError
from lmx_rl.sandbox.child import values
from lmx_rl.sandbox.lacking import lacking
from lmx_rl.sandbox.obtained import reaches_nothing
from lmx_rl.sandbox.options import SandboxOptions
from lmx_rl.sandbox.protocol import Isolation, Outcome, Program
from lmx_rl.sandbox.request import packed, several
from lmx_rl.sandbox.transcript import Transcript
from lmx_rl.sandbox.waiting import LONGEST, all_waited

READY = values.framed(["ready"])
GRACE = 1.0
"""Seconds past its time after which an interpreter that does not look at the clock is killed."""
SUSPENSIONS = 1000
"""Names that a program may look up in vain."""
HARNESS = """
import collections as _lmx_collections
import json as _lmx_json

_lmx_before = _lmx_json

def _lmx_packed(value, depth, type=type, str=str, int=int, float=float, list=list, tuple=tuple, dict=dict, set=set,
                frozenset=frozenset, bytes=bytes, bool=bool, repr=repr, TypeError=TypeError,
                tables=(dict, _lmx_collections.Counter, _lmx_collections.defaultdict)):
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        if value > 9007199254740992 and value >= 10 ** 4300 or value < -9007199254740992 and value <= -(10 ** 4300):
            raise TypeError("it has an integer of more than 4300 digits")
        return value if -9007199254740992 <= value <= 9007199254740992 else {"i": f"{value:x}"}
    if kind is float:
        return value if value - value == 0 else {"f": repr(value)}
    if kind is bytes:
        return {"b": value.hex()}
    if depth == DEPTH:
        raise TypeError("it is nested more than DEPTH deep")
    if kind is list:
        return [_lmx_packed(item, depth + 1) for item in value]
    if kind is tuple:
        return {"t": [_lmx_packed(item, depth + 1) for item in value]}
    if kind is set:
        return {"s": [_lmx_packed(item, depth + 1) for item in value]}
    if kind is frozenset:
        return {"z": [_lmx_packed(item, depth + 1) for item in value]}
    if kind in tables:
        return {"d": [[_lmx_packed(key, depth + 1), _lmx_packed(item, depth + 1)] for key, item in value.items()]}
    raise TypeError(f"a {kind.__name__} is no plain value")

def _lmx_run(function, before, calls, said, room, packed=_lmx_packed, dumps=_lmx_json.dumps, type=type, str=str, len=len,
             BaseException=BaseException):
    if function is before:
        return said('["failed", "it defines no such function"]')
    said('["loaded"]')
    for args, kwargs in calls:
        try:
            frame = dumps(["value", packed(function(*args, **kwargs), 0)])
        except BaseException as error:
            frame = dumps(["error", (type(error).__name__ + ": " + str(error))[:500]])
        if len(frame) > room:
            return said('["output"]')
        said(frame)
""".replace("DEPTH", str(values.DEPTH))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MontyOptions(SandboxOptions):
    """Options of `sandbox="monty"`."""

    recursion: int = attrs.field(default=1000, validator=[validators.ge(10), validators.le(100_000)])
    """How deep functions may call one another."""


class Monty:
    """Pydantic's Monty, in worker processes.

    `unsupported` is what uses a part of Python that Monty lacks: classes that inherit, generators, most of the standard
    library. What is returned is read as text that the program's own process wrote, so that its types are exact.
    """

    Options = MontyOptions

    def __init__(self, options: MontyOptions | None = None) -> None:
        self.options = options or MontyOptions()
        self._lock = threading.Lock()
        self._tried = False
        self._busy: set[int] = set()
        self._pool: Any = None
        self._ending: weakref.finalize[..., Any] | None = None

    @property
    def isolation(self) -> Isolation:
        """That of an interpreter without files; LmxError where it does not run or has them after all."""
        if not self._tried:
            reaches_nothing(self)
            self._tried = True
        return Isolation.INTERPRETER

    def run(self, programs: Sequence[Program]) -> list[Outcome]:
        """What becomes of each, in order."""
        pool = self._open()
        return several(lambda program: self._one(pool, program), programs, self.options.at_once, self._interrupt)

    def close(self) -> None:
        """End the workers, those at work too."""
        with self._lock:
            ending, self._pool, self._ending = self._ending, None, None
        if ending:
            self._interrupt()
            ending()

    def _interrupt(self) -> None:
        """Programs that run end as `broken`; the pool, when it is closed, waits for them."""
        for pid in [*self._busy]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def _at_work(self, pid: int | None) -> Generator[None]:
        pids = {pid} if pid else set[int]()
        self._busy.update(pids)
        try:
            yield
        finally:
            self._busy.difference_update(pids)

    def _open(self) -> Any:
        with self._lock:
            if self._pool is None:
                try:
                    pool = _library().Monty(
                        max_processes=self.options.at_once,
                        max_checkouts_per_worker=self.options.recycle,
                        feed_duration_limit_grace=GRACE,
                    )
                    pool.__enter__()
                except OSError as error:
                    raise LmxError(f'sandbox "monty" does not start ({error}): pip install "lmx-rl[sandbox]"') from None
                self._pool, self._ending = pool, weakref.finalize(self, pool.__exit__, None, None, None)
            return self._pool

    def _one(self, pool: Any, program: Program) -> Outcome:
        """Monty's clock is the one on the wall: what had to wait for a processor is given that time, too."""
        seconds, longest = self.options.seconds, LONGEST * self.options.seconds
        limit = seconds
        while True:
            transcript, clock = Transcript(len(program.calls), self.options.room), _Clock()
            self._attempt(pool, program, transcript, limit, clock)
            outcome = _known(transcript)
            if outcome.status != "time" or limit - clock.waited > 0.9 * seconds or limit >= longest:
                return outcome
            limit = min(seconds + 2 * clock.waited, longest)

    def _attempt(self, pool: Any, program: Program, transcript: Transcript, limit: float, clock: "_Clock") -> None:
        transcript.feed(READY)
        printed = _Printed(self.options.room)
        try:
            if program.function.isidentifier():
                self._converse(pool, program, transcript, printed, limit, clock)
            else:
                transcript.end("failed", f"{program.function!r} is no name of a function")
        except _library().MontyError as error:
            _end(transcript, error, printed)
        except (RuntimeError, OSError, ValueError) as error:  # a pool that was closed, a worker that cannot be started
            transcript.end("broken", f"{type(error).__name__}: {error}")
        transcript.end("failed", "it did not make all its calls")

    def _converse(
        self, pool: Any, program: Program, transcript: Transcript, printed: "_Printed", limit: float, clock: "_Clock"
    ) -> None:
        name, calls = program.function, [[values.unpacked(part) for part in call] for call in packed(program)]
        with (
            pool.checkout(
                limits={
                    "max_feed_duration_secs": limit,
                    "max_total_sleep_secs": self.options.seconds,
                    "max_memory": self.options.memory,
                    "max_recursion_depth": self.options.recursion,
                    "max_suspensions": SUSPENSIONS + len(calls),
                },
                os_policy={"random_start": {"seed": 0}},
                assert_message_annotations=False,
            ) as session,
            clock.running(session.worker_pid),
            self._at_work(session.worker_pid),
        ):
            session.feed_run(HARNESS)
            if hasattr(builtins, name):  # which it is to define itself
                with contextlib.suppress(_library().MontyRuntimeError):
                    session.feed_run(f"_lmx_before = {name}")
            session.feed_run(
                f"{program.source}\n_lmx_run({name}, _lmx_before, _lmx_calls, _lmx_said, {self.options.room})",
                inputs={"_lmx_calls": calls},
                external_lookup={"_lmx_said": lambda said: transcript.feed(_frame(said))},
                print_callback=printed,
            )


class _Clock:
    """How long a worker has waited for a processor during a session."""

    waited = 0.0

    @contextlib.contextmanager
    def running(self, pid: int | None) -> Generator[None]:
        before = all_waited(pid) if pid else 0.0
        try:
            yield
        finally:
            self.waited = max(0.0, all_waited(pid) - before) if pid else 0.0


class _Printed:
    """Counts what a program prints, and stops it when it is too much."""

    def __init__(self, room: int) -> None:
        self.left = room

    def __call__(self, stream: str, text: str) -> None:
        self.left -= len(text.encode("utf-8", "replace"))
        if self.left < 0:
            raise RuntimeError("it prints too much")


def _frame(said: Any) -> bytes:
    text = said.encode("utf-8", "replace") if isinstance(said, str) else b""
    return values.HEADER.pack(min(len(text), 2**32 - 1)) + text


def _end(transcript: Transcript, error: Any, printed: _Printed) -> None:
    """What an error of Monty says of the program that it ended."""
    inner = error.exception()
    name, text = type(inner).__name__, str(inner)
    if printed.left < 0:
        transcript.end("output", "it printed more than it may")
    elif getattr(error, "timed_out", False) or (name == "TimeoutError" and "limit exceeded" in text):
        transcript.end("time", text)
    elif name == "MemoryError":
        transcript.end("memory", text)
    elif isinstance(error, _library().MontyCrashedError):
        transcript.end("broken", text)
    else:
        transcript.end("failed", f"{name}: {text}")


def _known(transcript: Transcript) -> Outcome:
    """The outcome, or that Monty lacks what one of the errors in it is about."""
    outcome = transcript.outcome
    assert outcome is not None
    errors = [outcome.detail, *(given.error for given in outcome.returned if given.error)]
    missing = next(filter(lacking, errors), None)
    return attrs.evolve(outcome, status="unsupported", detail=missing) if missing else outcome


def _library() -> Any:
    try:
        import pydantic_monty
    except ImportError:
        raise ConfigError('sandbox "monty" needs a package more: pip install "lmx-rl[sandbox]"') from None
    return pydantic_monty
