"""What a locked process may read: Python's standard library, and no package that was installed beside it."""

import functools
import os
import sysconfig

INSTALLED = ("site-packages", "dist-packages")


@functools.cache
def readable() -> list[str]:
    """Files and folders. The folders that hold them cannot be listed."""
    paths: list[str] = []
    for folder in sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}):
        if os.path.isdir(folder):
            paths += (entry.path for entry in os.scandir(folder) if entry.name not in INSTALLED)
    return sorted(os.path.realpath(path) for path in paths)
