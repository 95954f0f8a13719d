"""A process that has loaded what programs need and forks one child for each. It reads nothing that a program wrote."""

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import struct
import sys
import time
from typing import Any

from . import harness, limits

FILES = 64
"""Open files of a program; the template has fewer."""
REPLY = struct.Struct("!i")
SWEEP = 5.0
"""Seconds after which orphans that go on multiplying are given up."""


def main() -> None:
    """Serve a socket at file 0. `r` with two files (channel, output) starts a program, and one byte ends it."""
    settings = json.loads(sys.argv[1])
    sys.argv[:] = [""]
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):
        os.dup2(nothing, file)
    os.close(nothing)
    harness.preload()
    if settings["confined"]:
        os.environ.clear()
    lock, children = limits.prepare(settings, FILES)
    gc.collect()
    gc.freeze()
    control.sendall(b"r")
    while _one(control, lock, children):
        pass
    if settings["folder"]:  # its maker may be gone
        shutil.rmtree(settings["folder"], ignore_errors=True)


def _one(control: socket.socket, lock: Any, children: int | None) -> bool:
    word, files, _, _ = socket.recv_fds(control, 1, 2)
    if not word:
        return False
    try:
        pid = os.fork()
    except OSError:
        pid = -1
    if pid == 0:
        _child(control, files, lock)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):  # the other side is gone: so the next read says
        control.sendall(REPLY.pack(pid))
    word = control.recv(1)
    status = _ended(pid, children) if pid > 0 else -1
    if word:
        control.sendall(REPLY.pack(status))
    return bool(word)


def _child(control: socket.socket, files: list[int], lock: Any) -> None:
    try:
        os.setsid()
        control.detach()
        channel, output = files
        channel, output = os.dup2(channel, FILES - 1), os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, channel)
        harness.serve(channel, lock)
    except BaseException:
        os._exit(70)
    finally:
        os._exit(0)


def _ended(pid: int, children: int | None) -> int:
    """Kill the program, its group and, where they are handed to this process, its orphans; the status it ended with."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    until = time.monotonic() + SWEEP
    while children is not None and time.monotonic() < until:
        for orphan in os.pread(children, 1 << 16, 0).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(orphan), signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.001)
            continue
        break
    return status
