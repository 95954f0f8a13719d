"""macOS: Seatbelt keeps a process from the rest of the machine, and this process watches its memory.

The profile language has no public reference; `/System/Library/Sandbox/Profiles` are its examples.
"""

import ctypes
import functools
import sys
from pathlib import Path
from typing import Any

from lmx_rl.sandbox.readable import INSTALLED, readable

WATCHED = sys.platform == "darwin"  # a limit on address space is not kept there
CHILD = str(Path(__file__).parent / "child")
TASK_INFO = 4


class _TaskInfo(ctypes.Structure):
    """`struct proc_taskinfo` of `sys/proc_info.h`."""

    _fields_ = [("virtual", ctypes.c_uint64), ("resident", ctypes.c_uint64), ("rest", ctypes.c_byte * 80)]


def wrapped(command: list[str]) -> list[str]:
    """The command in a sandbox. It may fork, which a limit takes from the programs."""
    return ["/usr/bin/sandbox-exec", "-p", profile(sys.executable, sys.base_prefix), *command]


def profile(executable: str, prefix: str) -> str:
    """Reading of the interpreter and its library, and nothing else. The last rule that fits is the one that counts."""
    allowed = [prefix, str(Path(executable).parent.parent / "pyvenv.cfg"), CHILD, *readable()]
    rules = [
        "(version 1)",
        "(deny default)",
        '(import "system.sb")',
        "(deny network*)",
        "(deny mach-lookup)",
        "(allow process-fork)",
        f"(allow process-exec (literal {quoted(executable)}) (subpath {quoted(prefix)}))",
        "(allow signal (target same-sandbox))",
        "(allow sysctl-read)",
        "(allow file-read-metadata)",
        f"(allow file-read* {' '.join(f'(subpath {quoted(path)})' for path in allowed)})",
        *(f'(deny file-read-data (regex #"/{name}/"))' for name in INSTALLED),
        f"(allow file-read* (subpath {quoted(CHILD)}))",
        '(allow file-read* file-write-data (literal "/dev/null"))',
    ]
    return "\n".join(rules)


def quoted(text: str) -> str:
    """As the profile's language writes a string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where it is gone."""
    info = _TaskInfo()
    size = _libproc().proc_pidinfo(pid, TASK_INFO, ctypes.c_uint64(0), ctypes.byref(info), ctypes.sizeof(info))
    return info.resident if size == ctypes.sizeof(info) else 0


@functools.cache
def _libproc() -> Any:
    return ctypes.CDLL("/usr/lib/libproc.dylib")
