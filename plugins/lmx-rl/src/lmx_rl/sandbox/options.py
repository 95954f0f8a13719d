"""What every sandbox can be told."""

import os

import attrs
from attrs import validators

from lmx_core.config import exact_types


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SandboxOptions:
    """Options of every `sandbox`."""

    seconds: float = attrs.field(default=3.0, validator=[validators.gt(0), validators.le(3600)])
    """How long a program may take, all its calls together; time that it waits for a busy processor is not counted."""
    memory_mb: int = attrs.field(default=256, validator=[validators.ge(1), validators.le(1 << 20)])
    """MB that a program may use beside what the interpreter takes."""
    output_kb: int = attrs.field(default=256, validator=[validators.ge(1), validators.le(1 << 16)])
    """kB that a program may print, and kB that all that it returns may take as text."""
    workers: int = attrs.field(default=0, validator=[validators.ge(0), validators.le(1024)])
    """Programs that run at once; 0 is one for every core."""
    recycle: int = attrs.field(default=1000, validator=validators.ge(1))
    """Programs after which a worker is replaced by a new one."""

    @property
    def memory(self) -> int:
        """`memory_mb` in bytes."""
        return 1_000_000 * self.memory_mb

    @property
    def room(self) -> int:
        """`output_kb` in bytes."""
        return 1000 * self.output_kb

    @property
    def at_once(self) -> int:
        """`workers`, counted."""
        return self.workers or cores()
