"""Every family, of small models that lmx makes: out and in again, dense and packed, and with an adapter."""

import json

import mlx.core as mx
import pytest

from lmx_core import LanguageModel, make_config, quantised
from lmx_core.model import flat_parameters
from lmx_core.registry import registry
from lmx_core.testing import randomise
from lmx_hf import export, load_from_hf
from lmx_hf.alike import TRAINED_ALONE, differences

from . import cases

pytestmark = pytest.mark.filterwarnings("ignore:mlx-lm:lmx_core.errors.LmxWarning")

FAMILIES = [cases.param(name, data={"model_type": name}, name=name) for name in cases.loaders()]


@pytest.fixture(params=FAMILIES)
def family(request):
    return registry("loader").get(request.param)


@pytest.fixture
def model(family):
    """Of Qwen3-Next with numbers of few digits: packed, mlx-lm has `1 + weight` of its norms, which would round others."""
    config = make_config(family.factory, size="tiny", **cases.ARGUMENTS.get(family.model_type, {}))
    made = randomise(LanguageModel(config))
    if family.model_type == "qwen3_next":
        made.apply(lambda each: each.astype(mx.bfloat16).astype(mx.float32))
    return made


def same(one, other):
    ours, theirs = flat_parameters(one), flat_parameters(other)
    return ours.keys() == theirs.keys() and all(mx.array_equal(ours[name], theirs[name]).item() for name in ours)


def logits(model):
    return model.eval()(mx.random.randint(0, 250, (2, 24), key=mx.random.key(3)))[0]


@pytest.mark.parametrize(("program", "bits"), [("hf", None), ("mlx-lm", None), ("mlx-lm", 4)])
def test_what_is_written_is_read_again_bit_by_bit(family, model, program, bits, tmp_path):
    """Dense and packed; the config too."""
    if bits is not None:
        assert quantised.quantise(model, bits, 32).packed
    export(model, tmp_path / "out", program, family=family.model_type)
    again, _ = load_from_hf(tmp_path / "out")
    assert same(again, model)
    assert not differences(model.config, again.config, ignoring=TRAINED_ALONE)
    assert mx.array_equal(logits(again), logits(model)).item()


def test_an_adapter_is_added_to_its_matrices(family, model, tmp_path):
    """A LoRA of every matrix that the checkpoint has for attention: what is read is the weight and `B A` times its scale."""
    export(model, tmp_path / "base", family=family.model_type)
    tensors = dict(mx.load(str(tmp_path / "base/model.safetensors")))
    chosen = [name for name, each in tensors.items() if each.ndim == 2 and ("attn" in name or "attention" in name)]
    chosen = [name for name in chosen if name.endswith(".weight") and "norm" not in name.split(".")[-2]]
    assert chosen
    transposed = family.model_type in ("gpt2", "openai-gpt")
    adapter, expected = {}, dict(tensors)
    for i, name in enumerate(chosen):
        rows, columns = tensors[name].shape[::-1] if transposed else tensors[name].shape
        a = mx.random.normal((2, columns), key=mx.random.key(2 * i))
        b = mx.random.normal((rows, 2), key=mx.random.key(2 * i + 1))
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        adapter |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
        expected[name] = tensors[name] + 2.0 * ((b @ a).T if transposed else b @ a)
    folder = tmp_path / "adapter"
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), adapter)
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["all"], "fan_in_fan_out": transposed}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    (tmp_path / "fused").mkdir()
    mx.save_safetensors(str(tmp_path / "fused/model.safetensors"), expected)
    (tmp_path / "fused/config.json").write_text((tmp_path / "base/config.json").read_text())
    found, wanted = load_from_hf(tmp_path / "base", adapter=folder)[0], load_from_hf(tmp_path / "fused")[0]
    found, wanted, before = (flat_parameters(each) for each in (found, wanted, model))
    assert any(not mx.array_equal(wanted[name], before[name]).item() for name in wanted)
    assert all(mx.allclose(found[name], wanted[name], atol=1e-5).item() for name in wanted)
