"""Training and decoding of a 10.6M LLaMA, in tokens/s and MiB: lmx, lmx with MLX's own BLAS, mlx-lm with lmx's BLAS,
and transformers, where LMX_BENCH_TORCH names a Python that has it.

Each measurement is a process of its own; the sides take turns, and medians of the ratios round by round are printed.
`python bench_speed.py [ROUNDS]`
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

SIZES = {"vocab_size": 256, "d_model": 320, "n_heads": 8, "n_kv_heads": 8, "n_layers": 8, "d_ff": 896}
BATCH, LENGTH, PROMPT = 8, 256, 32
THREADS = 2
TORCH = os.environ.get("LMX_BENCH_TORCH")
SIDES = {
    "lmx": ("lmx", {}),
    "mlx-lm": ("mlx-lm", {}),
    "transformers, torch": ("torch", {}),
    "limit of the memory": ("limit", {}),
    "lmx, LMX_BLAS=none": ("lmx", {"LMX_BLAS": "none"}),
}


def lmx_model():
    from lmx_core import LanguageModel, make_config

    return LanguageModel(make_config("llama", **SIZES, tie_embeddings=False))


def mlx_lm_model():
    from mlx_lm.models.llama import Model, ModelArgs

    return Model(
        ModelArgs(
            model_type="llama",
            hidden_size=SIZES["d_model"],
            num_hidden_layers=SIZES["n_layers"],
            intermediate_size=SIZES["d_ff"],
            num_attention_heads=SIZES["n_heads"],
            num_key_value_heads=SIZES["n_kv_heads"],
            rms_norm_eps=1e-5,
            vocab_size=SIZES["vocab_size"],
            tie_word_embeddings=False,
        )
    )


def lmx_step(model):
    """lmx's own step."""
    from lmx_core import build
    from lmx_core.train.config import TrainConfig
    from lmx_core.train.step import Micro, Step

    config = TrainConfig(batch_size=BATCH, seq_len=LENGTH)
    objective, optimizer = (build(kind, getattr(config, kind), config) for kind in ("objective", "optimizer"))
    step = Step(model, objective, optimizer, config)
    return lambda inputs, targets: step([Micro({"inputs": inputs, "targets": targets}, 0)], 1e-3)["loss"]


def mlx_lm_step(model):
    """The step of mlx-lm's trainer: its loss over tokens, compiled with the state, AdamW; clipping as lmx's step has."""
    from functools import partial

    import mlx.core as mx
    from mlx import nn
    from mlx import optimizers as optim

    optimizer = optim.AdamW(learning_rate=1e-3, weight_decay=0.1, betas=[0.9, 0.95], bias_correction=True)
    state = [model.state, optimizer.state, mx.random.state]

    def loss(model, inputs, targets):
        return nn.losses.cross_entropy(model(inputs), targets, reduction="mean")

    @partial(mx.compile, inputs=state, outputs=state)
    def step(inputs, targets):
        value, gradients = nn.value_and_grad(model, loss)(model, inputs, targets)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        return value

    def run(inputs, targets):
        value = step(inputs, targets)
        mx.eval(state, value)
        return value.item()

    return run


def torch_step():
    """A step of transformers' model as its users write it: fused attention, AdamW, clipping, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    config = LlamaConfig(
        vocab_size=SIZES["vocab_size"],
        hidden_size=SIZES["d_model"],
        intermediate_size=SIZES["d_ff"],
        num_hidden_layers=SIZES["n_layers"],
        num_attention_heads=SIZES["n_heads"],
        num_key_value_heads=SIZES["n_kv_heads"],
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        use_cache=False,
    )
    model = LlamaForCausalLM(config).float().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95))

    def run(inputs, targets):
        logits = model(input_ids=inputs).logits
        value = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return value.item()

    return run, torch.randint(0, SIZES["vocab_size"], (BATCH, LENGTH + 1))


def mlx_step(side, model):
    import mlx.core as mx

    tokens = mx.random.randint(0, SIZES["vocab_size"], (BATCH, LENGTH + 1))
    return lmx_step(model) if side == "lmx" else mlx_lm_step(model), tokens


def training(step, tokens, seconds):
    step(tokens[:, :-1], tokens[:, 1:])  # compiles
    times = []
    while sum(times) < seconds or len(times) < 2:
        began = time.perf_counter()
        step(tokens[:, :-1], tokens[:, 1:])
        times.append(time.perf_counter() - began)
    return BATCH * LENGTH / statistics.median(times)


def decoding(side, model, seconds):
    prompt = list(range(PROMPT))
    if side == "lmx":
        from lmx_core import stream_generate

        stream = stream_generate(model, prompt, max_tokens=100_000, temperature=0.0)
    else:
        import mlx.core as mx
        from mlx_lm.generate import generate_step

        stream = generate_step(mx.array(prompt), model, max_tokens=100_000)
    for _ in range(5):
        next(stream)
    began, drawn = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(stream)
        drawn += 1
    return drawn / (time.perf_counter() - began)


def reading(seconds):
    """Tokens/s if decoding were nothing but a product of each weight matrix with a vector: their reading."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    weights = [
        weight for name, weight in tree_flatten(lmx_model().parameters()) if weight.ndim == 2 and "embed" not in name
    ]
    vectors = [mx.ones((1, weight.shape[1])) for weight in weights]
    mx.eval(weights, vectors)
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        mx.eval([vector @ weight.T for vector, weight in zip(vectors, weights, strict=True)])
        times += 1
    return times / (time.perf_counter() - began)


def measure(side, seconds):
    """Tokens/s of both in this process, and the most memory that it had: resident, and of arrays where MLX counts them."""
    if side == "torch":
        found = {"training": training(*torch_step(), seconds)}
    else:
        import mlx.core as mx

        mx.random.seed(0)
        if side == "limit":
            print(json.dumps({"decoding": reading(seconds / 3)}))
            return
        model = lmx_model() if side == "lmx" else mlx_lm_model()
        mx.eval(model.parameters())
        decoded = decoding(side, model.eval(), seconds / 3)
        mx.reset_peak_memory()
        trained = training(*mlx_step(side, model.train()), seconds)
        found = {"training": trained, "decoding": decoded, "arrays": mx.get_peak_memory() / 2**20}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps(found | {"resident": resident}))


def line(name, rows, ours):
    """Medians, and of each round's ratio; memory as it was at most."""
    text = f"{name:22}"
    for what, width in (("training", 10), ("decoding", 11)):
        if what not in rows[0]:
            text += " " * (width + 9)
            continue
        speed = statistics.median(row[what] for row in rows)
        ratio = statistics.median(own[what] / row[what] for own, row in zip(ours, rows, strict=False))
        text += f"{speed:{width},.1f}{ratio:8.2f}x"
    for what, width in (("resident", 14), ("arrays", 10)):
        text += f"{max(row[what] for row in rows):{width},.0f}" if what in rows[0] else " " * width
    return text.rstrip()


def main(rounds):
    sides = {name: side for name, side in SIDES.items() if TORCH or side[0] != "torch"}
    if not TORCH:
        print(
            "transformers is left out: LMX_BENCH_TORCH names no Python that has torch and transformers", file=sys.stderr
        )
    found = {name: [] for name in sides}
    for i in range(rounds):
        for name, (side, environ) in sides.items():
            if i > 0 and "LMX_BLAS" in environ:
                continue  # one round of the slow side tells enough
            command = [TORCH if side == "torch" else sys.executable, "-P", __file__, "--measure", side]
            done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {i + 1}  {name:20} {found[name][-1]}", file=sys.stderr, flush=True)
    print(
        f"a LLaMA of 10.6M parameters, batch {BATCH} x {LENGTH}; tokens/s, medians of {rounds} interleaved rounds; MiB\n"
    )
    print(f"{'':22}{'training':>10}{'lmx is':>9}{'decoding':>11}{'lmx is':>9}{'resident':>14}{'arrays':>10}")
    for name, rows in found.items():
        print(line(name, rows, found["lmx"]))


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(sys.argv[-1], 8.0)
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
