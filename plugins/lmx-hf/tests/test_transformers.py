"""Live comparison with transformers: what it writes is read, what lmx writes it reads, with the same logits both ways, and
as many parameters; `nox -s parity`.
"""

import json

import mlx.core as mx
import numpy as np
import pytest

from lmx_hf import export, load_from_hf

from . import cases
from .test_published import PUBLISHED, SIZES, arguments, of_checkpoint, parameters
from .variants import VARIANTS

torch = pytest.importorskip("torch", reason="compares with transformers, which needs torch: nox -s parity")
transformers = pytest.importorskip("transformers", reason="compares with transformers: nox -s parity")

CASES = [
    cases.param(model_type, {**shared, **own}, data={"model_type": model_type}, name=f"{model_type}-{i}")
    for model_type, (shared, *variants) in VARIANTS.items()
    for i, own in enumerate(variants)
]
TOLERANCE = 3e-4
"""Of the largest logit."""


def config_of(model_type, numbers):
    return transformers.AutoConfig.for_model(model_type, **json.loads(json.dumps(numbers)))


def attention_of(config):
    return "sdpa" if getattr(config, "alibi", False) else "eager"  # which adds Falcon's ALiBi twice


def model_of(config):
    """A model of transformers with everything that is learned drawn at random: zeros and ones hide mistakes."""
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=attention_of(config), dtype=torch.float32
    )
    random = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        drawn = torch.randn(weight.shape, generator=random)
        if name.endswith(("alpha_n", "A_log")):
            drawn = 0.5 * drawn - 1
        elif weight.ndim > 1 and "norm" not in name.split(".")[-2]:
            drawn = 0.25 * drawn
        elif name.endswith("bias"):
            drawn = 0.1 * drawn
        else:
            drawn = 0.3 * drawn + 1
        weight.data = drawn
    for name, correction in model.named_buffers():
        if name.endswith("correction_bias"):
            correction.copy_(0.3 * torch.randn(correction.shape, generator=random))
    return model.eval()


def theirs_on(model, chunks):
    """Logits of chunks that follow each other, with a cache."""
    found, past = [], None
    for chunk in chunks:
        out = model(torch.from_numpy(chunk), past_key_values=past, use_cache=True)
        found, past = [*found, out.logits.numpy()], out.past_key_values
    return np.concatenate(found, axis=1)


def ours_on(model, chunks, **length):
    cache = model.make_cache(**length)
    return np.concatenate([np.array(model(mx.array(chunk), cache=cache)[0]) for chunk in chunks], axis=1)


def chunked(tokens, size):
    return [tokens[:, i : i + size] for i in range(0, tokens.shape[1], size)]


def near(found, expected):
    far = np.abs(found - expected).max() / np.abs(expected).max()
    assert far <= TOLERANCE, f"differ by {far:.2g} of the largest logit, allowed {TOLERANCE:g}"


@pytest.mark.parametrize(("model_type", "numbers"), CASES)
@torch.no_grad()
def test_logits_are_those_of_transformers(model_type, numbers, tmp_path):
    """In one pass, and in chunks: as in one pass if it is known how many tokens there will be, else as in chunks there."""
    theirs = model_of(config_of(model_type, numbers))
    theirs.save_pretrained(tmp_path)
    ours, _ = load_from_hf(tmp_path)
    random = np.random.default_rng(5)
    for length in (7, 29):
        tokens = random.integers(3, numbers["vocab_size"], (2, length))
        out = theirs(torch.from_numpy(tokens))
        expected = out.logits.numpy()
        near(np.array(ours(mx.array(tokens))[0]), expected)
        for size in (1, 5, 16):
            near(ours_on(ours, chunked(tokens, size), length=[length]), expected)
        if "past_key_values" in out:  # GPT-1 has no cache there
            near(ours_on(ours, chunked(tokens, 5)), theirs_on(theirs, chunked(tokens, 5)))


@pytest.mark.parametrize(("model_type", "numbers"), CASES)
@torch.no_grad()
def test_transformers_reads_what_lmx_writes(model_type, numbers, tmp_path):
    """Every tensor finds its place, and the logits are the same: of a model that knows where it came from, and of one that
    does not."""
    theirs = model_of(config_of(model_type, numbers))
    theirs.save_pretrained(tmp_path / "theirs")
    model, _ = load_from_hf(tmp_path / "theirs")
    tokens = np.random.default_rng(5).integers(3, numbers["vocab_size"], (2, 29))
    expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    for source in (model.source, None):
        model.source = source
        folder = tmp_path / f"ours-{source is None}"
        export(model, folder, family=model_type)
        again, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, attn_implementation=attention_of(theirs.config), dtype=torch.float32
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert not report["mismatched_keys"]
        near(again.eval()(torch.from_numpy(tokens)).logits.numpy(), expected)


@pytest.mark.parametrize(("model_type", "size"), SIZES)
def test_parameters_are_those_of_transformers(model_type, size):
    """As many as the model of transformers has; of its config, `published.json` leaves out nothing that counts."""
    data = PUBLISHED[model_type][size]["config"]
    config = config_of(model_type, data)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) == parameters(of_checkpoint(model_type, size))
    assert arguments(model_type, config.to_dict()) == arguments(model_type, data)


def test_every_family_is_compared():
    """Each has variants."""
    assert {*cases.loaders()} == {*VARIANTS}
