"""Steps of DPO and GRPO, in seconds and MiB, of lmx and of mlx-lm-lora, where LMX_BENCH_LORA names a Python that has it and
lmx-blas; rollouts of lmx in a group and one by one, in tokens/s.

Both train the same LLaMA from their own loops, as their users call them, on rows of the same lengths, with AdamW in float32.
Each measurement is a process of its own; the sides take turns, and medians of the ratios round by round are printed.
`python bench_rl.py [ROUNDS]`
"""

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {"d_model": 256, "n_heads": 8, "n_kv_heads": 8, "n_layers": 4, "d_ff": 704}
VOCABULARY = 256
PAIRS, ASKED, ANSWERED = 4, 96, 96
"""Of DPO: pairs of a batch, tokens of a prompt and of each completion."""
PROMPTS, GROUP, QUESTION, DRAWN = 4, 8, 64, 64
"""Of GRPO: prompts of a batch, completions of each, tokens of a prompt and of a completion; rows that learn at once are as
many as prompts, which is how mlx-lm-lora divides them."""
STEPS, WARM = 8, 2
RATE, DECAY, BETAS = 1e-5, 0.01, (0.9, 0.999)
BETA = 0.1
LORA = os.environ.get("LMX_BENCH_LORA")
SIDES = {
    "DPO": {
        "lmx": ("lmx", "dpo", "precomputed"),
        "lmx, reference in each step": ("lmx", "dpo", "each"),
        "mlx-lm-lora": ("lora", "dpo", "each"),
    },
    "GRPO": {"lmx": ("lmx", "grpo", "each"), "mlx-lm-lora": ("lora", "grpo", "each")},
}


def text(draw, length):
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=length))


def rows():
    """Comparisons, and questions."""
    draw = random.Random(0)
    pairs = [
        {"prompt": text(draw, ASKED), "chosen": text(draw, ANSWERED), "rejected": text(draw, ANSWERED)}
        for _ in range(8 * PAIRS)
    ]
    return pairs, [text(draw, QUESTION) for _ in range(8 * PROMPTS)]


class Steps:
    """Seconds of each step after the first ones, on the clock and of the processors."""

    def __init__(self):
        self.times, self.last = [], None

    def tick(self):
        now = (time.perf_counter(), time.process_time())
        if self.last is not None:
            self.times.append([new - old for new, old in zip(now, self.last, strict=True)])
        self.last = now
        if len(self.times) == STEPS - 1:
            self.memory = peaks()

    def found(self):
        wall, cpu = (statistics.median(each) for each in zip(*self.times[WARM - 1 :], strict=True))
        return {"seconds": wall, "cpu": cpu, **self.memory}


def peaks():
    import mlx.core as mx

    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"resident": resident, "arrays": mx.get_peak_memory() / 2**20}


# lmx ------------------------------------------------------------------------------------------------------------------


def lmx_model():
    import mlx.core as mx

    from lmx_core import LanguageModel, make_config

    mx.random.seed(0)
    return LanguageModel(make_config("llama", **SIZES, vocab_size=VOCABULARY, tie_embeddings=False))


def lmx_config(model, what, reference, folder):
    """With the reference's log-probabilities computed before the first step, or in each step as mlx-lm-lora does."""
    from lmx_core import save_model
    from lmx_core.serialize import plain
    from lmx_core.train.config import run_config

    pairs, questions = rows()
    asked = pairs if what == "dpo" else [{"prompt": each} for each in questions]
    file, held_out = folder / "rows.jsonl", folder / "held-out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in asked))
    held_out.write_text(json.dumps({**asked[0], "prompt": "?"}) + "\n")
    dpo = {"name": "dpo", "beta": BETA}
    if what == "dpo" and reference == "each":
        save_model(model, folder / "reference")
        dpo |= {"reference": str(folder / "reference"), "precompute": False}
    grpo = {
        "name": "grpo",
        "beta": BETA,
        "epsilon": 0.2,
        "group_size": GROUP,
        "max_new_tokens": DRAWN,
        "rewards": [{"reward": {"name": "regex", "pattern": "[a-g]"}}],
    }
    train = {
        "max_steps": STEPS,
        "seq_len": ASKED + ANSWERED - 1,
        "optimizer": {"name": "adamw", "beta1": BETAS[0], "beta2": BETAS[1]},
        "learning_rate": RATE,
        "weight_decay": DECAY,
        "schedule": "constant",
        "warmup_steps": 0,
        "max_grad_norm": "none",
        "trainer": dpo if what == "dpo" else grpo,
        "batch_size": PAIRS if what == "dpo" else PROMPTS,
        "grad_accumulation_steps": 1 if what == "dpo" else GROUP,
    }
    data = {"dataset": {"name": "jsonl", "paths": str(file), "validation_paths": str(held_out)}, "tokenizer": "bytes"}
    return run_config({"model": plain(model.config), "data": data, "train": train}, "the benchmark")


def lmx_steps(what, reference, folder):
    from lmx_core import build
    from lmx_core.train.parallel.ranks import alone

    model, steps = lmx_model(), Steps()
    config = lmx_config(model, what, reference, folder)
    recipe = build("trainer", config.train.trainer, config)
    trainer = recipe.trainer(model, recipe.read(None), alone())
    trainer.callbacks.append(type("Watch", (), {"on_step_end": lambda self, trainer, metrics: steps.tick()})())
    trainer.run()
    return steps.found()


def rollouts(seconds):
    """Tokens/s of the completions of one prompt, one of them and a group, in turn."""
    from lmx_core.continuations import continuations

    model = lmx_model().eval()
    prompt, rates = list(rows()[1][0].encode()), {1: [], GROUP: []}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(rates[1]) < 4:
        for repeats, found in rates.items():
            start = time.perf_counter()
            drawn = continuations(model, [prompt], repeats=repeats, max_tokens=DRAWN, seeds=range(repeats))
            found.append(sum(len(each.tokens) for each in drawn) / (time.perf_counter() - start))
    one, many = (statistics.median(found[1:]) for found in rates.values())
    return {"one": one, "many": many}


# mlx-lm-lora ----------------------------------------------------------------------------------------------------------


class Bytes:
    """What mlx-lm-lora asks of a tokenizer."""

    eos_token_ids = ()

    def encode(self, text, add_special_tokens=False):
        return list(text.encode())

    def decode(self, tokens):
        return bytes(tokens).decode("utf-8", "replace")


def lora_model():
    import mlx.core as mx
    from mlx_lm.models.llama import Model, ModelArgs

    mx.random.seed(0)
    return Model(
        ModelArgs(
            model_type="llama",
            hidden_size=SIZES["d_model"],
            num_hidden_layers=SIZES["n_layers"],
            intermediate_size=SIZES["d_ff"],
            num_attention_heads=SIZES["n_heads"],
            num_key_value_heads=SIZES["n_kv_heads"],
            rms_norm_eps=1e-5,
            vocab_size=VOCABULARY,
            tie_word_embeddings=False,
        )
    )


def lora_steps(what, folder):
    import mlx.core as mx
    from mlx import optimizers as optim
    from mlx_lm_lora.trainer import dpo_trainer, grpo_trainer

    steps = Steps()
    watch = type("Watch", (), {"on_train_loss_report": lambda self, about: steps.tick()})()
    model, reference = lora_model(), lora_model()
    mx.eval(model.parameters(), reference.parameters())
    optimizer = optim.AdamW(learning_rate=RATE, weight_decay=DECAY, betas=list(BETAS), bias_correction=True)
    usual = {"iters": STEPS, "steps_per_report": 1, "adapter_file": str(folder / "adapters.safetensors"), "beta": BETA}
    pairs, questions = rows()
    if what == "dpo":
        mx.set_wired_limit, mx.device_info = lambda limit: 0, lambda: {"max_recommended_working_set_size": 0}
        data = [
            {
                **{name: list((row["prompt"] + row[name]).encode()) for name in ("chosen", "rejected")},
                "chosen_prompt_length": ASKED,
                "rejected_prompt_length": ASKED,
            }
            for row in pairs
        ]
        args = dpo_trainer.DPOTrainingArgs(batch_size=PAIRS, **usual)
        dpo_trainer.train_dpo(model, reference, optimizer, data, args=args, training_callback=watch)
        return steps.found()

    def contains(prompts, completions, answer, types):
        return [float(any(letter in "abcdefg" for letter in each)) for each in completions]

    args = grpo_trainer.GRPOTrainingArgs(
        batch_size=PROMPTS,
        group_size=GROUP,
        max_completion_length=DRAWN,
        epsilon=0.2,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        **usual,
    )
    data = [(list(each.encode()), [], each, "") for each in questions]
    grpo_trainer.train_grpo(
        model,
        reference,
        Bytes(),
        optimizer,
        data,
        reward_funcs=[contains],
        args=args,
        training_callback=watch,
        end_answer_token="",
    )
    return steps.found()


# All of it ------------------------------------------------------------------------------------------------------------


def measure(side, what, how="each"):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if what == "rollouts":
            found = rollouts(10.0)
        else:
            found = lmx_steps(what, how, folder) if side == "lmx" else lora_steps(what, folder)
    print(json.dumps(found))


def measured(*arguments):
    python = LORA if arguments[0] == "lora" else sys.executable
    with tempfile.TemporaryDirectory() as cache:
        environ = os.environ | {"LMX_CACHE": cache}  # references are computed in each process
        command = [python, "-P", __file__, "--measure", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def line(name, found, ours):
    """Medians of seconds, and of each round's ratio; memory as it was at most."""
    columns = f"{name:28}"
    for what in ("seconds", "cpu"):
        ratio = statistics.median(other[what] / own[what] for own, other in zip(ours, found, strict=True))
        columns += f"{statistics.median(row[what] for row in found):10.3f}{ratio:8.2f}x"
    return columns + "".join(f"{max(row[what] for row in found):12,.0f}" for what in ("resident", "arrays"))


def main(rounds):
    if not LORA:
        print("mlx-lm-lora is left out: LMX_BENCH_LORA names no Python that has it", file=sys.stderr)
    sides = {
        (kind, name): side
        for kind, several in SIDES.items()
        for name, side in several.items()
        if LORA or side[0] != "lora"
    }
    found = {each: [] for each in sides}
    rates = []
    for i in range(rounds):
        for each, side in sides.items():
            found[each].append(measured(*side))
            print(f"round {i + 1}  {each} {found[each][-1]}", file=sys.stderr, flush=True)
        rates.append(measured("lmx", "rollouts"))
        print(f"round {i + 1}  {rates[-1]}", file=sys.stderr, flush=True)
    print(f"a LLaMA of 3.3M parameters; medians of {rounds} interleaved rounds\n")
    for kind in SIDES:
        print(f"{kind:28}{'seconds':>10}{'to lmx':>9}{'of CPU':>10}{'to lmx':>9}{'resident':>12}{'arrays':>12}")
        for each in found:
            if each[0] == kind:
                print(line(each[1], found[each], found[kind, "lmx"]))
        print()
    one, many = (statistics.median(each[what] for each in rates) for what in ("one", "many"))
    ratio = statistics.median(each["many"] / each["one"] for each in rates)
    print(f"rollout, tokens/s: {one:,.0f} of a single row, {many:,.0f} of a group of {GROUP}: {ratio:.2f}x")


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(*sys.argv[sys.argv.index("--measure") + 1 :])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
