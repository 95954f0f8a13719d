"""Landlock: nothing of the file system but what is named, no TCP, and no signal to or abstract socket of an outsider.

https://docs.kernel.org/userspace-api/landlock.html. The rules stay for a process and all that it starts.
"""

import ctypes
import os
from collections.abc import Iterable
from typing import Any

CREATE, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # on every architecture
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights over files a version of Landlock knows of; those after 5 know as many."""
TCP = 0b11
SCOPES = 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def restrict(libc: Any, readable: Iterable[str]) -> bool:
    """Whether this process is now held to reading what lies at and beneath `readable`."""
    version = libc.syscall(CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rules = _Ruleset((1 << FILE_RIGHTS.get(version, 16)) - 1, TCP, SCOPES)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(libc, ruleset, path)
        return libc.syscall(RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(libc: Any, ruleset: int, path: str) -> None:
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE
        libc.syscall(ADD_RULE, ruleset, 1, ctypes.byref(_Beneath(rights, file)), 0)
    finally:
        os.close(file)
