"""Tiny checkpoints of transformers: the same logits, and the same continuation, however the tokens come."""

import json

import mlx.core as mx
import pytest

from lmx_core import generate
from lmx_core.generation import generate_batch

from . import hf
from .families import FAMILIES

FOLDERS = [hf.SHARED / "hf_cases"]
if not FOLDERS[0].is_dir():
    pytest.skip("the checkpoints to compare with (../shared/hf_cases) are not here", allow_module_level=True)

CASES = [
    FAMILIES[hf.Config.read(file)["model_type"]].case(file, name=f"{file.parent.name}-{file.stem}")
    for folder in FOLDERS
    for file in sorted(folder.glob("*/config*.json"))
    if hf.Config.read(file)["model_type"] in FAMILIES
]


@pytest.fixture(params=CASES)
def case(request):
    """The model, what transformers computes, and how close one may ask it to be."""
    file = request.param
    config = hf.Config.read(file)
    model = hf.build(FAMILIES[config["model_type"]], config, hf.tensors_of(file.parent))
    about = json.loads((file.parent / "case.json").read_text())
    return model, mx.load(str(file.parent / "case.safetensors")), about["tolerance"]


def near(found, expected, tolerance):
    far = mx.abs(found - expected).max().item()
    assert far <= tolerance, f"differ by {far:.3g}, allowed {tolerance:g}"


def in_chunks(model, tokens, size):
    cache = model.make_cache(length=[tokens.shape[1]])
    return mx.concatenate(
        [model(tokens[:, i : i + size], cache=cache)[0] for i in range(0, tokens.shape[1], size)], axis=1
    )


def test_logits_are_those_of_transformers(case):
    """In one pass, token by token, in chunks, and for rows of different lengths in one batch."""
    model, expected, tolerance = case
    for i in range(2):
        tokens, logits = expected[f"input_ids_{i}"], expected[f"logits_{i}"]
        near(model(tokens)[0], logits, tolerance)
        for size in (1, 7, 16):
            near(in_chunks(model, tokens, size), logits, tolerance)
    short, long = expected["input_ids_0"][:1], expected["input_ids_1"][:1]
    pad = long.shape[1] - short.shape[1]
    batch = mx.concatenate([mx.pad(short, [(0, 0), (pad, 0)]), long])
    cache = model.make_cache(padding=[pad, 0], length=[short.shape[1], long.shape[1]])
    ragged = mx.concatenate([model(part, cache=cache)[0] for part in (batch[:, :13], batch[:, 13:])], axis=1)
    near(ragged[0, pad:], expected["logits_0"][0], tolerance)
    near(ragged[1], expected["logits_1"][0], tolerance)


def test_the_greedy_continuation_is_that_of_transformers(case):
    """Alone, and in a batch with prompts of other lengths."""
    model, expected, _ = case
    prompt, continuation = expected["prompt"][0].tolist(), expected["greedy"][0].tolist()
    n = len(continuation)
    other = expected["input_ids_1"][0, : (model.longest() or 64) + 1 - n].tolist()
    assert generate(model, prompt, max_tokens=n, temperature=0.0) == continuation
    together = generate_batch(model, [other, prompt, other[:3]], max_tokens=n, temperature=0.0)
    assert together[1] == continuation
