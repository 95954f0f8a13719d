"""The configs beside this package do what they say."""

import json
import math
from pathlib import Path

import pytest

from lmx_core.serialize import read_file
from lmx_core.train.history import METRICS
from lmx_core.train.main import started

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.once


def trained(name, run, *assignments):
    return started(EXAMPLES / f"{name}.toml", assignments, run, False).run()


def test_the_model_is_that_of_the_reference(tmp_path):
    """As many numbers as the torch script of this setting trains: no biases in attention and at the head."""
    job = started(EXAMPLES / "addition-sft.toml", ["train.max_steps=1"], tmp_path / "sft", False)
    width, symbols, positions = 64, 13, 16
    block = 4 * width**2 + (width * 4 * width * 2 + 4 * width + width) + 2 * 2 * width
    assert job.run()["parameters"] == 2 * symbols * width + positions * width + 2 * block + 2 * width


def test_comparisons_follow_answers(tmp_path):
    """In fewer and larger steps than the files have, which `benchmarks/bench_addition.py` takes: digits are likely where
    digits come, and what was right or wrong is told apart among sums that are held out, which begins with what was saved.
    """
    several = ["train.batch_size=32", "train.eval_interval=1000"]
    answers = trained("addition-sft", tmp_path / "sft", *several, "train.max_steps=120", "train.learning_rate=2e-3")
    assert answers["val_loss"] < 1.75 < math.log(10)
    start = f"start={json.dumps(str(tmp_path / 'sft'))}"
    found = trained("addition-dpo", tmp_path / "dpo", start, *several, "train.max_steps=30", "train.learning_rate=1e-3")
    first, *_, last = [
        json.loads(line) for line in (tmp_path / "dpo" / METRICS).read_text().splitlines() if "val_loss" in line
    ]
    assert first["val_margin"] == 0
    assert first["val_logp_chosen"] == pytest.approx(-3 * answers["val_loss"], rel=0.05)
    assert last["val_accuracy"] == found["val_accuracy"] >= 0.85
    assert found["val_margin"] > 0.15


def test_runs_that_go_on_name_the_first():
    """As its own first lines say to call it."""
    for file in EXAMPLES.glob("*.toml"):
        start = read_file(file).get("start")
        assert start in (None, "runs/addition-sft")
        assert f"lmx train plugins/lmx-rl/examples/{file.name} --run-dir runs/{file.stem}" in file.read_text()
