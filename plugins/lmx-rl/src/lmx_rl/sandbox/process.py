"""Programs in processes of their own, run by CPython."""

import contextlib
import queue
import threading
from collections.abc import Sequence

import attrs

from lmx_core.config import exact_types
from lmx_rl.sandbox.obtained import obtained
from lmx_rl.sandbox.options import SandboxOptions
from lmx_rl.sandbox.protocol import Isolation, Outcome, Program
from lmx_rl.sandbox.request import several
from lmx_rl.sandbox.worker import Worker, WorkerError


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ProcessOptions(SandboxOptions):
    """Options of `sandbox="process"`."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class UnsafeOptions(SandboxOptions):
    """Options of `sandbox="unsafe"`. `memory_mb` is not looked at."""


class Process:
    """A CPython process for each program, without environment, files, network and other processes.

    A worker is an interpreter that has loaded much of the standard library and gives up, by itself, whatever a program is
    not to have: on Linux through Landlock and capabilities, on macOS through Seatbelt. Each program runs in a fork of it,
    which first gives up the system calls that computing does not need (seccomp), and is killed with all that it started.
    """

    Options = ProcessOptions
    confined = True

    def __init__(self, options: SandboxOptions | None = None) -> None:
        self.options = options or self.Options()
        self._idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(self.options.at_once):
            self._idle.put(None)
        self._busy: set[Worker] = set()
        self._isolation: Isolation | None = None
        self._lock = threading.Lock()

    @property
    def isolation(self) -> Isolation:
        """What a program found that it could reach, when this was first asked."""
        with self._lock:
            if self._isolation is None:
                self._isolation = obtained(self)
            return self._isolation

    def run(self, programs: Sequence[Program]) -> list[Outcome]:
        """What becomes of each, in order."""
        return several(self._one, programs, self.options.at_once, self._interrupt)

    def close(self) -> None:
        """End the workers that are not at work."""
        found: list[Worker | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._idle.get_nowait())
        for worker in found:
            if worker:
                worker.close()
            self._idle.put(None)

    def _interrupt(self) -> None:
        for worker in [*self._busy]:
            worker.interrupt()

    def _one(self, program: Program) -> Outcome:
        worker, fit = self._idle.get(), False
        try:
            worker = worker or Worker(self.options, confined=self.confined)
            self._busy.add(worker)
            outcome = worker.run(program)
            fit = worker.runs < self.options.recycle
            return outcome
        except WorkerError as error:
            return Outcome(status="broken", detail=f"{error}")
        finally:
            if worker:
                self._busy.discard(worker)
            if worker and not fit:
                worker.close()
            self._idle.put(worker if fit else None)


class Unsafe(Process):
    """A process for each program that may do whatever this one may, with its environment and the packages installed.

    It is killed when its time is up, and with it what it started, where the system tells what that is.
    """

    Options = UnsafeOptions
    confined = False

    @property
    def isolation(self) -> Isolation:
        """None at all."""
        return Isolation.NONE
