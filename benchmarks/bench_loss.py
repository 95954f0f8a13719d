"""The loss of a large vocabulary: all logits in float32 at once beside a chunk of tokens at a time, forwards and backwards.

Each side is a process of its own; the sides take turns, and medians are printed.
`python bench_loss.py [ROUNDS]`
"""

import json
import statistics
import subprocess
import sys
import time

WORDS, TOKENS, WIDTHS, ROWS = 128 * 1024, 2048, (256, 512), 4
SIDES = {"plain": None, "as shipped": "rule", "256 at a time": 256, "64 at a time": 64}
"""How many tokens at a time."""


def measured(side, width):
    """Seconds of a compiled forward and backward pass, of CPU too, and the peak of memory beyond head and hidden states."""
    import mlx.core as mx
    from mlx import nn
    from mlx.nn.losses import cross_entropy as plain_cross_entropy

    from lmx_core.losses import cross_entropy

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(width, WORDS, bias=False)

        def logits(self, hidden):
            return self.head(hidden)

    mx.random.seed(0)
    model, chunk = Head(), SIDES[side]
    hidden = mx.random.normal((ROWS, TOKENS // ROWS, width), key=mx.random.key(0))
    targets = mx.random.randint(0, WORDS, hidden.shape[:2], key=mx.random.key(1))
    parameters = model.trainable_parameters()
    mx.eval(parameters, hidden, targets)

    def loss(parameters, hidden):
        model.update(parameters)
        if chunk is None:
            return plain_cross_entropy(model.logits(hidden).astype(mx.float32), targets, reduction="sum")
        return cross_entropy(model, hidden, targets, chunk=None if chunk == "rule" else chunk).loss

    step = mx.compile(mx.value_and_grad(loss, argnums=(0, 1)))
    times, cpu = [], []
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    for _ in range(2):
        started, used = time.perf_counter(), time.process_time()
        found = step(parameters, hidden)
        mx.eval(found)
        times.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
        value = found[0].item() / TOKENS
        del found
    return {
        "loss": value,
        "seconds": min(times),
        "cpu": min(cpu),
        "bytes": mx.get_peak_memory() - before,
    }


def one(side, width):
    command = [sys.executable, "-P", __file__, "--one", side, str(width)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main(rounds):
    for width in WIDTHS:
        found = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side, runs in found.items():
                runs.append(one(side, width))
        print(f"{TOKENS} tokens, vocabulary {WORDS}, width {width}; medians of {rounds} rounds")
        for side, runs in found.items():
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            ratios = [
                statistics.median(run[key] / plain[key] for run, plain in zip(runs, found["plain"], strict=True))
                for key in ("seconds", "bytes")
            ]
            print(
                f"{side:16} {middle['seconds']:7.2f} s ({ratios[0]:4.2f}x) {middle['cpu']:7.2f} s of CPU "
                f"{middle['bytes'] / 2**20:7.0f} MiB ({ratios[1]:4.2f}x)   "
                f"loss {middle['loss']:.6f}",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(sys.argv[2], int(sys.argv[3]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
