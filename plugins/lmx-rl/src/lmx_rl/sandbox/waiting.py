"""How long others had to wait for a processor, so that a program is given as much on a busy machine as on an idle one."""

import contextlib
import os

LONGEST = 10
"""How many times its seconds a program may last that gets no processor."""


def waited(pid: int, thread: int) -> float:
    """Seconds that a thread, able to run, has not run; 0 where the system does not tell (Linux does)."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/task/{thread}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9
    return 0.0


def all_waited(pid: int) -> float:
    """The same of all threads of a process, of which one at a time has anything to do."""
    with contextlib.suppress(OSError):
        return sum(waited(pid, int(thread)) for thread in os.listdir(f"/proc/{pid}/task"))
    return 0.0
