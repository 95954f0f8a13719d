"""Training on one rank and on several of this machine, in one run; and what it costs to sum gradients.

The 10.6M LLaMA of bench_speed.py, 8 sequences of 256 tokens in each update: 8 on one rank with all cores, 8 / N on each
of N ranks with their share of the cores. Rounds alternate. Then the sum of one array over N ranks, by its size.

    python -P benchmarks/bench_parallel.py [--ranks 2] [--steps 12] [--rounds 3]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

CHILD = """
import json, sys, time
from statistics import median
import mlx.core as mx
import numpy as np
from lmx_core import LanguageModel, make_config
from lmx_core.train.config import TrainConfig
from lmx_core.train.parallel.ranks import from_environment
from lmx_core.train.trainer import Trainer

class Random:
    def batch(self, numbers, step):
        tokens = np.random.default_rng(numbers[0]).integers(0, 256, (len(numbers), 257)).astype(np.int32)
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}

class Times:
    at = [time.perf_counter()]
    def on_step_end(self, trainer, metrics):
        self.at.append(time.perf_counter())

ranks, steps = from_environment(), int(sys.argv[1])
sizes = {"vocab_size": 256, "d_model": 320, "n_heads": 8, "n_kv_heads": 8, "n_layers": 8, "d_ff": 896}
config = TrainConfig(max_steps=steps, batch_size=8 // ranks.size, seq_len=256)
model = LanguageModel(make_config("llama", **sizes, tie_embeddings=False))
trainer = Trainer(model, config, Random(), callbacks=[Times()], ranks=ranks)
trainer.run()
took = median(np.diff(Times.at)[2:])
sums = {}
for size in (2**10, 2**20, 40 * 2**20):
    array, each = mx.ones(size // 4), []
    for _ in range(9):
        ranks.barrier()
        start = time.perf_counter()
        ranks.sum(array)
        each.append(time.perf_counter() - start)
    sums[size] = median(each)
if ranks.first:
    print(json.dumps({"parameters": trainer.model.count_parameters(), "speed": 8 * 256 / took, "sums": sums}))
"""


def measured(count: int, steps: int) -> dict[str, Any]:
    from lmx_core.train.parallel.hosts import here

    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        environments = [place.variables(folder) if count > 1 else {} for place in here(count, held)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", CHILD, str(steps)],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for environment in environments
        ]
        outputs = [process.communicate()[0] for process in processes]
    return json.loads(outputs[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found: dict[int, list[dict[str, Any]]] = {1: [], args.ranks: []}
    for _ in range(args.rounds):
        for count, results in found.items():
            results.append(measured(count, args.steps))
    speeds = {count: median(each["speed"] for each in results) for count, results in found.items()}
    print(f"{found[1][0]['parameters']:,} parameters, medians of {args.rounds} rounds")
    for count, speed in speeds.items():
        print(f"{count} rank{'s' if count > 1 else ''}: {speed:,.0f} tokens/s, {speed / speeds[1]:.2f}x")
    for size in found[args.ranks][0]["sums"]:
        took = median(each["sums"][size] for each in found[args.ranks])
        print(f"sum of {int(size):,} bytes over {args.ranks} ranks: {took * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
