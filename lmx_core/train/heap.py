"""Memory that a training step frees, for the next one."""

import ctypes
import sys
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_memory() -> bool:
    """Have the allocator give up to 2 GiB back to nobody; whether it can.

    On a CPU MLX allocates each array anew. glibc returns large ones to the system at once, which then clears every page
    again: a tenth of a step's time, and more beside other load.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, 2**31 - 1), mallopt(TOP_PAD, 2**26)])
