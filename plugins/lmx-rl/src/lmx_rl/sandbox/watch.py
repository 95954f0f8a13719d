"""Listening to one child, until it is known what became of its program or nothing more can come."""

import os
import selectors
import socket
import time

from lmx_rl.sandbox import darwin
from lmx_rl.sandbox.options import SandboxOptions
from lmx_rl.sandbox.transcript import Transcript
from lmx_rl.sandbox.waiting import LONGEST, waited

START = 30.0
"""Seconds for what takes milliseconds on an idle machine: to start a template, to fork it, to kill a fork."""
LOOK = 0.02
"""Seconds between looks at the memory of a child, where its kernel does not hold it to a limit."""
PIECE = 1 << 16


class Watch:
    """Holds a child to its time and its output, by what can be seen of it from outside.

    Time is that on the wall less what the child, able to run, had to wait for a processor, where the system tells: on a
    busy machine a program is given as much as on an idle one.
    """

    def __init__(self, options: SandboxOptions, transcript: Transcript, pid: int) -> None:
        self._options = options
        self._transcript = transcript
        self._pid = pid
        self._room = options.room
        self._began: float | None = None
        self._until = time.monotonic() + START

    def listen(self, channel: socket.socket, printed: int) -> None:
        """Until the transcript has an outcome, or the channel is closed at the other end."""
        with selectors.PollSelector() as selector:
            selector.register(channel, selectors.EVENT_READ)
            selector.register(printed, selectors.EVENT_READ)
            while self._transcript.outcome is None:
                left = max(0.0, self._until - time.monotonic())
                for key, _ in selector.select(min(left, LOOK) if darwin.WATCHED else left):
                    data = _read(key.fd)
                    if key.fd != printed:
                        self._transcript.feed(data)
                        if not data:
                            return
                    elif data:
                        self._room -= len(data)
                    else:
                        selector.unregister(printed)
                self._judge()

    def _judge(self) -> None:
        now, seconds = time.monotonic(), self._options.seconds
        if self._transcript.ready and self._began is None:
            self._began, self._until = now, now + seconds
        if self._room < 0:
            self._transcript.end("output", f"it printed more than {self._options.output_kb} kB")
        if darwin.WATCHED and darwin.resident(self._pid) > self._options.memory:
            self._transcript.end("memory", f"it needs more than {self._options.memory_mb} MB")
        if now < self._until:
            return
        if self._began is None:
            self._transcript.end("broken", f"it could not be started within {START:g} s")
            return
        self._until = self._began + min(seconds + waited(self._pid, self._pid), LONGEST * seconds)
        if now >= self._until:
            self._transcript.end("time", f"it takes more than {seconds:g} s")


def _read(file: int) -> bytes:
    try:
        return os.read(file, PIECE)
    except OSError:  # the other side left what was sent to it unread
        return b""
