"""`lmx quantize`, and checkpoints of few bits from the folder to the logits."""

import json

import attrs
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from lmx_core import LanguageModel, load_model, make_config, save_model
from lmx_core.cli import lmx
from lmx_core.data.tokenizers import ByteTokenizer, load_tokenizer, save_tokenizer
from lmx_core.errors import ConfigError
from lmx_core.model import flat_parameters
from lmx_core.quantised import BITS, Packing, packed_modules, quantise
from lmx_core.testing import close, randomise
from lmx_hf.cli import quantize
from lmx_hf.load import load_from_hf
from lmx_hf.save import export

pytestmark = pytest.mark.once

TOKENS = mx.array([[1, 5, 3, 200, 17, 90, 2]])
FOUR = {"bits": 4, "group_size": 32, "mode": "affine"}
SIZES = {"d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_ff": 96, "n_layers": 2}


def model(**sizes):
    config = make_config("llama", **{**SIZES, **sizes})
    return randomise(LanguageModel(attrs.evolve(config, vocab_size=256))).eval()


def run(*arguments):
    """What `lmx quantize` prints; its errors are raised."""
    done = CliRunner().invoke(lmx, ["quantize", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def same_weights(one, other):
    kept, found = flat_parameters(one), flat_parameters(other)
    assert kept.keys() == found.keys()
    assert all(kept[name].dtype == found[name].dtype and mx.array_equal(kept[name], found[name]) for name in kept)


def test_a_checkpoint(tmp_path):
    """Is packed as in Python, and read again to the bit; mlx-lm is told of the modules that differ by its names."""
    net = model()
    export(net, tmp_path / "hf", "hf")
    rules = ["--rule", "layers.0.*=8", "--rule", "*.v_proj=dense", "--rule", "head=bits:6,group_size:64"]
    told = json.loads(run(tmp_path / "hf", tmp_path / "out", "--group-size", 32, *rules, "--json"))
    done = quantise(net, 4, 32, rules={"layers.0.*": 8, "*.v_proj": False, "head": {"bits": 6, "group_size": 64}})
    assert told == {"path": str(tmp_path / "out"), **attrs.asdict(done), "bits_per_weight": done.bits_per_weight}
    read, _ = load_from_hf(tmp_path / "out")
    same_weights(read, net)
    assert mx.array_equal(read(TOKENS)[0], net(TOKENS)[0])
    entry = json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]
    parts = (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.o_proj",
        "mlp.up_proj",
        "mlp.down_proj",
        "mlp.gate_proj",
    )
    assert entry == {
        **FOUR,
        **{f"model.layers.0.{part}": {**FOUR, "bits": 8} for part in parts},
        **{f"model.layers.{i}.self_attn.v_proj": False for i in range(2)},
        "lm_head": {"bits": 6, "group_size": 64, "mode": "affine"},
    }


@pytest.mark.parametrize("mode", BITS)
def test_mlx_lm_computes_the_same(tmp_path, mode):
    """What it reads are the same packed numbers."""
    utils = pytest.importorskip("mlx_lm.utils", reason="mlx-lm is not installed")
    export(model(), tmp_path / "hf", "hf")
    run(tmp_path / "hf", tmp_path / "out", "--mode", mode, "--group-size", 16 if mode == "nvfp4" else 32)
    ours, _ = load_from_hf(tmp_path / "out")
    theirs, _ = utils.load_model(tmp_path / "out")
    close(ours(TOKENS)[0], theirs(TOKENS), 1e-4)
    assert {how.mode for how in packed_modules(ours).values()} == {mode}


def test_packed_while_it_is_read(tmp_path):
    """The dense model is never held as a whole."""
    net = model(d_model=512, d_ff=2048, n_layers=8)
    dense = sum(weight.nbytes for weight in flat_parameters(net).values())
    export(net, tmp_path / "hf", "hf")
    del net
    mx.clear_cache()
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    load_from_hf(tmp_path / "hf", quantize=4)
    assert mx.get_peak_memory() - held < dense / 2


def test_a_model_of_lmx(tmp_path, monkeypatch):
    """Is written as lmx does, with its tokenizer; in a folder named after it unless another is given."""
    net = model()
    save_model(net, tmp_path / "own")
    save_tokenizer("bytes", ByteTokenizer(), tmp_path / "own" / "tokenizer.json")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    told = run(tmp_path / "own")
    quantise(net)
    same_weights(load_model("own-4bit"), net)
    assert load_tokenizer("own-4bit/tokenizer.json").to_dict() == ByteTokenizer().to_dict()
    assert "4-bit affine, groups of 64: embed and 13 more" in told
    assert "dense, rows of 96 do not divide into groups of 64: layers.0.ffn.down and 1 more" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hf", "out", "--bits", "7"], "bits=7: mode 'affine' of MLX has"),
        (["hf", "out", "--rule", "layers.9.*=8"], "rule 'layers.9.\\*' matches no module"),
        (["hf", "out", "--rule", "head"], "write MODULES=HOW"),
        (["hf", "out", "--rule", "head=eight"], "'eight' is neither bits, nor 'dense', nor KEY:VALUE"),
        (["hf", "out", "--rule", "head=bit:8"], "has 'bit'. Did you mean 'bits'"),
        (["hf", "hf"], "hf is there already. Give a folder that is empty"),
        (["hf4", "out"], "hf4 has nothing left to quantise: it is packed already"),
        (["own", "out", "--revision", "main"], "--revision is for a repository on the hub"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    export(model(d_ff=128), "hf", "hf")
    packed_one = model(d_ff=128)
    quantise(packed_one)
    export(packed_one, "hf4", "mlx-lm")
    save_model(model(), "own")
    with pytest.raises(ConfigError, match=message):
        run(*arguments)
    assert not (tmp_path / "out").exists()


def test_the_modes_are_those_of_mlx():
    assert set(quantize.MODES) == set(BITS)


def as_gptq(weight, name):
    """Symmetric, with groups of 32: integers of 4 bits, eight inputs in each number."""
    weight = np.asarray(weight, np.float32).T
    scales = (np.abs(weight).reshape(-1, 32, weight.shape[1]).max(axis=1) / 7).astype(np.float16)
    codes = np.clip(np.rint(weight / scales.astype(np.float32).repeat(32, axis=0)) + 8, 0, 15).astype(np.uint32)
    shifts = np.arange(0, 32, 4, dtype=np.uint32)[:, None]
    qweight = (codes.reshape(-1, 8, codes.shape[1]) << shifts).sum(axis=1, dtype=np.uint32).view(np.int32)
    qzeros = np.full((len(scales), codes.shape[1] // 8), 0x77777777, np.int32)
    parts = {
        "qweight": qweight,
        "qzeros": qzeros,
        "scales": scales,
        "g_idx": np.arange(len(weight), dtype=np.int32) // 32,
    }
    dense = scales.astype(np.float32).repeat(32, axis=0) * (codes.astype(np.float32) - 8)
    return {f"{name}.{part}": mx.array(array) for part, array in parts.items()}, mx.array(dense.T)


def test_a_gptq_checkpoint_from_folder_to_logits(tmp_path):
    """Is packed in memory, and computes what the numbers that it stands for do."""
    export(model(), tmp_path / "hf", "hf")
    tensors, dense = dict(mx.load(str(tmp_path / "hf" / "model.safetensors"))), {}
    for name in [name for name in tensors if "_proj" in name]:
        made, dense[name] = as_gptq(tensors.pop(name), name.removesuffix(".weight"))
        tensors |= made
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    how = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "checkpoint_format": "gptq"}
    others = {name: tensor for name, tensor in tensors.items() if name.endswith("weight") and "_proj" not in name}
    for name, each, more in [("gptq", tensors, {"quantization_config": how}), ("dense", {**others, **dense}, {})]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**config, **more}))
        mx.save_safetensors(str(tmp_path / name / "model.safetensors"), each, {"format": "pt"})
    net, twin = (load_from_hf(tmp_path / name)[0] for name in ("gptq", "dense"))
    assert set(packed_modules(net).values()) == {Packing(4, 32)}
    assert len(packed_modules(net)) == 14
    close(net(TOKENS)[0], twin(TOKENS)[0], 1e-4)
    run(tmp_path / "gptq", tmp_path / "out", "--bits", 8)
    again, _ = load_from_hf(tmp_path / "out")
    assert packed_modules(again) == {**packed_modules(net), "embed": Packing(8, 64), "head": Packing(8, 64)}
