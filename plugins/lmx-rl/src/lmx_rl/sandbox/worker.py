"""One template process, which runs one program at a time in forks of itself."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Generator
from pathlib import Path

from lmx_rl.sandbox import darwin
from lmx_rl.sandbox.child import values
from lmx_rl.sandbox.child.template import REPLY
from lmx_rl.sandbox.options import SandboxOptions
from lmx_rl.sandbox.protocol import Outcome, Program
from lmx_rl.sandbox.readable import readable
from lmx_rl.sandbox.request import packed
from lmx_rl.sandbox.transcript import Transcript
from lmx_rl.sandbox.watch import START, Watch

HERE = str(Path(__file__).parent)
BOOT = f"import sys; sys.path.insert(0, {HERE!r}); from child import template; del sys.path[0]; template.main()"

ENVIRONMENT = {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1"}
"""One arena: with one each a few threads have all the memory that there may be."""


class WorkerError(Exception):
    """The worker is of no more use; the program may be as good as any."""


class Worker:
    """Runs programs until `close`, or until it raises `WorkerError`."""

    def __init__(self, options: SandboxOptions, *, confined: bool) -> None:
        self._options = options
        self._confined = confined
        self.runs = 0
        """Programs that it has run."""
        self._directory = None if confined else tempfile.mkdtemp(prefix="lmx-sandbox-")
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START)
        with theirs:
            try:
                self._process = self._start(theirs.fileno())
            except OSError as error:
                self._control.close()
                _remove(self._directory)
                raise WorkerError(f"no process can be started ({error})") from error
        self.close = weakref.finalize(self, _end, self._process, self._control, self._directory)
        if self._hear(1) != b"r":
            self.close()
            raise WorkerError(f"its process ended as it started, with status {self._process.returncode}")

    def _start(self, control: int) -> subprocess.Popen[bytes]:
        settings = {
            "confined": self._confined,
            "folder": self._directory,
            "seconds": self._options.seconds,
            "memory": self._options.memory,
            "readable": readable() if self._confined else [],
        }
        command = [
            sys.executable,
            *(["-s", "-S", "-P", "-B"] if self._confined else []),
            "-c",
            BOOT,
            json.dumps(settings),
        ]
        return subprocess.Popen(
            darwin.wrapped(command) if self._confined and sys.platform == "darwin" else command,
            stdin=control,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory or "/",
            env=ENVIRONMENT if self._confined else None,
            start_new_session=True,
        )

    def run(self, program: Program) -> Outcome:
        """What becomes of it. Nothing of it is left when this returns."""
        self.runs += 1
        request = values.framed(
            {
                "source": program.source,
                "function": program.function,
                "calls": packed(program),
                "room": self._options.room,
            }
        )
        transcript = Transcript(len(program.calls), self._options.room)
        ours, theirs = socket.socketpair()
        printed, written = os.pipe()
        with ours, _closing(printed):
            with theirs, _closing(written):
                self._tell(b"r", theirs.fileno(), written)
            pid = self._number()
            try:
                if pid > 0:
                    ours.settimeout(START)
                    with contextlib.suppress(OSError):  # it is gone, or stuck before it began: nothing comes, then
                        ours.sendall(request)
                    Watch(self._options, transcript, pid).listen(ours, printed)
            finally:
                status = self._stop()
                _empty(self._directory)
        return transcript.outcome or _left(transcript, status)

    def interrupt(self) -> None:
        """From another thread: `run` ends with a `WorkerError`, and what it runs with it."""
        with contextlib.suppress(OSError):  # it is closed already
            self._control.shutdown(socket.SHUT_RDWR)

    def _tell(self, word: bytes, *files: int) -> None:
        try:
            socket.send_fds(self._control, [word], files)
        except OSError as error:
            raise self._lost() from error

    def _hear(self, size: int) -> bytes:
        try:
            return self._control.recv(size, socket.MSG_WAITALL)
        except OSError:
            return b""

    def _number(self) -> int:
        heard = self._hear(REPLY.size)
        if len(heard) < REPLY.size:
            raise self._lost()
        return REPLY.unpack(heard)[0]

    def _stop(self) -> int:
        self._tell(b"e")
        return self._number()

    def _lost(self) -> WorkerError:
        return WorkerError("its process is gone or does not answer")


@contextlib.contextmanager
def _closing(file: int) -> Generator[None]:
    try:
        yield
    finally:
        os.close(file)


def _left(transcript: Transcript, status: int) -> Outcome:
    """The outcome of a child that fell silent: it left, or was ended."""
    code = os.waitstatus_to_exitcode(status) if status >= 0 else 0
    if not transcript.ready:
        detail = "no process can be forked" if status < 0 else f"its process ended before it began, with status {code}"
        transcript.end("broken", detail)
    elif code == -signal.SIGKILL:
        transcript.end("failed", "it closed the channel, or was killed")
    elif code < 0:
        transcript.end("failed", f"it crashed ({signal.Signals(-code).name})")
    else:
        transcript.end("failed", f"it left with status {code}")
    assert transcript.outcome is not None
    return transcript.outcome


def _end(process: subprocess.Popen[bytes], control: socket.socket, directory: str | None) -> None:
    """The template kills what it runs and leaves once the socket is closed; it is killed where it does not."""
    control.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _remove(directory)


def _remove(directory: str | None) -> None:
    if directory:
        shutil.rmtree(directory, ignore_errors=True)


def _empty(directory: str | None) -> None:
    """Remove what a program that may write has left where it ran."""
    for entry in os.scandir(directory) if directory else ():
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
