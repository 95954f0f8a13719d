"""The configs beside this package do what they say."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from lmx_core import load_model
from lmx_core.checkpoint import TOKENIZER, model_directory
from lmx_core.data.tokenizers import load_tokenizer
from lmx_core.serialize import read_file
from lmx_core.train.history import METRICS
from lmx_core.train.main import started
from lmx_rl.data import Addition

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.once


def greedy_accuracy(run):
    """The share of the held-out sums to which the likeliest digits are the right ones."""
    model, tokenizer = load_model(run), load_tokenizer(model_directory(run) / TOKENIZER)
    sums = [*Addition().sums("validation")]
    tokens = mx.array([tokenizer.encode(each.prompt) for each in sums])
    for _ in range(3):
        tokens = mx.concatenate([tokens, model(tokens)[0][:, -1:].argmax(-1).astype(tokens.dtype)], axis=1)
    right = np.array([tokenizer.encode(each.right) for each in sums])
    return float((np.array(tokens[:, -3:]) == right).all(axis=1).mean())


def trained(name, run, *assignments):
    return started(EXAMPLES / f"{name}.toml", assignments, run, False).run()


def test_the_model_is_that_of_the_reference(tmp_path):
    """As many numbers as the torch script of this setting trains: no biases in attention and at the head."""
    job = started(EXAMPLES / "addition-sft.toml", ["train.max_steps=1"], tmp_path / "sft", False)
    width, symbols, positions = 64, 13, 16
    block = 4 * width**2 + (width * 4 * width * 2 + 4 * width + width) + 2 * 2 * width
    assert job.run()["parameters"] == 2 * symbols * width + positions * width + 2 * block + 2 * width


def test_comparisons_follow_answers(tmp_path):
    """A model that adds badly tells right from wrong in 95 % of the held-out pairs, and adds better: after half as many steps
    as the file has.
    """
    trained("addition-sft", tmp_path / "sft", "train.eval_interval=1000")
    before = greedy_accuracy(tmp_path / "sft")
    assert 0.05 < before < 0.9
    start = f"start={json.dumps(str(tmp_path / 'sft'))}"
    found = trained("addition-dpo", tmp_path / "dpo", start, "train.max_steps=50")
    first, *_, last = [
        json.loads(line) for line in (tmp_path / "dpo" / METRICS).read_text().splitlines() if "val_loss" in line
    ]
    assert first["val_margin"] == 0
    assert last["val_accuracy"] == found["val_accuracy"] >= 0.95
    assert found["val_margin"] > 0.3
    assert greedy_accuracy(tmp_path / "dpo") >= before


def test_runs_that_go_on_name_the_first():
    """As its own first lines say to call it."""
    for file in EXAMPLES.glob("*.toml"):
        start = read_file(file).get("start")
        assert start in (None, "runs/addition-sft")
        assert f"lmx train plugins/lmx-rl/examples/{file.name} --run-dir runs/{file.stem}" in file.read_text()
