"""Processes that train one model together, through `mx.distributed`."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.core import array
from mlx.utils import tree_map

from lmx_core.errors import ConfigError, LmxError

BUCKET = 32 * 2**20
"""Bytes that are sent at once: small arrays travel together, large ones alone."""

MEET = 120
"""Seconds within which all ranks must have started."""
MEETINGS: Mapping[str, Sequence[str]] = {
    "ring": ("MLX_RANK", "MLX_HOSTFILE"),
    "nccl": ("MLX_RANK", "MLX_WORLD_SIZE", "NCCL_HOST_IP", "NCCL_PORT"),
    "jaccl": ("MLX_RANK", "MLX_IBV_DEVICES", "MLX_JACCL_COORDINATOR"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
}
"""The backends of `mx.distributed`, and what a launcher says to each rank in its environment."""


class LostRankError(LmxError):
    """Another rank no longer answers, so that nothing more can be summed. `saved` is the checkpoint made thereupon."""

    def __init__(self, message: str, saved: Path | None = None) -> None:
        super().__init__(message)
        self.saved = saved


class Ranks:
    """The ranks 0 to `size - 1`, of which this process is `rank`. Every rank calls the same methods in the same order.

    What they return is evaluated: a rank that was lost is an error (`LostRankError`) of the call, and never one of
    arrays that were made from its result. Alone, they cost nothing.
    """

    def __init__(self, group: mx.distributed.Group | None = None, backend: str | None = None) -> None:
        self.rank, self.size = (group.rank(), group.size()) if group else (0, 1)
        self.group, self.backend = group, backend
        self._since: float | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def waited(self) -> float:
        """Seconds for which this rank has been waiting for the others, as another thread sees it; 0 while it works."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def sum(self, tree: Any) -> Any:
        """A tree of the same shape with the sums of the ranks' arrays, which have the same shapes on all of them."""
        if self.size == 1:
            return tree
        leaves: list[array] = []
        tree_map(leaves.append, tree)
        sums: list[array] = [*leaves]
        mx.eval(leaves)  # so that what fails from here on is the connection
        with self.answering():
            for places in _buckets(leaves):
                flat = mx.concatenate([leaves[i].reshape(-1) for i in places])
                ends = np.cumsum([leaves[i].size for i in places])[:-1].tolist()
                parts = mx.split(mx.distributed.all_sum(flat, group=self.group), ends)
                for i, part in zip(places, parts, strict=True):
                    sums[i] = part.reshape(leaves[i].shape)
            mx.eval(sums)
        returned: Iterator[array] = iter(sums)
        return tree_map(lambda _: next(returned), tree)

    def any(self, flag: bool) -> bool:
        """Whether it holds on some rank."""
        return self.max(int(flag)) > 0

    def max(self, number: int) -> int:
        """The largest of the ranks' numbers, each below 2**31."""
        if self.size == 1:
            return number
        with self.answering():
            largest: Any = mx.distributed.all_max(mx.array(number, mx.int32), group=self.group).item()
        return largest

    def of_first(self, *numbers: float) -> tuple[float, ...]:
        """What these are on the first rank, to the bit: what clocks decide is decided there."""
        if self.size == 1:
            return numbers
        words = np.array(numbers, np.float64).view(np.uint32)
        with self.answering():
            summed = mx.distributed.all_sum(mx.array(words if self.first else np.zeros_like(words)), group=self.group)
            return tuple(np.array(summed).view(np.float64).tolist())

    def differing(self, text: str | bytes) -> list[int]:
        """The ranks whose text is not that of the first."""
        if self.size == 1:
            return []
        digest = hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()
        own = mx.array(np.frombuffer(digest, np.uint32))[None]
        with self.answering():
            digests = np.array(mx.distributed.all_gather(own, group=self.group))
        return [rank for rank in range(self.size) if (digests[rank] != digests[0]).any()]

    def text_of_first(self, text: str) -> str:
        """What the text is on the first rank."""
        if self.size == 1:
            return text
        own = np.frombuffer(text.encode() if self.first else b"", np.uint8)
        padded = np.zeros(self.max(own.size), np.uint32)
        padded[: own.size] = own
        return bytes(np.array(self.sum(mx.array(padded))).astype(np.uint8)).decode()

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.max(0)

    @contextmanager
    def first_goes_first(self) -> Generator[None, None, None]:
        """The others do the same only after it, and find what it has downloaded or prepared."""
        if not self.first:
            self.barrier()
        yield
        if self.first:
            self.barrier()

    @contextmanager
    def answering(self) -> Generator[None, None, None]:
        """Within it arrays are evaluated that need the other ranks."""
        self._since = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            raise LostRankError(f"rank {self.rank} of {self.size} lost another rank ({error})") from None
        finally:
            self._since = None


def _buckets(leaves: Sequence[array]) -> list[list[int]]:
    """Places of arrays that travel together: of one type, and of `BUCKET` bytes or a single array."""
    buckets: list[list[int]] = []
    open_ones: dict[Any, tuple[list[int], int]] = {}
    for i, leaf in enumerate(leaves):
        places, held = open_ones.get(leaf.dtype, ([], BUCKET))
        if held + leaf.nbytes > BUCKET:
            places, held = [], 0
            buckets.append(places)
        places.append(i)
        open_ones[leaf.dtype] = (places, held + leaf.nbytes)
    return buckets


def alone() -> Ranks:
    """One process, which initialises nothing."""
    return Ranks()


def from_environment(environment: Mapping[str, str] = os.environ) -> Ranks:
    """The ranks that `lmx train --nproc`, `mlx.launch` or `mpirun` started; alone if none of them did."""
    backend = meeting(environment)
    if backend is None:
        return alone()
    connect: Callable[..., mx.distributed.Group] = mx.distributed.init
    try:
        with _within(MEET):
            group = connect(strict=True, backend=backend)
    except (RuntimeError, ValueError) as error:
        said = ", ".join(f"{name}={environment[name]}" for name in MEETINGS[backend])
        raise ConfigError(
            f"the ranks cannot meet through {backend} ({error}). The environment says {said}; unset it to train alone."
        ) from None
    return Ranks(group, backend) if group.size() > 1 else alone()


def meeting(environment: Mapping[str, str]) -> str | None:
    """The backend through which the ranks of this environment meet, None if it knows no other rank."""
    for backend, names in MEETINGS.items():
        if all(environment.get(name) for name in names) and not _single(environment):
            return backend
    if environment.get("MLX_RANK", "0") == "0":
        return None
    raise ConfigError(
        f"MLX_RANK={environment['MLX_RANK']} says that there are other ranks, and nothing says where. Start all of them "
        "with lmx train --nproc, or with mlx.launch; or unset MLX_RANK to train alone."
    )


def _single(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started one process only: `mlx.launch -n 1` names a file of hosts that is empty."""
    file = Path(environment.get("MLX_HOSTFILE", os.devnull))
    counts = (environment.get(name) for name in ("MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"))
    return "1" in counts or (file.is_file() and not file.read_text().strip())


@contextmanager
def _within(seconds: int) -> Generator[None, None, None]:
    """End the process by SIGALRM if it takes longer: MLX waits without end, and lets no other thread of Python run."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    if ours:
        signal.alarm(seconds)
    try:
        yield
    finally:
        if ours:
            signal.alarm(0)
