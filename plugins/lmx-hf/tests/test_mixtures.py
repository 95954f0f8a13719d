"""Mixtures, latent attention and hybrids: the forms in which their checkpoints are found, besides those that lmx writes."""

import json
import re

import mlx.core as mx
import pytest

from lmx_core import LanguageModel, make_config
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.model import flat_parameters
from lmx_core.quantised import Packing, packed_modules, quantise
from lmx_core.registry import registry
from lmx_core.testing import randomise
from lmx_hf import config_from_hf, export, load_from_hf

from . import cases

PARTS = ("weight", "scales", "biases")
TOKENS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])
EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(\w+)\.weight")
HALF = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}


def families(*names):
    return [cases.param(name, data={"model_type": name}, name=name) for name in names]


def made(model_type, **changes):
    family = registry("loader").get(model_type)
    numbers = {**cases.ARGUMENTS.get(model_type, {}), **changes}
    return randomise(LanguageModel(make_config(family.factory, size="tiny", **numbers)))


def written(model, model_type, folder, program="hf"):
    export(model, folder, program, family=model_type)
    return folder, dict(mx.load(str(folder / "model.safetensors")))


def stored(folder, tensors, **keys):
    """The folder with these tensors in the place of its own, and more in its config."""
    mx.eval(tensors)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))
    return folder


def same(found, expected):
    one, other = flat_parameters(found), flat_parameters(expected)
    return one.keys() == other.keys() and all(mx.array_equal(one[name], other[name]).item() for name in one)


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): each for name, each in tensors.items()}


def experts_stacked(tensors):
    """As transformers has them while it runs: (experts, out, in), rows of the gate first."""
    rest = {name: each for name, each in tensors.items() if not EXPERT.fullmatch(name)}
    for place in {EXPERT.fullmatch(name)[1] for name in tensors if name not in rest}:
        numbers = range(sum(name.startswith(f"{place}.") and "down" in name for name in tensors))
        for whole, parts in HALF.items():
            each = [mx.concatenate([tensors[f"{place}.{i}.{part}.weight"] for part in parts]) for i in numbers]
            rest[f"{place}.{whole}"] = mx.stack(each)
    return rest


def experts_apart(tensors):
    out = {}
    for name, each in tensors.items():
        place, _, whole = name.rpartition(".")
        if not place.endswith(".experts"):
            out[name] = each
            continue
        parts = HALF[whole]
        for i, matrix in enumerate(each):
            halves = mx.split(matrix, len(parts))
            out |= {f"{place}.{i}.{part}.weight": half for part, half in zip(parts, halves, strict=True)}
    return out


def as_transformers_writes_olmo_hybrid(tensors):
    """Other names, and convolutions cut into thirds."""
    out = renamed("input_layernorm", "attention_layer_norm")(tensors)
    out = renamed("post_attention_layernorm", "feedforward_layer_norm")(out)
    for name in [name for name in out if ".q_conv1d." in name]:
        names = [name.replace(".q_", f".{each}_") for each in "qkv"]
        out |= dict(zip(names, mx.split(mx.concatenate([out[each] for each in names]), 3), strict=True))
    return out


OTHER_FORMS = {
    "qwen3_moe": experts_stacked,
    "olmoe": experts_stacked,
    "qwen3_next": experts_stacked,
    "qwen3_5_moe_text": experts_apart,
    "mixtral": lambda tensors: experts_stacked(numbered(tensors)),
    "deepseek_v3": renamed("mlp.gate.e_score", "mlp.e_score"),
    "minimax_m2": renamed("moe.e_score", "moe.gate.e_score"),
    "kimi_linear": renamed("layers.0.mlp.", "layers.0.block_sparse_moe."),
    "olmo_hybrid": as_transformers_writes_olmo_hybrid,
}


def numbered(tensors):
    """Mixtral's names of an expert's matrices as others say them."""
    names = {".w1.": ".gate_proj.", ".w3.": ".up_proj.", ".w2.": ".down_proj."}
    for old, new in names.items():
        tensors = renamed(old, new)(tensors)
    return tensors


@pytest.mark.parametrize("model_type", families(*OTHER_FORMS))
def test_checkpoints_are_read_in_other_forms_too(model_type, tmp_path):
    """Bit by bit: saved again by transformers, or by its older versions."""
    model = made(model_type)
    folder, tensors = written(model, model_type, tmp_path / "out")
    other = OTHER_FORMS[model_type](tensors)
    assert other.keys() != tensors.keys()
    assert same(load_from_hf(stored(folder, other))[0], model)


@pytest.mark.parametrize("model_type", families("gpt_oss"))
def test_published_gpt_oss_stays_packed(model_type, tmp_path):
    """Its blocks of mxfp4 become rows that MLX multiplies with, bit by bit; its gate and up take turns row by row."""
    model = made(model_type)
    folder, tensors = written(model, model_type, tmp_path / "out")
    for name in [name for name in tensors if re.search(r"experts\.\w+_proj$", name)]:
        weight, scales = mx.quantize(tensors.pop(name).swapaxes(1, 2), mode="mxfp4")
        tensors[f"{name}_blocks"] = weight.view(mx.uint8).reshape(*scales.shape, 16)
        tensors[f"{name}_scales"] = scales
    found, _ = load_from_hf(stored(folder, tensors, quantization_config={"quant_method": "mxfp4"}))
    quantise(model, 4, rules={"*.experts.*": {"mode": "mxfp4", "group_size": 32}, **dict.fromkeys(OTHERS, False)})
    packed = packed_modules(found)
    assert len(packed) == 2 * 3
    assert {*packed.values()} == {Packing(4, 32, "mxfp4")}
    assert same(found, model)
    again, _ = load_from_hf(written(found, model_type, tmp_path / "again", "mlx-lm")[0])
    assert same(again, found)
    assert mx.array_equal(again(TOKENS)[0], model.eval()(TOKENS)[0]).item()


OTHERS = ("embed", "head", "*.attention.*")


@pytest.mark.parametrize("model_type", families("qwen3_5_moe_text"))
def test_experts_in_one_piece_may_be_packed(model_type, tmp_path):
    model = made(model_type)
    folder, tensors = written(model, model_type, tmp_path / "out")
    for name in [name for name in tensors if re.search(r"experts\.\w+_proj$", name)]:
        parts = mx.quantize(tensors.pop(name), 32, 4)
        tensors |= {f"{name}.{part}": each for part, each in zip(PARTS, parts, strict=True)}
    quantise(model, 4, 32, rules={"*": False, "*.experts.*": True})
    assert same(load_from_hf(stored(folder, tensors))[0], model)


@pytest.mark.parametrize("model_type", families("deepseek_v3", "kimi_linear"))
@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_keys_that_mlx_lm_packed_the_other_way_round_are_read(model_type, mode, tmp_path):
    """It has those of latent attention as (heads, latent, out), and packs along the last axis."""
    model = made(model_type, nope_head_dim=64)
    folder, tensors = written(model, model_type, tmp_path / "out", "mlx-lm")
    names = [name for name in tensors if ".embed_q." in name]
    assert names
    for name in names:
        parts = mx.quantize(tensors[name], 32, 4, mode)
        stem = name.removesuffix("weight")
        tensors |= {f"{stem}{part}": each for part, each in zip(PARTS, parts, strict=False)}
    found, _ = load_from_hf(stored(folder, tensors))
    keys = {name: each for name, each in flat_parameters(found).items() if name.endswith("k_up.weight")}
    ours = flat_parameters(model)
    assert len(keys) == len(names)
    for name, each in keys.items():
        expected = mx.dequantize(*mx.quantize(ours[name].swapaxes(1, 2), 32, 4, mode), group_size=32, bits=4, mode=mode)
        assert mx.array_equal(each, expected.swapaxes(1, 2)).item()


@pytest.mark.parametrize("model_type", families("kimi_linear", "olmo_hybrid"))
def test_parts_of_one_matrix_may_be_packed_in_several_ways(model_type, tmp_path):
    """As mlx-lm's mixed recipes do: keys in 8 bits, values not at all. The one that lmx has of them is dense."""
    model = made(model_type)
    folder, tensors = written(model, model_type, tmp_path / "out")
    ways = {"q": (32, 4), "k": (32, 8)}
    expected = []
    for kind in "qkv":
        (name,) = (each for each in tensors if re.search(rf"layers\.0\.\w+_attn\.{kind}_proj\.weight$", each))
        if kind not in ways:
            expected.append(tensors[name])
            continue
        packed = mx.quantize(tensors.pop(name), *ways[kind])
        tensors |= {f"{name.removesuffix('weight')}{part}": each for part, each in zip(PARTS, packed, strict=True)}
        expected.append(mx.dequantize(*packed, *ways[kind]))
    found, _ = load_from_hf(stored(folder, tensors))
    joined = flat_parameters(found)["layers.0.attention.qkv_proj.weight"]
    assert mx.array_equal(joined, mx.concatenate(expected)).item()


FURTHER = {
    "deepseek_v3": "model.layers.2.",
    "glm4_moe": "model.layers.2.",
    "qwen3_next": "mtp.",
    "qwen3_5_text": "mtp.",
}


@pytest.mark.parametrize("model_type", families(*FURTHER))
def test_what_predicts_further_tokens_is_left_alone(model_type, tmp_path):
    """It alone."""
    model = made(model_type)
    folder, tensors = written(model, model_type, tmp_path / "out")
    more = {f"{FURTHER[model_type]}{name}": mx.zeros((2, 2)) for name in ("eh_proj.weight", "mlp.gate_proj.weight")}
    assert same(load_from_hf(stored(folder, tensors | more))[0], model)
    with pytest.raises(CheckpointError, match=r"unexpected(.|\n)*layers\.3\.eh_proj"):
        load_from_hf(stored(folder, tensors | {"model.layers.3.eh_proj.weight": mx.zeros((2, 2))}))


@pytest.mark.parametrize("model_type", families("mixtral", "kimi_linear"))
def test_a_layer_too_many_is_told_where_nothing_predicts_further_tokens(model_type, tmp_path):
    folder, tensors = written(made(model_type), model_type, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"unexpected(.|\n)*layers\.2\.layout"):
        load_from_hf(stored(folder, tensors | {"model.layers.2.input_layernorm.weight": mx.zeros((2,))}))


@pytest.mark.parametrize("model_type", families("mixtral"))
def test_an_expert_that_is_missing_is_told(model_type, tmp_path):
    folder, tensors = written(made(model_type), model_type, tmp_path / "out")
    del tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    with pytest.raises(CheckpointError, match=r"missing(.|\n)*layers\.1\.ffn\.experts\.up\.weight"):
        load_from_hf(stored(folder, tensors))


@pytest.mark.parametrize("model_type", families("llama4_text", "qwen3_5_text", "qwen3_5_moe_text"))
def test_text_parts_are_written_for_mlx_lm_as_parts_of_a_composite(model_type, tmp_path):
    """For transformers they are models of their own."""
    model = made(model_type)
    folder, tensors = written(model, model_type, tmp_path / "mlx", "mlx-lm")
    record = json.loads((folder / "config.json").read_text())
    assert record["model_type"] == model_type.removesuffix("_text")
    assert record["text_config"]["model_type"] == model_type
    assert all(name.startswith("language_model.") for name in tensors)
    folder, tensors = written(model, model_type, tmp_path / "hf")
    assert json.loads((folder / "config.json").read_text())["model_type"] == model_type
    assert all(name.startswith(("model.", "lm_head.")) for name in tensors)


@pytest.mark.parametrize("model_type", families("qwen3_next"))
def test_packed_qwen3_next_is_written_as_mlx_lm_has_it(model_type, tmp_path):
    """It takes norms and convolutions as they are where experts are stacked: `1 + weight`, and (channels, kernel, 1)."""
    model = made(model_type)
    _, dense = written(model, model_type, tmp_path / "dense", "mlx-lm")
    quantise(model, 4, 32)
    _, packed = written(model, model_type, tmp_path / "packed", "mlx-lm")
    name = "model.layers.0.input_layernorm.weight"
    assert mx.array_equal(packed[name], 1 + dense[name]).item()
    name = "model.layers.0.linear_attn.conv1d.weight"
    assert mx.array_equal(packed[name], dense[name].swapaxes(1, 2)).item()


PHIMOE = {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0], "short_mscale": 1.1}}
WRONG = {
    "deepseek_v2": ({"num_experts_per_tok": 2, "mlp_bias": True}, "mlp_bias is True"),
    "dbrx": ({"ffn_config": {"ffn_act_fn": {"name": "gelu"}}}, "activation 'gelu'"),
    "gpt_oss": ({"swiglu_alpha": 1.5}, "swiglu_alpha is 1.5"),
    "kimi_linear": ({"mlp_layer_types": ["sparse", "dense"]}, "layers without experts come first"),
    "llama4_text": ({"no_rope_layers": [1] * 48, "layer_types": ["full_attention"] * 48}, "layer 0 has the layer_type"),
    "phimoe": ({"rope_scaling": {**PHIMOE["rope_scaling"], "long_mscale": 1.2}}, "long_mscale 1.2"),
}


@pytest.mark.parametrize("model_type", families(*WRONG))
def test_a_config_that_lmx_has_no_model_for_is_refused(model_type):
    data, said = WRONG[model_type]
    with pytest.raises(ConfigError, match=said):
        config_from_hf({"model_type": model_type, **data})


@pytest.mark.parametrize("model_type", families("mixtral", "qwen3_next"))
def test_what_stays_in_full_precision_does_so_in_half(model_type, tmp_path):
    """Routers, and the decays of linear attention, in a model that is read as bfloat16."""
    folder, _ = written(made(model_type), model_type, tmp_path / "out")
    model, _ = load_from_hf(folder, dtype="bfloat16")
    kept = {f"{path}.{name}" for path, each in model.named_modules() for name in getattr(each, "full_precision", ())}
    types = {name: weight.dtype for name, weight in flat_parameters(model).items()}
    assert kept
    assert {types[name] for name in kept & types.keys()} == {mx.float32}
    assert {types[name] for name in types.keys() - kept} == {mx.bfloat16}
