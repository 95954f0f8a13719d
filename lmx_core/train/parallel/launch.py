"""Starts the ranks of a run, and sees to it that they end together."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import click

from lmx_core.train.parallel.hosts import Place

LOST = 75
"""Exit code of a rank that ended because another one did."""
INTERRUPTED = 130
POLITE, PATIENT = 3.0, 600.0
"""Seconds after a rank was lost until the others are asked to end, which they do by themselves unless they are still
starting, and until they are killed."""
KEPT = 200
"""Lines of a rank's output that are shown if it fails."""


class Rank:
    """A process. What the first one writes is seen; of the others the last lines are kept."""

    def __init__(self, place: Place, arguments: Sequence[str], folder: Path, ended: "Queue[Rank]") -> None:
        self.number, self.remote = place.rank, place.host is not None
        output = None if self.number == 0 else subprocess.PIPE
        self.process = subprocess.Popen(
            place.command(arguments, folder),
            env=os.environ | ({} if self.remote else place.variables(folder)),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at the terminal is forwarded, and must not arrive twice
        )
        self.lines: deque[str] = deque(maxlen=KEPT)
        self.killed = False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        threading.Thread(target=self._await, args=[ended], daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.decode(errors="replace").rstrip())

    def _await(self, ended: "Queue[Rank]") -> None:
        self.process.wait()
        self.reader.join(timeout=1)  # what it has started may live on, and keep its output open
        ended.put(self)

    @property
    def code(self) -> int | None:
        """Its exit code, 128 + N after signal N, None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def tell(self, message: str) -> None:
        """A line for `Overseen` there."""
        with suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write(f"{message}\n".encode())
            self.process.stdin.flush()

    def signal(self, number: int) -> None:
        if self.remote:
            self.tell(f"signal {number}")
        elif self.code is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    @property
    def fate(self) -> str:
        code = self.process.returncode
        if self.killed:
            return "did not end and was killed"
        if code == -signal.SIGALRM:
            return "did not meet the other ranks"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def launch(places: Sequence[Place], arguments: Sequence[str]) -> int:
    """Run `lmx ARGUMENTS` at each place until all have ended; the exit code of the first that failed.

    Signals that end a run are forwarded. If a rank is lost, the others save their last step (`rescue`) and end.
    """
    ended: Queue[Rank] = Queue()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lmx-")))
        ranks: list[Rank] = []
        stack.callback(lambda: [rank.kill() for rank in ranks if rank.code is None])
        forwarded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in forwarded:
            before: Any = signal.signal(number, lambda number, _: [rank.signal(number) for rank in ranks])
            stack.callback(signal.signal, number, before)
        for place in places:
            ranks.append(Rank(place, arguments, folder, ended))
        return _verdict(_awaited(ranks, ended), len(places))


def _awaited(ranks: Sequence[Rank], ended: "Queue[Rank]") -> list[Rank]:
    """The ranks in the order in which they ended."""
    order: list[Rank] = []
    asked, lost = False, 0.0
    while len(order) < len(ranks):
        with suppress(Empty):
            order.append(ended.get(timeout=0.2))
            if order[-1].code not in (0, INTERRUPTED) and not lost:
                lost = time.monotonic()
                for rank in ranks:
                    rank.tell(f"lost {order[-1].number}")
        waited = time.monotonic() - lost if lost else 0.0
        left = [rank for rank in ranks if rank.code is None]
        if waited > PATIENT:
            for rank in left:
                rank.kill()
        elif waited > POLITE and not asked:
            asked = True
            for rank in left:
                rank.signal(signal.SIGTERM)
    return order


def _verdict(order: Sequence[Rank], count: int) -> int:
    """The exit code for all, after a word on whose fault it is."""
    failed = [rank for rank in order if rank.code]
    if not failed or all(rank.code == INTERRUPTED for rank in failed):
        return INTERRUPTED if failed else 0
    culprit = min(failed, key=lambda rank: (rank.code in (LOST, INTERRUPTED), order.index(rank)))
    first = next((rank for rank in failed if rank.number == 0), None)
    if first and first.code == culprit.code and first.code != LOST:
        culprit = first  # what all ranks find wrong is seen once
    savers = [rank for rank in sorted(failed, key=_number) if rank.code == LOST]
    for rank in [culprit] if culprit.number else savers[:1]:
        for line in list(rank.lines):
            if not line.startswith("[ring] "):  # of MLX, ten for each connection that is lost
                click.echo(f"rank {rank.number}: {line}", err=True)
    if culprit.number or culprit.process.returncode < 0:
        click.echo(f"Error: rank {culprit.number} of {count} {culprit.fate}.", err=True)
    sys.stderr.flush()
    return culprit.code or 1


def _number(rank: Rank) -> int:
    return rank.number
