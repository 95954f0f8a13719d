"""Where the ranks of a run are started: on this machine, or on those of a file of hosts."""

import json
import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.errors import ConfigError

LAUNCHED = "LMX_LAUNCHED"
"""Tells a rank that `launch` started it, and with which options, for the commands that it suggests."""
THREADS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS")
FIRST_PORT, NCCL_PORT = 32323, 12345
"""Where the ranks of several machines listen; `mlx.launch` has the same."""


@attrs.frozen(kw_only=True)
class Place:
    """One rank: what its environment says, and the machine that it runs on, None for this one."""

    rank: int
    environment: Mapping[str, str]
    meeting: str = ""
    """What the file has that its MLX_HOSTFILE names, if it is to have one."""
    host: str | None = None

    def command(self, arguments: Sequence[str], folder: Path) -> list[str]:
        """The words that start `python -m lmx_core` there; files it needs are written to `folder` here."""
        python = [sys.executable, "-P", "-m", "lmx_core", *arguments]
        if self.host is None:
            return python
        known = {name: value for name, value in os.environ.items() if name.startswith("LMX_")}
        words = [f"{name}={shlex.quote(value)}" for name, value in (known | self.variables(folder)).items()]
        if self.meeting:
            words.append(f"MLX_HOSTFILE=<(printf %s {shlex.quote(self.meeting)})")
        script = f"cd {shlex.quote(str(Path.cwd()))} && {' '.join(words)} exec {shlex.join(python)}"
        return ["ssh", "-T", "-o", "LogLevel=ERROR", self.host, f"bash -c {shlex.quote(script)}"]

    def variables(self, folder: Path) -> dict[str, str]:
        """What the rank's environment has beside this process's own."""
        if not self.meeting or self.host is not None:
            return dict(self.environment)
        file = folder / "hosts.json"
        file.write_text(self.meeting)
        return {**self.environment, "MLX_HOSTFILE": str(file)}


def launched_with() -> str:
    """The option by which this run's ranks were started, with a space before it; nothing where it is alone."""
    return f" {options}" if (options := os.environ.get(LAUNCHED)) else ""


def here(count: int, held: ExitStack) -> list[Place]:
    """`count` ranks on this machine: one on each NVIDIA GPU, or side by side on the CPU, whose cores they share.

    Their ports stay taken until `held` is closed, so that no other process gets one of them meanwhile.
    """
    ports = _free_ports(count, held)
    common = {LAUNCHED: f"--nproc {count}"}
    if mx.cuda.is_available():
        _enough_gpus(count)
        meet = {"NCCL_HOST_IP": "127.0.0.1", "NCCL_PORT": str(ports[0]), "MLX_WORLD_SIZE": str(count)}
        return [
            Place(rank=rank, environment={**common, **meet, "MLX_RANK": str(rank), "CUDA_VISIBLE_DEVICES": device})
            for rank, device in zip(range(count), _devices(), strict=False)
        ]
    threads = str(max(1, cores() // count))
    common |= {name: threads for name in THREADS if name not in os.environ}
    meeting = json.dumps([[f"127.0.0.1:{port}"] for port in ports])
    return [
        Place(rank=rank, environment={**common, "MLX_RANK": str(rank)}, meeting=meeting if count > 1 else "")
        for rank in range(count)
    ]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[str]:
    """The GPUs that this process may use, in the words of CUDA_VISIBLE_DEVICES."""
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    return stated.split(",") if stated else [str(i) for i in range(mx.device_count(mx.DeviceType.gpu))]


def _enough_gpus(count: int) -> None:
    if count > len(_devices()):
        raise ConfigError(
            f"--nproc {count} needs {count} GPUs, one for each rank; this machine offers {len(_devices())}"
        )


def _free_ports(count: int, held: ExitStack) -> list[int]:
    ports: list[int] = []
    for _ in range(count):
        taken = held.enter_context(socket.socket())
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the rank that listens there says so, too
        taken.bind(("127.0.0.1", 0))
        ports.append(taken.getsockname()[1])
    return ports


def listed(file: Path) -> list[Place]:
    """The ranks of a file of hosts, in the format of `mlx.launch`: `[{"ssh": NAME, "ips": [IP]}, ...]`, or a table with
    these as `hosts`, and `backend` and `envs` (`["NAME=VALUE"]`). One rank each; a name that is there twice has two."""
    hosts, backend, stated = _read(file)
    if backend not in ("ring", "nccl"):
        raise ConfigError(
            f"{file} asks for the backend {backend!r}. lmx starts ring and nccl; run the others as "
            f"mlx.launch --hostfile {file} -- lmx train CONFIG, or as mpirun -n {len(hosts)} lmx train CONFIG"
        )
    if missing := [host["ssh"] for host in (hosts if backend == "ring" else hosts[:1]) if not host.get("ips")]:
        raise ConfigError(f'{file}: {", ".join(missing)} needs "ips", an address at which the other ranks reach it')
    common = {**stated, LAUNCHED: f"--hostfile {shlex.quote(str(file))}"}
    names = [host["ssh"] for host in hosts]
    places: list[Place] = []
    for rank, host in enumerate(hosts):
        own = {**common, "MLX_RANK": str(rank)}
        if backend == "nccl":
            own |= {"NCCL_HOST_IP": hosts[0]["ips"][0], "NCCL_PORT": str(NCCL_PORT), "MLX_WORLD_SIZE": str(len(hosts))}
            own |= {"CUDA_VISIBLE_DEVICES": str(names[:rank].count(host["ssh"]))}
        place = None if host["ssh"] == "127.0.0.1" else host["ssh"]
        places.append(Place(rank=rank, environment=own, meeting=_meeting(hosts, backend), host=place))
    return places


def _meeting(hosts: Sequence[Mapping[str, Any]], backend: str) -> str:
    if backend != "ring" or len(hosts) == 1:
        return ""
    counted = iter(range(FIRST_PORT, 2**16))
    return json.dumps([[f"{ip}:{next(counted)}" for ip in host["ips"]] for host in hosts])


def _read(file: Path) -> tuple[list[dict[str, Any]], str, dict[str, str]]:
    try:
        table: Any = json.loads(file.read_text(encoding="utf-8"))
        table = table if isinstance(table, dict) else {"hosts": table}
        hosts = [{"ssh": str(host["ssh"]), "ips": _addresses(host.get("ips", []))} for host in table["hosts"]]
        stated = dict(str(each).split("=", maxsplit=1) for each in table.get("envs", []))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{file} is no file of hosts ({type(error).__name__}: {error}). mlx.distributed_config writes one: "
            '[{"ssh": "node1", "ips": ["10.0.0.1"]}, {"ssh": "node2", "ips": ["10.0.0.2"]}]'
        ) from None
    if not hosts:
        raise ConfigError(f"{file} names no host")
    return hosts, table.get("backend") or ("nccl" if mx.cuda.is_available() else "ring"), stated


def _addresses(ips: Any) -> list[str]:
    if not isinstance(ips, list):
        raise TypeError(f'"ips" is a list of addresses, got {ips!r}')
    listed: list[Any] = ips
    return [str(ip) for ip in listed]
