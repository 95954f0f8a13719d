"""Memory stays with a process that trains."""

import os
import subprocess
import sys

import mlx.core as mx
import pytest

FAULTS = """
import resource, sys
import mlx.core as mx
from lmx_core.train.heap import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
x = mx.ones((4_000_000,))
for i in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [x + j for j in range(5)]
    mx.eval(held)
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    mx.default_device() != mx.Device(mx.cpu) or "CS_GNU_LIBC_VERSION" not in os.confstr_names,
    reason="needs glibc, and MLX on a CPU",
)
def test_pages_are_not_cleared_again():
    """Five arrays of 16 MB that come and go: in the sixth round the system is asked for almost no page."""
    found = {
        mode: int(
            subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True).stdout
        )
        for mode in ("keep", "plain")
    }
    assert found["keep"] < 1000 < found["plain"]
