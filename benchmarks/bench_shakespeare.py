"""Tiny Shakespeare by characters, in the setting that nanoGPT gives for a CPU: loss and time of lmx and of PyTorch.

Four layers of width 128, four heads, block 64, batch 12, 2000 steps of AdamW (0.9, 0.99, decay 0.1 of matrices), a rate of
1e-3 that falls to 1e-4, 100 steps of warm-up, gradients of length 1 at most, no dropout. The loss is that of the whole
held-out tenth, in blocks of 64. Each run is a process of its own, and the sides take turns. nanoGPT draws weights with a
deviation of 0.02; lmx as MLX does, by the width of what they read, which one of PyTorch's sides has too.

`python bench_shakespeare.py TINYSHAKESPEARE.TXT [SEEDS] [SIDE...]`; `LMX_BENCH_TORCH` names a Python that has PyTorch.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS, WIDTH, HEADS, BLOCK, BATCH, STEPS, WARM_UP = 4, 128, 4, 64, 12, 2000, 100
PEAK, LEAST = 1e-3, 1e-4
SIDES = ("lmx gpt", "lmx llama", "torch gpt", "torch gpt, drawn as lmx's")


def lmx_config(side, text, seed):
    """The run's config; the LLaMA has as many parameters a block: three matrices of 8/3 in place of two of 4."""
    common = {"d_model": WIDTH, "n_heads": HEADS, "max_seq_len": BLOCK, "bias": False}
    gpt = {
        **common,
        "attention": "mha",
        "ffn": {"name": "standard", "activation": "gelu"},
        "norm": {"name": "layer_norm", "bias": False},
        "position": "learned",
        "d_ff": 4 * WIDTH,
    }
    llama = {**common, "attention": "gqa", "ffn": "gated", "norm": "rms_norm", "position": "rope", "d_ff": 344}
    model = {"block": {"lmx gpt": gpt, "lmx llama": llama}[side], "n_layers": LAYERS}
    train = {
        "max_steps": STEPS,
        "batch_size": BATCH,
        "seq_len": BLOCK,
        "learning_rate": PEAK,
        "warmup_steps": WARM_UP,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.99},
        "schedule": {"name": "cosine", "final_fraction": LEAST / PEAK},
        "eval_interval": 500,
        "eval_bytes": 1000,
        "final_eval_bytes": 1_000_000,
        "log_interval": 100,
        "checkpoint_interval": STEPS,
        "sample_tokens": 0,
        "seed": seed,
    }
    dataset = {"name": "shakespeare", "path": text}
    return {"model": model, "data": {"dataset": dataset, "tokenizer": "chars"}, "train": train}


def run_lmx(side, text, seed):
    from lmx_core.train import main

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.json")
        file.write_text(json.dumps(lmx_config(side, text, seed)))
        job = main.started(file, [], Path(folder, "run"), False)
        began = time.perf_counter()
        summary = job.run()
        seconds = time.perf_counter() - began
    return {"loss": summary["val_loss"], "parameters": summary["parameters"], "seconds": seconds}


def run_torch(side, text, seed):
    import torch
    from torch import nn
    from torch.nn import functional as F  # noqa: N812

    characters = Path(text).read_text(encoding="utf-8")
    number = {character: i for i, character in enumerate(sorted(set(characters)))}
    tokens = torch.tensor([number[character] for character in characters])
    cut = len(tokens) * 9 // 10
    train, held_out = tokens[:cut], tokens[cut:]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.before_attention, self.before_ffn = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
            self.heads, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x):
            split = [
                each.unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for each in self.heads(self.before_attention(x)).chunk(3, -1)
            ]
            x = x + self.out(F.scaled_dot_product_attention(*split, is_causal=True).transpose(1, 2).flatten(2))
            return x + self.down(F.gelu(self.up(self.before_ffn(x))))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(len(number), WIDTH), nn.Embedding(BLOCK, WIDTH)
            self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH, bias=False)
            for name, weight in self.named_parameters():
                if weight.dim() > 1:
                    draw(name, weight)

        def forward(self, x):
            h = self.tokens(x) + self.places.weight[: x.shape[1]]
            for block in self.blocks:
                h = block(h)
            return F.linear(self.norm(h), self.tokens.weight)

    def draw(name, weight):
        if side == "torch gpt":  # what ends a residual branch is smaller, as in GPT-2
            ends = name.endswith(("out.weight", "down.weight"))
            nn.init.normal_(weight, 0.0, 0.02 / math.sqrt(2 * LAYERS) if ends else 0.02)
        elif name == "tokens.weight":
            nn.init.normal_(weight, 0.0, WIDTH**-0.5)
        elif name == "places.weight":
            nn.init.normal_(weight, 0.0, 0.02)
        else:
            nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)

    def loss_of(model, x, y, reduction):
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction=reduction)

    def rate(step):
        if step < WARM_UP:
            return PEAK * (step + 1) / (WARM_UP + 1)
        return LEAST + (PEAK - LEAST) * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP))) / 2

    torch.manual_seed(seed)
    model = GPT()
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.99)
    )
    began = time.perf_counter()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        starts = torch.randint(len(train) - BLOCK, (BATCH,))
        rows = torch.stack([train[start : start + BLOCK + 1] for start in starts])
        optimizer.zero_grad()
        loss_of(model, rows[:, :-1], rows[:, 1:], "mean").backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    whole = (len(held_out) - 1) // BLOCK * BLOCK
    x, y = held_out[:whole].view(-1, BLOCK), held_out[1 : whole + 1].view(-1, BLOCK)
    with torch.no_grad():
        nats = sum(loss_of(model, x[i : i + 256], y[i : i + 256], "sum").item() for i in range(0, len(x), 256))
    seconds = time.perf_counter() - began
    return {
        "loss": nats / whole,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "seconds": seconds,
    }


def measure(side, text, seed):
    print(json.dumps(run_torch(side, text, seed) if side.startswith("torch") else run_lmx(side, text, seed)))


def main(text, seeds, sides):
    torch = os.environ.get("LMX_BENCH_TORCH")
    if torch is None:
        print("without PyTorch: LMX_BENCH_TORCH names no Python that has it", file=sys.stderr)
        sides = [side for side in sides if not side.startswith("torch")]
    found = {side: [] for side in sides}
    for seed in range(seeds):
        for side in sides:
            python = torch if side.startswith("torch") else sys.executable
            command = [str(python), "-P", __file__, "--measure", side, text, str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"seed {seed}  {side:28} {found[side][-1]}", file=sys.stderr, flush=True)
    print(f"{'':28}{'parameters':>12}{'held-out loss, nats a character':>40}{'mean':>9}{'seconds':>10}")
    for side, rows in found.items():
        losses = [row["loss"] for row in rows]
        seconds = statistics.median(row["seconds"] for row in rows)
        listed = ", ".join(f"{loss:.4f}" for loss in losses)
        print(f"{side:28}{rows[0]['parameters']:12,}{listed:>40}{statistics.mean(losses):9.4f}{seconds:10.1f}")


if __name__ == "__main__":
    if "--measure" in sys.argv:
        side, text, seed = sys.argv[2:]
        measure(side, text, int(seed))
    elif len(sys.argv) < 2:
        sys.exit(__doc__)
    else:
        main(os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3, sys.argv[3:] or [*SIDES])
