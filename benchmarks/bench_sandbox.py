"""Programs a minute: the sandboxes of lmx-rl, beside an interpreter started for each program without any isolation.

Each program defines a function of a few lines, which is called four times. All run as many at once as there are cores;
rounds alternate, and the medians are compared. What starting the workers takes is told apart.

    python -P benchmarks/bench_sandbox.py [--programs 1000] [--rounds 5] [--workers 2] [--json]
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from lmx_core import build, spec
from lmx_rl.sandbox import Call, Program

SOURCE = """
def words(text, least):
    found = {}
    for word in text.lower().split():
        if len(word) >= least:
            found[word] = found.get(word, 0) + 1
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))
"""
TEXT = "the quick brown fox jumps over the lazy dog and the dog sleeps"
PLAIN = "plain interpreter"


def programs(number: int) -> list[Program]:
    calls = [Call(args=(TEXT, least)) for least in range(4)]
    return [Program(source=f"{SOURCE}\nNUMBER = {i}\n", function="words", calls=calls) for i in range(number)]


def started_for_each(programs: list[Program], workers: int) -> None:
    """What has nothing to do with isolation: `python -I -S` for each program."""

    def run(program: Program) -> None:
        calls = "".join(f"print(repr(words(*{tuple(call.args)!r})))\n" for call in program.calls)
        command = [sys.executable, "-I", "-S", "-c", program.source + calls]
        assert subprocess.run(command, capture_output=True, check=True, text=True).stdout.count("\n") == len(
            program.calls
        )

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(run, programs))


def measured(number: int, rounds: int, workers: int) -> dict[str, dict[str, float]]:
    names = ["process", *(["monty"] if importlib.util.find_spec("pydantic_monty") else [])]
    sandboxes = {name: build("sandbox", spec(name, workers=workers)) for name in names}
    found = {name: {} for name in (*names, PLAIN)}
    seconds = {name: [] for name in found}
    for name, sandbox in sandboxes.items():
        began = time.perf_counter()
        sandbox.run(programs(workers))
        found[name]["start s"] = time.perf_counter() - began
    for _ in range(rounds):
        for name in found:
            size = number if name == "process" else 10 * number if name == "monty" else max(1, number // 10)
            work = programs(size)
            began = time.perf_counter()
            if name == PLAIN:
                started_for_each(work, workers)
            else:
                outcomes = sandboxes[name].run(work)
                assert all(outcome.status == "done" and len(outcome.returned) == 4 for outcome in outcomes)
            seconds[name].append((time.perf_counter() - began) / size)
    for name, sandbox in sandboxes.items():
        found[name]["isolation"] = sandbox.isolation.name.lower()
        sandbox.close()
    for name, taken in seconds.items():
        found[name] |= {
            "a minute": 60 / median(taken),
            "best a minute": 60 / min(taken),
            "ms": 1000 * workers * median(taken),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--programs", type=int, default=1000, help="Of a round with `process`; monty runs ten times as many."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measured(chosen.programs, chosen.rounds, chosen.workers)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{chosen.workers} workers, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name, row in found.items():
        start = f"   started in {row['start s']:.2f} s" if "start s" in row else ""
        print(
            f"{name:18} {row['a minute']:10,.0f} a minute (best {row['best a minute']:,.0f}), {row['ms']:.2f} ms each   "
            f"{row.get('isolation', 'none')}{start}"
        )


if __name__ == "__main__":
    main()
