"""What many experts cost, beside a dense FFN of the active size and mlx-lm's layer, and what they give.

`python bench_moe.py [ROUNDS]` measures the layers; `python bench_moe.py learn [SEEDS]` trains a mixture and a dense model of
its active size on the Python standard library's text.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

D_MODEL, D_FF, N_EXPERTS, TOP_K = 512, 1024, 64, 2
TOKENS, TOTALS = (128, 4096), (8, 16, 32, 64, 128)
MODEL = {
    "vocab_size": 256, "n_layers": 4,
    "block": {
        "attention": "mha", "norm": "rms_norm", "position": "rope", "bias": False,
        "d_model": 128, "n_heads": 4, "d_ff": 256,
    },
}  # fmt: skip
TRAIN = {
    "max_steps": 300,
    "eval_interval": 1000,
    "batch_size": 16,
    "seq_len": 128,
    "learning_rate": 2e-3,
    "final_eval_bytes": 200_000,
    "sample_tokens": 0,
}
ROUTED = {"name": "moe", "n_experts": 8, "top_k": 2, "d_ff": 128}
LEARNERS = {
    "dense": "gated",
    "moe, balance loss": ROUTED,
    "moe, bias updates": {**ROUTED, "router": "sigmoid", "correction_bias": True, "balance_loss": 0.0},
}
"""FFNs of the same number of active parameters, routers aside."""


def layers(n_experts):
    """Functions (x, choices) -> y by side, and their modules."""
    from mlx_lm.models.switch_layers import SwitchGLU

    from lmx_core import BlockConfig, build, spec
    from lmx_ffn_moe import MoE, MoEOptions

    config = BlockConfig(d_model=D_MODEL, n_heads=8, d_ff=TOP_K * D_FF, bias=False)
    ours = MoE(config, MoEOptions(n_experts=n_experts, top_k=TOP_K, d_ff=D_FF))
    theirs = SwitchGLU(D_MODEL, D_FF, n_experts)
    for name in ("gate", "up", "down"):
        theirs[f"{name}_proj"].weight = ours.experts[name].weight
    dense = build("ffn", spec("gated"), config)
    return {
        "lmx, experts": (ours.experts, lambda x, chosen: ours.experts(x[:, None], chosen).sum(axis=1)),
        "mlx-lm, experts": (theirs, lambda x, chosen: theirs(x, chosen).sum(axis=1)),
        "lmx, with router": (ours, lambda x, chosen: ours(x[None])[0]),
        "dense": (dense, lambda x, chosen: dense(x[None])[0]),
    }


def steps(sides, tokens, n_experts):
    """Nothing to do but to be called: forwards and there and back, by side."""
    import mlx.core as mx

    x = mx.random.normal((tokens, D_MODEL), key=mx.random.key(0))
    chosen = mx.argsort(mx.random.normal((tokens, n_experts), key=mx.random.key(1)))[:, :TOP_K]
    mx.eval(x, chosen)

    def both(module, call):
        def loss(parameters, x):
            module.update(parameters)
            return mx.square(call(x, chosen)).sum()

        gradients = mx.value_and_grad(loss, argnums=(0, 1))
        parameters = module.trainable_parameters()
        return lambda: (mx.eval(gradients(parameters, x)), module.update(parameters))

    return {
        side: (lambda call=call: mx.eval(call(x, chosen)), both(module, call)) for side, (module, call) in sides.items()
    }


def taken(call):
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def speed(rounds):
    import mlx.core as mx

    sides = layers(N_EXPERTS)
    mx.eval([module.parameters() for module, _ in sides.values()])
    print(
        f"{N_EXPERTS} experts of {D_MODEL} x {D_FF}, top {TOP_K}; ms, medians of {rounds} rounds; x of mlx-lm's by round"
    )
    for tokens in TOKENS:
        calls = steps(sides, tokens, N_EXPERTS)
        times = {(side, way): [] for side in calls for way in (0, 1)}
        for _ in range(rounds + 1):  # the first is a warm-up
            for side, ways in calls.items():
                for way in (0, 1):
                    times[side, way].append(taken(ways[way]))
        for side in calls:
            shown = []
            for way in (0, 1):
                found, theirs = times[side, way][1:], times["mlx-lm, experts", way][1:]
                ratio = statistics.median(a / b for a, b in zip(found, theirs, strict=True))
                shown.append(f"{statistics.median(found):9.1f} ({ratio:5.2f}x)")
            print(f"{tokens:5} tokens   {side:18} forward {shown[0]}   with backward {shown[1]}")
    print(f"\nthere and back, {max(TOKENS)} tokens, by the number of experts")
    totals = {}
    for n in TOTALS:
        sides = {"lmx, with router": layers(n)["lmx, with router"]}
        mx.eval(sides["lmx, with router"][0].parameters())
        totals[n] = steps(sides, max(TOKENS), n)["lmx, with router"][1]
    found = {n: [] for n in TOTALS}
    for _ in range(rounds + 1):
        for n, call in totals.items():
            found[n].append(taken(call))
    for n, times in found.items():
        print(f"{n:5} experts {statistics.median(times[1:]):9.1f} ms")


def learned(side, seed):
    """Bits per byte of the validation text after training, the share of dead experts at the end, and seconds."""
    from lmx_core.train.main import started

    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/run.json"
        model = {**MODEL, "block": {**MODEL["block"], "ffn": LEARNERS[side]}}
        run = {"model": model, "train": {**TRAIN, "seed": int(seed)}, "data": {"dataset": "python-stdlib"}}
        with open(file, "w") as out:
            json.dump(run, out)
        job = started(Path(file), [], Path(folder, "run"), False)
        summary = job.run()
        last = [json.loads(line) for line in (job.path / "metrics.jsonl").read_text().splitlines()]
    dead = [value for line in last[-5:] for key, value in line.items() if key.endswith("dead_experts")]
    return {"bpb": summary["val_bpb"], "dead": max(dead, default=0.0), "seconds": summary["seconds"]}


def learn(seeds):
    found = {side: [] for side in LEARNERS}
    for seed in range(seeds):
        for side, runs in found.items():
            runs.append(measured(side, seed))
            print(f"seed {seed}, {side}: {runs[-1]}", file=sys.stderr, flush=True)
    dense = [each["bpb"] for each in found["dense"]]
    for side, runs in found.items():
        bits = [each["bpb"] for each in runs]
        better = [a - b for a, b in zip(dense, bits, strict=True)]
        error = statistics.stdev(better) / math.sqrt(seeds) if seeds > 1 and side != "dense" else math.nan
        print(
            f"{side:18} {statistics.mean(bits):.4f} bits per byte ({', '.join(f'{each:.4f}' for each in bits)}), "
            f"better than dense by {statistics.mean(better):.4f} +- {error:.4f} (standard error), "
            f"dead experts {max(each['dead'] for each in runs):.3f}, {statistics.median(e['seconds'] for e in runs):.0f} s"
        )


def measured(side, seed):
    command = [sys.executable, "-P", __file__, "--one", side, str(seed)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(learned(*sys.argv[2:4])))
    elif sys.argv[1:2] == ["learn"]:
        learn(int(sys.argv[2]) if sys.argv[2:] else 3)
    else:
        speed(int(sys.argv[1]) if sys.argv[1:] else 5)
