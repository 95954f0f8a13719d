"""What the kernel is asked to keep from a program. Each lock is taken where it exists; whether they hold is tried out."""

import contextlib
import ctypes
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from . import landlock, seccomp

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38


def prepare(settings: dict[str, Any], files: int) -> tuple[Callable[[], None], int | None]:
    """Lock this process, and give what locks a fork of it, and the file that lists the children handed to it."""
    linux = sys.platform == "linux"
    libc = ctypes.CDLL(None, use_errno=True) if linux else None
    children = _reaper(libc)
    base = _address_space() if linux else 0
    program = None
    if settings["confined"] and libc:
        _drop_capabilities(libc)
        seccomp.control(libc, PR_SET_NO_NEW_PRIVS, 1)
        if not landlock.restrict(libc, settings["readable"]):
            _nowhere()
        program = seccomp.compiled(libc)

    def lock() -> None:
        if libc:
            seccomp.control(libc, PR_SET_PDEATHSIG, signal.SIGKILL)
        if not settings["confined"]:
            return
        _limit(settings, files, base)
        if libc and program:
            seccomp.install(libc, program)
        else:
            _set(resource.RLIMIT_NPROC, 0)

    return lock, children


def _limit(settings: dict[str, Any], files: int, base: int) -> None:
    if base:
        _set(resource.RLIMIT_AS, base + settings["memory"])
    _set(resource.RLIMIT_CPU, math.ceil(settings["seconds"]) + 1)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_NOFILE, files)


def _set(which: int, limit: int) -> None:
    hard = resource.getrlimit(which)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (limit, limit))


def _nowhere() -> None:
    """Work in a folder that is gone: nothing can be made in it."""
    folder = tempfile.mkdtemp(prefix="lmx-sandbox-")
    os.chdir(folder)
    os.rmdir(folder)


def _reaper(libc: Any) -> int | None:
    """Orphans become this process's children, where Linux lists them."""
    if libc and seccomp.control(libc, PR_SET_CHILD_SUBREAPER, 1) == 0:
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    return None


def _address_space() -> int:
    """Bytes that are mapped already."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _drop_capabilities(libc: Any) -> None:
    """Root without its powers; for other users there are none to drop."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())
