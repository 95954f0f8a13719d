"""How long it takes to find out what is installed, beside the floor of opening and reading the files.

Synthetic distributions in one directory; each figure is the median of fresh processes. The import of lmx's registry and of
the metadata library is not counted. `python -P benchmarks/bench_discovery.py [--json]`
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

COUNTS, REPEATS = (0, 100, 1000), 7
PROBE = """
import json, os, sys, time
import importlib_metadata, pluggy
from lmx_core import registry
site, = [entry for entry in sys.path if entry.endswith("synthetic")]

def timed(work):
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)

def floor():
    for entry in os.scandir(site):
        with open(os.path.join(entry.path, "entry_points.txt"), "rb") as file:
            file.read()

times = {
    "floor": timed(floor),
    "index": timed(lambda: registry.registry("ffn").names()),
    "again": timed(lambda: registry.registry("norm").names()),
}
assert sum(ref.name.startswith("made") for ref in registry.registry("ffn").refs()) == len(os.listdir(site))
assert not any(name.startswith("made") for name in sys.modules)
print(json.dumps(times))
"""


def populate(site: Path, count: int) -> None:
    for i in range(count):
        info = site / f"made_{i}-1.{i}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-{i}\nVersion: 1.{i}\n")
        (info / "entry_points.txt").write_text(f"[lmx.components]\nffn.made{i} = made_{i}:FFN\n")


def measure(count: int) -> dict[str, float]:
    """Milliseconds: the floor, the first look-up, the second one."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "synthetic")
        site.mkdir()
        populate(site, count)
        code = f"import sys; sys.path.append({str(site)!r})\n{PROBE}"
        runs = [json.loads(subprocess.check_output([sys.executable, "-P", "-c", code])) for _ in range(REPEATS)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    console = Console(stderr=True)
    found = {count: measure(count) for count in track(COUNTS, "measuring", console=console, disable=as_json)}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table("distributions", "floor, ms", "first look-up, ms", "of these beyond an empty site", "second, ms")
    for count, times in found.items():
        beyond = times["index"] - found[0]["index"]
        row = (times["floor"], times["index"], beyond, times["again"])
        table.add_row(str(count), *(f"{each:.2f}" for each in row))
    Console().print(table)


if __name__ == "__main__":
    main()
