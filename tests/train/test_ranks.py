"""Several processes sum, agree and notice when one of them is gone; one alone pays nothing."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import mlx.core as mx
import pytest

from lmx_core.errors import ConfigError
from lmx_core.train.parallel import ranks as module
from lmx_core.train.parallel.hosts import LAUNCHED, here
from lmx_core.train.parallel.ranks import from_environment, meeting

pytestmark = pytest.mark.once

RING = {"MLX_RANK": "1", "MLX_HOSTFILE": "/a/file"}
NCCL = {"MLX_RANK": "0", "MLX_WORLD_SIZE": "2", "NCCL_HOST_IP": "10.0.0.1", "NCCL_PORT": "12345"}
MPI = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}


def ranks_of(script, folder, count=2, seconds=60):
    """The (exit code, output) of each rank that runs a Python script on this machine."""
    with ExitStack() as held:
        started = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", script],
                env=os.environ | place.variables(Path(folder)) | {LAUNCHED: ""},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for place in here(count, held)
        ]
        try:
            outputs = [process.communicate(timeout=seconds)[0] for process in started]
        finally:
            for process in started:
                process.kill()
        return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


def test_alone_everything_is_ones_own(monkeypatch):
    """No collective is called, and what is summed is what was given."""
    monkeypatch.setattr(mx.distributed, "init", None)
    ranks = from_environment({})
    tree = {"a": mx.ones(3)}
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    assert ranks.sum(tree) is tree
    assert (ranks.any(True), ranks.any(False), ranks.max(7), ranks.of_first(0.1, 2.0)) == (True, False, 7, (0.1, 2.0))
    assert (ranks.text_of_first("x"), ranks.differing("x"), ranks.barrier(), ranks.waited) == ("x", [], None, 0.0)


@pytest.mark.parametrize(("said", "backend"), [({}, None), (RING, "ring"), (NCCL, "nccl"), (MPI, "mpi")])
def test_launchers_are_known_by_what_they_say(said, backend):
    assert meeting(said) == backend


def test_a_launcher_of_one_process_means_alone(tmp_path):
    """`mlx.launch -n 1` names a file of hosts that is empty, `mpirun -n 1` and NCCL a size of 1."""
    empty = tmp_path / "hosts.json"
    empty.write_text("\n")
    assert meeting({"MLX_RANK": "0", "MLX_HOSTFILE": str(empty)}) is None
    assert meeting(NCCL | {"MLX_WORLD_SIZE": "1"}) is None
    assert meeting(MPI | {"OMPI_COMM_WORLD_SIZE": "1"}) is None


def test_a_rank_that_cannot_meet_the_others_says_so(monkeypatch):
    with pytest.raises(ConfigError, match="MLX_RANK=1 says that there are other ranks, and nothing says where"):
        from_environment({"MLX_RANK": "1"})
    for name, value in RING.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="the ranks cannot meet through ring .* MLX_HOSTFILE=/a/file; unset it"):
        from_environment()


def test_small_arrays_travel_together(monkeypatch):
    """In buckets of one type and a limited size; a large array is alone."""
    monkeypatch.setattr(module, "BUCKET", 40)
    sizes = [(4, mx.float32), (2, mx.int32), (6, mx.float32), (1, mx.float32), (100, mx.float32), (3, mx.int32)]
    buckets = module._buckets([mx.zeros(size, dtype) for size, dtype in sizes])
    assert buckets == [[0, 2], [1, 5], [3], [4]]


SUMS = """
import mlx.core as mx, numpy as np
from lmx_core.train.parallel import ranks as module
module.BUCKET = 64
ranks = module.from_environment()
r = ranks.rank
tree = {
    "a": mx.arange(6.0).reshape(2, 3) * (r + 1), "b": (mx.array(r + 1), [mx.ones(40), mx.array(2.5)]), "c": {},
    "d": mx.ones(3, mx.bfloat16), "e": mx.zeros((0,)),
}
found = ranks.sum(tree)
assert mx.array_equal(found["a"], mx.arange(6.0).reshape(2, 3) * 3)
assert isinstance(found["b"], tuple) and found["b"][0].item() == 3 and found["b"][0].dtype == mx.int32
assert found["b"][1][0].tolist() == [2.0] * 40 and found["b"][1][1].item() == 5 and found["c"] == {}
assert found["d"].dtype == mx.bfloat16 and found["d"].tolist() == [2.0] * 3 and found["e"].size == 0
assert (ranks.any(r == 1), ranks.any(False), ranks.max(3 - r)) == (True, False, 3)
assert ranks.of_first(0.1 + r, -1e300, 2.0**53 + 2) == (0.1, -1e300, 2.0**53 + 2)
assert ranks.text_of_first("größer" if ranks.first else "another, which is longer") == "größer"
assert (ranks.differing("x"), ranks.differing(f"{r}")) == ([], [1])
ranks.barrier()
with ranks.first_goes_first():
    assert ranks.first or open("made").read() == "x"
    open("made", "w").write("x")
print("rank", r, "of", ranks.size, ranks.backend)
if r == 1:
    import os
    os.kill(os.getpid(), 9)
try:
    ranks.sum(mx.ones(3))
except module.LostRankError as error:
    print(error)
"""


def test_two_ranks_sum_and_agree(tmp_path):
    """Trees keep their shape and their types; a rank that is killed is an error of the sum that waits for it."""
    (first, said), (second, _) = ranks_of(SUMS, tmp_path)
    assert (first, second) == (0, -9), said
    assert "rank 0 of 2 ring" in said
    assert "rank 0 of 2 lost another rank ([ring]" in said
