"""Tiny checkpoints of transformers: the same logits, and the same continuation, however the tokens come; and out again."""

import mlx.core as mx
import pytest

from lmx_core import generate
from lmx_core.generation import generate_batch
from lmx_core.model import flat_parameters
from lmx_hf import export, load_from_hf

from . import cases

pytestmark = pytest.mark.filterwarnings("ignore:mlx-lm:lmx_core.errors.LmxWarning")

if not cases.CASES.is_dir():
    pytest.skip("the checkpoints to compare with (../shared/hf_cases) are not here", allow_module_level=True)


@pytest.fixture(params=cases.every())
def case(request, tmp_path):
    """The model, what transformers computes, and how close one may ask it to be."""
    model, _ = load_from_hf(cases.laid_out(request.param, tmp_path / "case"), dtype="float32")
    return model, *cases.expected(request.param)


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


@pytest.mark.parametrize(("program", "known"), [("hf", True), ("hf", False), ("mlx-lm", True)])
@pytest.mark.parametrize("file", cases.every("config.json"))
def test_what_is_exported_is_read_again_bit_by_bit(file, program, known, tmp_path):
    """The same parameters, of a model that knows where it came from, and of one whose family is found."""
    model, _ = load_from_hf(cases.laid_out(file, tmp_path / "case"), dtype="float32")
    if not known:
        model.source = None
    export(model, tmp_path / "out", program)
    ours, theirs = flat_parameters(model), flat_parameters(load_from_hf(tmp_path / "out")[0])
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(weight, theirs[name]).item() for name, weight in ours.items())
