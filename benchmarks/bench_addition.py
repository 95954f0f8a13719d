"""Sums of two-digit numbers, learned from rewards and from comparisons by lmx-rl's examples: how often they are right.

For each seed the three files of plugins/lmx-rl/examples in turn: answers for a while, then 600 rollouts of GRPO, then 100
steps of DPO from the same start. Seconds are of the whole run, evaluations and checkpoints included; the curves of all seeds
go into a picture and a page.

`python bench_addition.py [FOLDER] [SEED...]`
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "plugins" / "lmx-rl" / "examples"
ROLLOUTS = (200, 400, 600)


def run(folder, name, seed, *changes):
    """One example with another seed: its summary, its evaluations by step, and its seconds."""
    from lmx_core.train import main

    place = folder / f"{name}-{seed}"
    job = main.started(EXAMPLES / f"addition-{name}.toml", [f"train.seed={seed}", *changes], place, False)
    began = time.perf_counter()
    job.run()
    seconds = time.perf_counter() - began
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if any(key.startswith("val_") for key in line)], seconds


def of_seed(folder, seed):
    """The share of held-out sums that are right, and of held-out pairs in the right order."""
    run(folder, "sft", seed)
    start = f"start={json.dumps(str(folder / f'sft-{seed}'))}"
    found, seconds = run(folder, "grpo", seed, start)
    right = {line["step"] // 2: line["val_reward"] for line in found}
    pairs, of_dpo = run(folder, "dpo", seed, start)
    compared = f"start={json.dumps(str(folder / f'dpo-{seed}'))}"
    return {
        "seed": seed,
        "before": right[0],
        **{str(each): right[each] for each in ROLLOUTS},
        "seconds": seconds,
        "pairs": pairs[-1]["val_accuracy"],
        "margin": pairs[-1]["val_margin"],
        "after DPO": right_of(folder, f"asked-{seed}", compared),
        "DPO seconds": of_dpo,
    }


def right_of(folder, name, start):
    """The share of held-out sums that a model says right, greedily."""
    from lmx_core.train import main

    trainer = main.started(EXAMPLES / "addition-grpo.toml", [start], folder / name, False).trainer
    return trainer.evaluator(trainer.model, True)["val_reward"]


def main(folder, seeds):
    from lmx_core.train.history import read_history
    from lmx_core.train.plot import page, plot_runs

    rows = [of_seed(folder, seed) for seed in seeds]
    names = list(rows[0])
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for row in rows:
        print(
            "| "
            + " | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
            + " |"
        )
    means = [statistics.mean(row[name] for row in rows) for name in names[1:]]
    print("| mean | " + " | ".join(f"{value:.3f}" for value in means) + " |")
    curves = [read_history(folder / f"grpo-{seed}") for seed in seeds]
    plot_runs(curves, folder / "addition.png")
    page(curves, folder / "addition.html")
    print(f"\nlook at {folder / 'addition.png'}, {folder / 'addition.html'}")


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="addition-"))
    main(place, [int(each) for each in sys.argv[2:]] or [0, 1, 2])
