"""Pairs that a small model learns to tell apart, and runs of it."""

import json

import mlx.core as mx
import numpy as np

from lmx_core import LanguageModel, make_config
from lmx_core.data.prompts import Pair
from lmx_core.data.tokenizers import ByteTokenizer
from lmx_core.train import main
from lmx_core.train.config import RunConfig, TrainConfig
from lmx_rl.preference import KTO, Comparisons, judged_of, pairs_of, taken_apart

VOCABULARY = 16


RUN = """
[model]
factory = "llama"
size = "tiny"
d_model = 32
dropout = 0.1

[data]
dataset = "preferred-under-test"

[train]
max_steps = 12
batch_size = 4
grad_accumulation_steps = 2
seq_len = 32
warmup_steps = 2
schedule = "constant"
log_interval = 1
eval_interval = 5
checkpoint_interval = 100
sample_tokens = 4

[train.trainer]
name = "{trainer}"
"""


def some_pairs(count, seed=0):
    """Of random prompts and completions: the one whose tokens are even is better."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        prompt = draw.integers(0, VOCABULARY, draw.integers(1, 9))
        even, odd = (2 * draw.integers(0, VOCABULARY // 2, draw.integers(1, 7)) + i for i in range(2))
        yield Pair(*(each.astype(np.int32) for each in (prompt, even, odd)))


def pair_of(prompt, chosen, rejected):
    return Pair(*(np.arange(length, dtype=np.int32) for length in (prompt, chosen, rejected)))


def material_of(pairs=300, held_out=100, longest=16, judged=False):
    make = (lambda pairs, longest: judged_of(taken_apart(pairs), longest)) if judged else pairs_of
    train, validation = make(some_pairs(pairs), longest), make(some_pairs(held_out, seed=1), longest)
    return Comparisons(tokenizer=ByteTokenizer(), train=train, validation=validation, what="pairs")


def model_of(seed=0, vocabulary=VOCABULARY, dropout=0.0):
    mx.random.seed(seed)
    return LanguageModel(make_config("llama", "tiny", vocab_size=vocabulary, d_model=32, dropout=dropout))


def config_of(**train):
    chosen = {"max_steps": 40, "batch_size": 16, "seq_len": 16, "warmup_steps": 2, "learning_rate": 3e-3, **train}
    return RunConfig(model=model_of().config, train=TrainConfig(**chosen))


def trainer_of(recipe, options, model=None, material=None, **train):
    material = material or material_of(judged=recipe is KTO)
    return recipe(config_of(**train), options).trainer(model or model_of(), material)


def expected(model, rows):
    """Log-probabilities row by row, of all logits, without batches, padding or truncation."""
    found = []
    model.eval()
    for i in range(len(rows)):
        begin = rows.ends[i] - rows.inputs[i] - 1
        tokens = mx.array(rows.tokens[begin : rows.ends[i]])
        logits = model(tokens[None, :-1])[0]
        logps = logits - mx.logsumexp(logits, -1, keepdims=True)
        at = mx.take_along_axis(logps[0], tokens[1:, None], -1)[:, 0]
        found.append(np.array(at)[len(at) - rows.targets[i] :])
    model.train()
    return found


class Steps:
    def __init__(self, found):
        self.found = found

    def on_step_end(self, trainer, metrics):
        self.found.append(dict(metrics))


class Evaluations:
    def __init__(self, found):
        self.found = found

    def on_eval_end(self, trainer, metrics):
        self.found.append(dict(metrics))


class Preferred:
    """A dataset: of two greetings the longer one is better."""

    def documents(self, split):
        return [f"{each}: hello, " for each in self._names(split)]

    def pairs(self, tokenizer, split):
        for each in self._names(split):
            texts = f"{each}: ", f"good day, {each}", "hi"
            yield Pair(*(np.array(tokenizer.encode(text), np.int32) for text in texts))

    def _names(self, split):
        return [f"{split}{i}" for i in range(40 if split == "train" else 10)]


def job_of(folder, trainer, *assignments):
    file = folder / "run.toml"
    file.write_text(RUN.format(trainer=trainer))
    return main.started(file, assignments, None, False)


def losses_in(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]
