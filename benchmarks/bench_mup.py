"""What muP keeps over the width (arXiv:2203.03466): the size of activations, and the best learning rate.

    python bench_mup.py check [WIDTH ...]       the coordinate check, 64 to 1024 unless given
    python bench_mup.py transfer [WIDTH ...]    the loss at rates from 2^-10 to 2^-4, at widths 64 and 256 unless given

Without a word it checks. Each prints its tables, with muP (base width 64) and without, and draws `mup_check.png` or
`mup_transfer.png` if matplotlib is there.
"""

import sys
import time
from itertools import islice

import mlx.core as mx
import numpy as np
from mlx import nn

from lmx_core import BlockConfig, LanguageModel, ModelConfig
from lmx_core.data.datasets import PythonStdlib
from lmx_core.train.config import TrainConfig
from lmx_core.train.groups import optimizer_for

BASE, LAYERS, VOCAB = 64, 3, 128
SEEDS, STEPS = 3, 4
RATES = [2.0**i for i in range(-10, -3)]
TRAINING = {"steps": 200, "batch": 8, "length": 64, "warmup": 20, "seeds": 1}


def model_of(width, base, seed):
    mx.random.seed(seed)
    block = BlockConfig(
        attention="gqa",
        ffn="gated",
        norm="rms_norm",
        position="rope",
        d_model=width,
        n_heads=width // 16,
        head_dim=16,
        d_ff=2 * width,
        bias=False,
    )
    return LanguageModel(ModelConfig(block=block, n_layers=LAYERS, vocab_size=VOCAB, mup_base_width=base))


def optimizer_of(model, rate):
    optimizer = optimizer_for(model, TrainConfig(learning_rate=rate, weight_decay=0.0))
    optimizer.init(model.trainable_parameters())
    return optimizer


def loss_of(model, tokens):
    return nn.losses.cross_entropy(model(tokens[:, :-1])[0], tokens[:, 1:], reduction="mean")


def sizes(width, base, seed):
    """After each step: mean sizes of the stream after each block, and of the change of the targets' logits."""
    model = model_of(width, base, seed)
    optimizer = optimizer_of(model, 3e-3)
    tokens = mx.random.randint(0, VOCAB, (2, 9), key=mx.random.key(5))
    gradient = nn.value_and_grad(model, lambda: loss_of(model, tokens))
    first, found = model(tokens[:, :-1])[0], []
    for _ in range(STEPS):
        optimizer.update(model, gradient()[1])
        states, _ = model.hidden(tokens[:, :-1], return_all=True)
        changed = mx.take_along_axis(model.logits(states[-1]) - first, tokens[:, 1:, None], axis=-1)
        found.append([mx.abs(each).mean().item() for each in (*states[1:-1], changed)])
    return found


def check(widths):
    found = {}
    for base in (BASE, None):
        found[base] = np.mean([[sizes(width, base, seed) for width in widths] for seed in range(SEEDS)], axis=0)
        slopes = np.polyfit(np.log(widths), np.log(found[base]).reshape(len(widths), -1), 1)[0]
        print(f"\n{'muP' if base else 'without muP'}: slope of log size by log width, {widths[0]} to {widths[-1]}")
        print("step  " + "  ".join([f"block {i}" for i in range(LAYERS - 1)]) + "  targets' logits")
        for step, row in enumerate(slopes.reshape(found[base].shape[1:]), start=1):
            print(f"{step:4}  " + "  ".join(f"{slope:7.3f}" for slope in row))
    return {
        f"{'muP' if base else 'without'}, block {i}": (widths, each[:, -1, i])
        for base, each in found.items()
        for i in range(LAYERS - 1)
    }


def text():
    """3 MB of Python's library as bytes, those over 127 as 127."""
    documents = islice(PythonStdlib().documents("train"), 150)
    data = "\n".join(documents).encode()[:3_000_000]
    return np.minimum(np.frombuffer(data, np.uint8), 127).astype(np.int32)


def final_loss(width, base, rate, seed, data):
    """Mean of the last 50 losses."""
    model = model_of(width, base, seed)
    optimizer = optimizer_of(model, rate)
    state = [model.state, optimizer.state]

    def step(tokens):
        loss, gradients = nn.value_and_grad(model, lambda: loss_of(model, tokens))()
        optimizer.update(model, gradients)
        return loss

    step = mx.compile(step, inputs=state, outputs=state)
    draws, losses = np.random.default_rng(seed), []
    steps, warmup = TRAINING["steps"], TRAINING["warmup"]
    for i in range(steps):
        starts = draws.integers(0, len(data) - TRAINING["length"] - 1, TRAINING["batch"])
        tokens = mx.array(np.stack([data[start : start + TRAINING["length"] + 1] for start in starts]))
        optimizer.learning_rate = rate * min((i + 1) / warmup, (steps - i) / (steps - warmup))
        loss = step(tokens)
        mx.eval(state, loss)
        losses.append(loss.item())
    return float(np.mean(losses[-50:]))


def transfer(widths):
    data, curves = text(), {}
    for base in (BASE, None):
        print(f"\n{'muP' if base else 'without muP'}: loss after {TRAINING['steps']} steps, by log2 of the rate")
        print("width  " + "  ".join(f"{np.log2(rate):6.0f}" for rate in RATES) + "  best")
        for width in widths:
            losses = [
                np.mean([final_loss(width, base, rate, seed, data) for seed in range(TRAINING["seeds"])])
                for rate in RATES
            ]
            best = np.log2(RATES[int(np.nanargmin(losses))])
            print(f"{width:5}  " + "  ".join(f"{loss:6.3f}" for loss in losses) + f"  {best:4.0f}", flush=True)
            curves[f"{'muP' if base else 'without'}, {width}"] = (RATES, losses)
    return curves


def draw(curves, name, across, up):
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for label, (x, y) in curves.items():
        side = axes[0 if label.startswith("muP") else 1]
        side.plot(x, y, "o-", label=label)
    for side in axes:
        side.set(xscale="log", xlabel=across)
        side.legend()
    axes[0].set(ylabel=up, yscale="log" if "size" in up else "linear")
    figure.tight_layout()
    figure.savefig(name)
    print(f"\n{name}")


if __name__ == "__main__":
    began = time.monotonic()
    what, given = sys.argv[1:2] or ["check"], [int(width) for width in sys.argv[2:]]
    if what == ["check"]:
        draw(check(given or [64, 128, 256, 512, 1024]), "mup_check.png", "width", "mean size after 4 steps")
    else:
        draw(transfer(given or [64, 256]), "mup_transfer.png", "learning rate", "loss")
    print(f"{time.monotonic() - began:.0f} s")
