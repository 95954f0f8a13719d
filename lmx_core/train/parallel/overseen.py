"""What a rank does for the `launch` that started it: heed signals, and end when others have."""

import os
import signal
import threading
import time
from collections.abc import Callable

import click

from lmx_core.train.parallel.hosts import LAUNCHED
from lmx_core.train.parallel.launch import LOST
from lmx_core.train.parallel.ranks import LostRankError, Ranks

HANGS = 2.0
"""Seconds for which a rank waits for one that is lost, if the backend does not say by itself that it is: NCCL never does,
a ring does to the neighbours of the lost rank."""

SAVES = 300.0
"""Seconds after which a rank that hangs ends, whether it could save the run or not."""


class Overseen:
    """Reads what the launcher writes to standard input, in a thread of its own; nothing in a process that has none.

    `signal N` is as if signal N arrived here. `lost R` says that rank R has ended: if `ranks` wait
    for it in vain, the process ends after a call of `rescue`. At the end of the input the launcher
    itself is gone: the run ends as on Ctrl-C.
    """

    def __init__(self) -> None:
        self.ranks: Ranks | None = None
        self.rescue: Callable[[LostRankError], LostRankError] | None = None
        if os.environ.get(LAUNCHED):
            threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        rest = b""
        while read := os.read(0, 4096):  # not sys.stdin, whose lock a thread must not hold when Python ends
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                word, _, number = line.decode().partition(" ")
                if word == "signal":
                    os.kill(os.getpid(), int(number))
                else:
                    threading.Thread(target=self._await_the_end, daemon=True).start()
        os.kill(os.getpid(), signal.SIGTERM)
        self._await_the_end()

    def _await_the_end(self) -> None:
        time.sleep(HANGS)
        while self.ranks is None or self.ranks.waited < HANGS:
            time.sleep(0.2)
        error = LostRankError(
            f"rank {self.ranks.rank} of {self.ranks.size} lost another rank, and waits for it in vain"
        )
        last = threading.Timer(SAVES, os._exit, [LOST])  # the device may wait for the lost rank, too
        last.daemon = True
        last.start()
        click.echo(f"Error: {self.rescue(error) if self.rescue else error}", err=True)
        os._exit(LOST)
