"""What a sandbox keeps from a program, found by a program that tries it."""

import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from lmx_core.errors import LmxError
from lmx_rl.sandbox.protocol import Call, Isolation, Outcome, Program

ATTEMPTS = """
import os, signal, socket, subprocess, sys

def attempts(file, folder, pid):
    def read():
        open(file).read()

    def write():
        open(os.path.join(folder, "written"), "w")

    def own_folder():
        open("written", "w")

    def listing():
        os.listdir("/")

    def network():
        with socket.socket() as made:
            made.bind(("127.0.0.1", 0))
            made.listen()

    def sending():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.sendto(b"x", ("127.0.0.1", 9))

    def another():
        os.kill(pid, 0)

    def fork():
        if os.fork() == 0:
            os._exit(0)

    def run():
        subprocess.run([sys.executable, "-c", ""], check=True)

    reached = []
    for attempt in (read, write, own_folder, listing, network, sending, another, fork, run):
        try:
            attempt()
        except OSError:
            continue
        except Exception:
            pass
        reached.append(attempt.__name__)
    return reached
"""
READS = """
def reads(file):
    try:
        return open(file).read()
    except Exception:
        return ""
"""


@runtime_checkable
class Runs(Protocol):
    """The part of a sandbox that is needed here."""

    def run(self, programs: Sequence[Program]) -> list[Outcome]: ...


def obtained(sandbox: Runs) -> Isolation:
    """`SYSTEM` where nothing outside was reached, `PROCESS` where something was. LmxError where nothing runs."""
    with _outside() as (secret, folder):
        reached = _given(sandbox, "process", ATTEMPTS, "attempts", secret, folder, os.getpid())
    return Isolation.PROCESS if reached else Isolation.SYSTEM


def reaches_nothing(sandbox: Runs) -> None:
    """LmxError where an interpreter does not run, or lets a program read a file."""
    with _outside() as (secret, _):
        if _given(sandbox, "monty", READS, "reads", secret):
            raise LmxError('sandbox "monty" lets programs read files, as none does that lmx-rl was made for.')


@contextmanager
def _outside() -> Generator[tuple[str, str]]:
    """A file, and the folder that it is in."""
    with tempfile.TemporaryDirectory(prefix="lmx-sandbox-") as folder:
        secret = os.path.join(folder, "secret")
        with open(secret, "w") as file:
            file.write("secret")
        yield secret, folder


def _given(sandbox: Runs, name: str, source: str, function: str, *args: Any) -> Any:
    (outcome,) = sandbox.run([Program(source=source, function=function, calls=[Call(args=args)])])
    if outcome.status != "done" or outcome.returned[0].error:
        said = outcome.detail or outcome.returned[0].error
        raise LmxError(f'sandbox "{name}" does not run here ({said}). Without isolation there is sandbox "unsafe".')
    return outcome.returned[0].value
