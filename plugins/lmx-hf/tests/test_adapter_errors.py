"""What is said of adapters that do not fit or cannot be read."""

import json

import mlx.core as mx
import pytest

from lmx_core.errors import CheckpointError
from lmx_hf.adapters import fused

from .small_adapters import LAYER, folder, low_rank, mlx_lm, numbers, peft

pytestmark = pytest.mark.once

Q, K = f"{LAYER}.q_proj", f"{LAYER}.k_proj"
WEIGHTS = {f"{Q}.weight": numbers(6, 4), f"{K}.weight": numbers(6, 4)}


def refused(adapter, *said, weights=WEIGHTS):
    with pytest.raises(CheckpointError) as error:
        fused(weights, adapter)
    for each in said:
        assert each in str(error.value)


def test_all_that_is_wrong(tmp_path):
    """One error lists every tensor that has no place, those that have a wrong shape with both shapes."""
    tensors = low_rank(f"{LAYER}.q_porj", 6, 4) | low_rank(K, 6, 5) | {"score.weight": numbers(2, 4)}

    refused(
        peft(tmp_path, tensors),
        f"3 problems in {tmp_path}",
        f"the checkpoint has no {LAYER}.q_porj.weight. Did you mean '{Q}.weight'?",
        f"base_model.model.{K}.lora_A.weight and base_model.model.{K}.lora_B.weight: is for a tensor of shape (6, 5), and "
        f"{K}.weight has (6, 4)",
        "score.weight: the checkpoint has no score.weight.",
    )


def test_the_same_of_every_layer(tmp_path):
    """What is wrong with a hundred layers is said once."""
    tensors = {f"blocks.{i}.{name}": value for i in range(100) for name, value in low_rank("mixer", 6, 4).items()}
    refused(peft(tmp_path, tensors), "1 problem in", "no blocks.0.mixer.weight.", "And 99 like it.")


def test_norms_of_another_layout(tmp_path):
    """mlx-lm keeps Qwen3-Next's norms one larger than the hub does, unless the checkpoint is mlx-lm's already."""
    conv = "model.layers.0.linear_attn.conv1d.weight"
    adapter = mlx_lm(tmp_path, {"model.norm.weight": numbers(4)}, fine_tune_type="full")
    refused(adapter, "mlx_lm.convert", weights={"model.norm.weight": numbers(4), conv: numbers(8, 1, 4)})

    new = fused({"model.norm.weight": numbers(4, seed=1), conv: numbers(8, 4, 1)}, adapter)

    assert mx.array_equal(new["model.norm.weight"], numbers(4))


def test_vision_is_no_text(tmp_path):
    """An adapter of another part of the model does not fall on the text's layers."""
    tower = "model.vision_tower.layers.0.self_attn.q_proj"
    refused(peft(tmp_path, low_rank(tower, 6, 4)), f"the checkpoint has no {tower}.weight")


def test_two_that_are_meant(tmp_path):
    both = {f"model.{Q}.weight": numbers(6, 4), f"language_model.{Q}.weight": numbers(6, 4)}
    refused(peft(tmp_path, low_rank(Q, 6, 4)), f"model.{Q}.weight and language_model.{Q}.weight", weights=both)


def test_two_for_one_place(tmp_path):
    tensors = low_rank(Q, 6, 4) | low_rank(Q.removeprefix("model."), 6, 4)
    refused(peft(tmp_path, tensors), f"is for {Q}.weight, and so is base_model.{Q}.lora_A.weight")


def test_the_same_twice(tmp_path):
    tensors = low_rank(Q, 6, 4) | {f"{Q}.lora_A.other.weight": numbers(2, 4)}
    refused(peft(tmp_path, tensors), "is there twice")


@pytest.mark.parametrize("missing", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"])
def test_incomplete(missing, tmp_path):
    tensors = low_rank(Q, 6, 4) | {f"{Q}.lora_magnitude_vector": numbers(6)}
    del tensors[f"{Q}.{missing}"]
    refused(peft(tmp_path, tensors, use_dora=True), f"has no {missing.removesuffix('.weight')} beside it")


@pytest.mark.parametrize("missing", ["lora_a", "lora_b", "m"])
def test_incomplete_of_mlx_lm(missing, tmp_path):
    tensors = {f"{Q}.lora_a": numbers(4, 2), f"{Q}.lora_b": numbers(2, 6), f"{Q}.m": numbers(6)}
    del tensors[f"{Q}.{missing}"]
    refused(mlx_lm(tmp_path, tensors, fine_tune_type="dora"), f"has no {missing} beside it")


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        (low_rank(Q, 6, 4), {"r": 4}, "has rank 2, and the config says 4"),
        (low_rank(Q, 6, 4), {"rank_pattern": {"q_proj": 4}}, "has rank 2, and the config says 4"),
        (
            {f"{Q}.lora_A.weight": numbers(2, 4), f"{Q}.lora_B.weight": numbers(6, 3)},
            {},
            "no (rank, in) and (out, rank)",
        ),
        ({f"{Q}.lora_A.weight": numbers(2, 4, 3), f"{Q}.lora_B.weight": numbers(6, 2, 1)}, {}, "not of convolutions"),
        (
            low_rank(Q, 6, 4) | {f"{Q}.lora_magnitude_vector": numbers(4)},
            {"use_dora": True},
            "a magnitude of shape (4,)",
        ),
        (low_rank(Q, 6, 4) | {f"{Q}.lora_magnitude_vector": numbers(6)}, {}, "which the config says nothing of"),
        (low_rank(Q, 6, 4) | {f"{Q}.lora_B.bias": numbers(6)}, {}, f"the checkpoint has no {Q}.bias"),
        ({f"{Q}.lora_diag": numbers(2)}, {}, f"the checkpoint has no {Q}.lora_diag"),
        (low_rank(Q, 4, 6) | {f"{Q}.weight": numbers(4, 6)}, {}, "is for a tensor of shape (4, 6)"),
    ],
)
def test_misshapen(tensors, config, said, tmp_path):
    refused(peft(tmp_path, tensors, **config), said)


def test_misshapen_packing(tmp_path):
    weights = {f"{Q}.weight": mx.zeros((6, 8), mx.uint32), f"{Q}.scales": numbers(6, 2), f"{Q}.biases": numbers(6, 2)}
    refused(
        peft(tmp_path / "rows", low_rank(Q, 5, 64)), "(6, 8) of mlx.core.uint32 with scales (6, 2)", weights=weights
    )
    refused(peft(tmp_path / "bits", low_rank(Q, 6, 60)), "packed in a way that MLX does not know", weights=weights)


def test_of_mlx_lm(tmp_path):
    tensors = {f"{Q}.lora_a": numbers(4, 2), f"{Q}.lora_b": numbers(2, 6), f"{K}.weight": numbers(6, 4)}
    refused(mlx_lm(tmp_path, tensors), f"{K}.weight: is none of lora_a, lora_b")


@pytest.mark.parametrize("kind", ["IA3", "LOHA", "PROMPT_TUNING", "TRAINABLE_TOKENS"])
def test_other_kinds(kind, tmp_path):
    refused(peft(tmp_path, {}, peft_type=kind), f"of peft_type '{kind}'", "merge_and_unload()")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alora_invocation_tokens", [1]),
        ("arrow_config", {"top_k": 1}),
        ("kasa_config", {"beta": 1}),
        ("layer_replication", [[0, 1]]),
        ("trainable_token_indices", [3]),
        ("use_bdlora", {"nblocks": 2}),
        ("use_qalora", True),
        *(("init_lora_weights", value) for value in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")),
    ],
)
def test_other_variants(field, value, tmp_path):
    refused(peft(tmp_path, low_rank(Q, 6, 4), **{field: value}), f"{field}={value!r}")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": None}, "r=None"),
        ({"r": 0}, "r=0"),
        ({"lora_alpha": "16"}, "lora_alpha='16'"),
        ({"rank_pattern": [1]}, "damaged"),
        ({"alpha_pattern": {"q_proj": None}}, "q_proj=None"),
        ({"alpha_pattern": {"(": 1}}, "damaged"),
    ],
)
def test_damaged_config(config, said, tmp_path):
    refused(peft(tmp_path, low_rank(Q, 6, 4), **config), said)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lora_parameters": {"rank": 2, "alpha": 16}}, "scale=None"),
        ({"lora_parameters": None}, "scale=None"),
        ({"fine_tune_type": "prefix"}, "fine_tune_type='prefix'"),
    ],
)
def test_damaged_config_of_mlx_lm(config, said, tmp_path):
    refused(mlx_lm(tmp_path, {f"{Q}.lora_a": numbers(4, 2), f"{Q}.lora_b": numbers(2, 6)}, **config), said)


def test_files(tmp_path):
    """Each file that is missing, damaged or of another kind is named, with what to do."""
    refused(tmp_path, "adapter_config.json: No such file")
    config = tmp_path / "adapter_config.json"
    config.write_text("{")
    refused(tmp_path, "is damaged")
    config.write_text("[]")
    refused(tmp_path, "is damaged")
    config.write_text('{"rank": 8}')
    refused(tmp_path, "neither peft_type")
    config.write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    refused(tmp_path, "no adapter_model.safetensors")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    refused(tmp_path, "adapter_model.bin, a pickle", "save_pretrained")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"short")
    refused(tmp_path, "adapter_model.safetensors cannot be read")
    config.write_text('{"fine_tune_type": "lora", "lora_parameters": {"scale": 1}}')
    (tmp_path / "adapter_model.bin").unlink()
    (tmp_path / "adapters.npz").write_bytes(b"")
    refused(tmp_path, "adapters.npz, an old format", "mx.save_safetensors")


def test_an_adapter_of_nothing(tmp_path):
    """A file without a tensor is no adapter."""
    refused(
        folder(tmp_path, {"peft_type": "LORA", "r": 2, "lora_alpha": 2}, {}, "adapter_model.safetensors"), "no tensor"
    )
