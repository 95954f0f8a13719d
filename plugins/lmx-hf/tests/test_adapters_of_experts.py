"""Adapters of experts, in the layouts in which checkpoints, PEFT and mlx-lm keep them."""

import mlx.core as mx
import numpy as np
import pytest

from lmx_core.errors import CheckpointError
from lmx_hf.adapters import fused, layouts
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, InTurn, Parts, Turned

from .small_adapters import close, mlx_lm, numbers, peft, scaled

pytestmark = pytest.mark.once

MLP = "model.layers.0.mlp"
E, D, F, R = 3, 4, 5, 2
"""Experts, width, their width, rank."""
STACKS = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
GATE, UP, DOWN = numbers(E, F, D, seed=1), numbers(E, F, D, seed=2), numbers(E, D, F, seed=3)
BOTH, IN_TURN = mx.concatenate([GATE, UP], axis=1), mx.stack([GATE, UP], axis=2).reshape(E, 2 * F, D)
A = {"both": numbers(E, R, D, seed=4), "down": numbers(E, R, F, seed=5)}
B = {"both": numbers(E, 2 * F, R, seed=6), "down": numbers(E, D, R, seed=7)}


def of_peft():
    """Ranks of experts lie one after the other in A, and those of one rank side by side in B; the first one is inside."""
    tensors = {}
    for module, part in ((f"{MLP}.experts.base_layer", "both"), (f"{MLP}.experts", "down")):
        tensors[f"{module}.lora_A.weight"] = A[part].reshape(E * R, -1)
        tensors[f"{module}.lora_B.weight"] = B[part].transpose(1, 2, 0).reshape(-1, R * E)
    return tensors


def new(part, weights):
    return np.stack([scaled(weights[e], A[part][e], B[part][e], 3) for e in range(E)])


def turned(each):
    return each.swapaxes(-1, -2)


@pytest.mark.parametrize(("w1", "w2", "w3"), [("gate_proj", "down_proj", "up_proj"), ("w1", "w2", "w3")])
def test_parameters_on_experts_one_by_one(w1, w2, w3, tmp_path):
    """The first half of what PEFT adds to `gate_up_proj` is the gate's."""
    mlp = MLP if w1 != "w1" else "model.layers.0.block_sparse_moe"
    weights = {f"{mlp}.experts.{e}.{w1}.weight": GATE[e] for e in range(E)}
    weights |= {f"{mlp}.experts.{e}.{w3}.weight": UP[e] for e in range(E)}
    weights |= {f"{mlp}.experts.{e}.{w2}.weight": DOWN[e] for e in range(E)}

    found = fused(weights, peft(tmp_path, of_peft(), **STACKS))

    both, down = new("both", BOTH), new("down", DOWN)
    assert list(found) == list(weights)
    for e in range(E):
        close(found[f"{mlp}.experts.{e}.{w1}.weight"], both[e, :F])
        close(found[f"{mlp}.experts.{e}.{w3}.weight"], both[e, F:])
        close(found[f"{mlp}.experts.{e}.{w2}.weight"], down[e])


def test_parameters_on_stacks(tmp_path):
    weights = {f"{MLP}.experts.gate_up_proj": BOTH, f"{MLP}.experts.down_proj": DOWN}

    found = fused(weights, peft(tmp_path, of_peft(), **STACKS))

    close(found[f"{MLP}.experts.gate_up_proj"], new("both", BOTH))
    close(found[f"{MLP}.experts.down_proj"], new("down", DOWN))


def test_parameters_on_stacks_stored_the_other_way_round(tmp_path):
    weights = {f"{MLP}.experts.gate_up_proj": turned(BOTH), f"{MLP}.experts.down_proj": turned(DOWN)}

    found = fused(weights, peft(tmp_path, of_peft(), **STACKS))

    close(found[f"{MLP}.experts.gate_up_proj"], turned(new("both", BOTH)))
    close(found[f"{MLP}.experts.down_proj"], turned(new("down", DOWN)))


@pytest.mark.parametrize("told", [False, True])
def test_square_stacks(told, tmp_path):
    """As gpt-oss has them, whose experts are as wide as the model: what the caller knows counts."""
    a, b, weight = numbers(E, R, D), numbers(E, D, R), numbers(E, D, D)
    tensors = {f"{MLP}.experts.lora_A.weight": a.reshape(E * R, D)}
    tensors[f"{MLP}.experts.lora_B.weight"] = b.transpose(1, 2, 0).reshape(D, R * E)
    adapter = peft(tmp_path, tensors, target_parameters=["experts.down_proj"])

    found = fused({f"{MLP}.experts.down_proj": weight}, adapter, lambda _: told)

    for e in range(E):
        expected = scaled(weight[e].T, a[e], b[e], 3).T if told else scaled(weight[e], a[e], b[e], 3)
        close(found[f"{MLP}.experts.down_proj"][e], expected)


@pytest.mark.parametrize("width", [D, 2 * D])
@pytest.mark.parametrize("stored_turned", [False, True])
def test_square_stacks_beside_another(stored_turned, width, tmp_path):
    """Without a word from the caller the tensor beside a square one tells; `width` is that of the model."""
    gate_up, down = numbers(E, 2 * D, width), numbers(E, width, D)
    square, name = (down, "down_proj") if width == D else (gate_up, "gate_up_proj")
    a, b = numbers(E, R, square.shape[-1], seed=8), numbers(E, square.shape[-2], R, seed=9)
    tensors = {f"{MLP}.experts.lora_A.weight": a.reshape(E * R, -1)}
    tensors[f"{MLP}.experts.lora_B.weight"] = b.transpose(1, 2, 0).reshape(-1, R * E)
    weights = {f"{MLP}.experts.gate_up_proj": gate_up, f"{MLP}.experts.down_proj": down}
    weights = {key: turned(value) if stored_turned else value for key, value in weights.items()}

    found = fused(weights, peft(tmp_path, tensors, target_parameters=[f"experts.{name}"]))[f"{MLP}.experts.{name}"]

    expected = np.stack([scaled(square[e], a[e], b[e], 3) for e in range(E)])
    close(found, turned(expected) if stored_turned else expected)


def test_layouts():
    """A family's rules know which tensors are stored (in, out), and whose rows take turns."""
    by_turns = Chain(Turned(), InTurn((1, 1), axis=1))
    rules = [
        Rule("h.{i}.c_attn.{p}", "layers.{i}.qkv.{p}", Chain(Turned(), Parts(1))),
        Rule("h.{i}.c_proj.weight", "layers.{i}.o.weight", Turned()),
        Rule("h.{i}.kv_b.weight", "layers.{i}.kv.weight", Chain(Parts(1), Turned())),
        Rule("h.{i}.experts.gate_up_proj", ["layers.{i}.gate", "layers.{i}.up"], by_turns),
        Rule("h.{i}.experts.gate_up_proj.{p}", ["layers.{i}.gate", "layers.{i}.up"], InTurn((1, 1), axis=1)),
        Rule("h.{i}.qkv.weight", ["layers.{i}.q", "layers.{i}.k"], InTurn((4, 2))),
        Rule("model.h.{i}.late.weight", "layers.{i}.late", Turned(), full=True),
    ]
    names = (
        "c_attn.weight",
        "c_proj.weight",
        "kv_b.weight",
        "experts.gate_up_proj",
        "qkv.weight",
        "late.weight",
        "norm",
    )
    whole = {f"model.h.0.{name}": f"h.0.{name}" for name in names} | {
        "model.h.1.experts.gate_up_proj.weight": "h.1.experts.gate_up_proj.weight"
    }

    transposed, interleaved = layouts(rules, whole)

    assert [name.removeprefix("model.h.") for name in whole if transposed(name)] == [
        f"0.{name}" for name in ("c_attn.weight", "c_proj.weight", "experts.gate_up_proj", "late.weight")
    ]
    assert [name.removeprefix("model.h.") for name in whole if interleaved(name)] == [
        "0.experts.gate_up_proj",
        "1.experts.gate_up_proj.weight",
    ]


@pytest.mark.parametrize("interleaved", [False, True])
def test_parameters_on_a_gate_of_its_own(interleaved, tmp_path):
    """As mlx-lm writes checkpoints; whether rows took turns where the adapter was trained, the caller knows."""
    names = [f"{MLP}.switch_mlp.{each}.weight" for each in ("gate_proj", "up_proj", "down_proj")]
    weights = dict(zip(names, (GATE, UP, DOWN), strict=True))

    found = fused(weights, peft(tmp_path, of_peft(), **STACKS), interleaved=lambda name: interleaved)

    both = new("both", IN_TURN if interleaved else BOTH)
    close(found[names[0]], both[:, ::2] if interleaved else both[:, :F])
    close(found[names[1]], both[:, 1::2] if interleaved else both[:, F:])
    close(found[names[2]], new("down", DOWN))


def of_mlx_lm(**names):
    """`lora_a` (E, R, in) and `lora_b` (E, out, R)."""
    tensors = {}
    for name, weight in names.items():
        tensors[f"{MLP}.switch_mlp.{name}.lora_a"] = numbers(E, R, weight.shape[-1], seed=len(name))
        tensors[f"{MLP}.switch_mlp.{name}.lora_b"] = numbers(E, weight.shape[-2], R, seed=len(name))
    return tensors


def of_each(name, weights):
    a, b = of_mlx_lm(**{name: weights}).values()
    return np.stack([scaled(weights[e], a[e], b[e], 3) for e in range(E)])


def test_switch_layers_on_experts_one_by_one(tmp_path):
    weights = {f"{MLP}.experts.{e}.gate_proj.weight": GATE[e] for e in range(E)}
    weights |= {f"{MLP}.experts.{e}.down_proj.weight": DOWN[e] for e in range(E)}

    found = fused(weights, mlx_lm(tmp_path, of_mlx_lm(gate_proj=GATE, down_proj=DOWN)))

    for e in range(E):
        close(found[f"{MLP}.experts.{e}.gate_proj.weight"], of_each("gate_proj", GATE)[e])
        close(found[f"{MLP}.experts.{e}.down_proj.weight"], of_each("down_proj", DOWN)[e])


@pytest.mark.parametrize("other_way_round", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_switch_layers_on_stacks(interleaved, other_way_round, tmp_path):
    """Gate and up projection each change their rows of the tensor that they share."""
    both = IN_TURN if interleaved else BOTH
    weights = {f"{MLP}.experts.gate_up_proj": turned(both) if other_way_round else both}
    adapter = mlx_lm(tmp_path, of_mlx_lm(gate_proj=GATE, up_proj=UP))

    found = fused(weights, adapter, interleaved=lambda name: interleaved)[f"{MLP}.experts.gate_up_proj"]

    found = turned(found) if other_way_round else found
    close(found[:, ::2] if interleaved else found[:, :F], of_each("gate_proj", GATE))
    close(found[:, 1::2] if interleaved else found[:, F:], of_each("up_proj", UP))


def test_nemotron(tmp_path):
    """mlx-lm numbers the projections of experts without a gate."""
    mixer = "backbone.layers.0.mixer"
    weights = {f"{mixer}.experts.{e}.up_proj.weight": UP[e] for e in range(E)}
    weights |= {f"{mixer}.experts.{e}.down_proj.weight": DOWN[e] for e in range(E)}
    tensors = of_mlx_lm(fc1=UP) | of_mlx_lm(fc2=DOWN)
    adapter = mlx_lm(tmp_path, {name.replace(MLP, mixer): value for name, value in tensors.items()})

    found = fused(weights, adapter)

    for e in range(E):
        close(found[f"{mixer}.experts.{e}.up_proj.weight"], of_each("fc1", UP)[e])
        close(found[f"{mixer}.experts.{e}.down_proj.weight"], of_each("fc2", DOWN)[e])


def test_granite(tmp_path):
    """Its checkpoints call stacks of experts linear layers."""
    moe = "model.layers.0.block_sparse_moe"
    weights = {f"{moe}.input_linear.weight": BOTH, f"{moe}.output_linear.weight": DOWN}
    tensors = of_mlx_lm(gate_proj=GATE, up_proj=UP, down_proj=DOWN)
    adapter = mlx_lm(tmp_path, {name.replace(MLP, moe): value for name, value in tensors.items()})

    found = fused(weights, adapter)

    close(found[f"{moe}.input_linear.weight"][:, :F], of_each("gate_proj", GATE))
    close(found[f"{moe}.input_linear.weight"][:, F:], of_each("up_proj", UP))
    close(found[f"{moe}.output_linear.weight"], of_each("down_proj", DOWN))


def test_packed_stacks(tmp_path):
    stack = numbers(E, 8, 64)
    parts = dict(zip(("weight", "scales", "biases"), mx.quantize(stack, 32, 4), strict=True))
    weights = {f"{MLP}.switch_mlp.up_proj.{part}": value for part, value in parts.items()}

    found = fused(weights, mlx_lm(tmp_path, of_mlx_lm(up_proj=stack)))

    assert list(found) == [f"{MLP}.switch_mlp.up_proj.weight"]
    close(found[f"{MLP}.switch_mlp.up_proj.weight"], of_each("up_proj", mx.dequantize(*parts.values(), 32, 4)))


def test_packed_stacks_of_both(tmp_path):
    """The tensor is dense once the gate has changed, and still stored as it was when the up projection does."""
    stack, gate, up = numbers(E, 64, 64), numbers(E, 32, 64, seed=1), numbers(E, 32, 64, seed=2)
    parts = dict(zip(("weight", "scales"), mx.quantize(stack, mode="mxfp4"), strict=True))
    weights = {f"{MLP}.experts.gate_up_proj.{part}": value for part, value in parts.items()}
    adapter = mlx_lm(tmp_path, of_mlx_lm(gate_proj=gate, up_proj=up))

    found = fused(weights, adapter, transposed=lambda _: True, interleaved=lambda _: True)

    dense = mx.dequantize(*parts.values(), mode="mxfp4")
    assert list(found) == [f"{MLP}.experts.gate_up_proj.weight"]
    close(found[f"{MLP}.experts.gate_up_proj.weight"][:, ::2], of_each("gate_proj", dense[:, ::2]), 2**-6)
    close(found[f"{MLP}.experts.gate_up_proj.weight"][:, 1::2], of_each("up_proj", dense[:, 1::2]), 2**-6)


def test_other_numbers_of_experts(tmp_path):
    weights = {f"{MLP}.experts.{e}.gate_proj.weight": GATE[0] for e in range(E + 1)}

    with pytest.raises(CheckpointError, match=r"\(3, 5, 4\), and the checkpoint has 4 experts"):
        fused(weights, mlx_lm(tmp_path, of_mlx_lm(gate_proj=GATE)))


def test_ranks_of_experts(tmp_path):
    """A rank that does not divide what is there says so."""
    adapter = peft(tmp_path, of_peft(), **STACKS, rank_pattern={"experts.gate_up_proj": 4})

    with pytest.raises(CheckpointError, match="no whole number of experts of rank 4"):
        fused({f"{MLP}.experts.gate_up_proj": BOTH, f"{MLP}.experts.down_proj": DOWN}, adapter)
