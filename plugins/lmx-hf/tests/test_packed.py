"""Weights that other programs packed mean the same when MLX has packed them: each format against slow code of its own."""

import json
import struct

import attrs
import mlx.core as mx
import numpy as np
import pytest

from lmx_core.errors import CheckpointError, ConfigError, LmxWarning
from lmx_core.quantised import Packing
from lmx_hf.packed import awq, quantisation_entry, unpacked

pytestmark = pytest.mark.once

GPTQ = {"quantization_config": {"quant_method": "gptq", "checkpoint_format": "gptq"}}
GPTQ_V2 = {"quantization_config": {"quant_method": "gptq", "checkpoint_format": "gptq_v2"}}
AWQ = {"quantization_config": {"quant_method": "awq", "version": "gemm"}}
MXFP4 = {"quantization_config": {"quant_method": "mxfp4"}}
FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
HALF = 2.0**-11
"""Half a unit in the last place of float16, relative."""


@attrs.frozen
class Integers:
    """A matrix (in, out) of `scales[group] * (codes - zeros[group])`, before anyone packs it."""

    codes: np.ndarray
    zeros: np.ndarray
    scales: np.ndarray
    group: np.ndarray
    bits: int = 4

    @classmethod
    def random(cls, width=128, out=64, size=32, bits=4, symmetric=False, group=None, seed=0):
        draw = np.random.default_rng(seed)
        codes = draw.integers(0, 2**bits, (width, out))
        zeros = draw.integers(1, 2**bits, (width // size, out))
        if symmetric:
            zeros = np.full_like(zeros, 2 ** (bits - 1))
        scales = draw.uniform(0.001, 0.1, zeros.shape).astype(np.float16)
        return cls(codes, zeros, scales, np.arange(width) // size if group is None else group, bits)

    def values(self):
        """(out, in), one by one, in float64."""
        found = np.empty(self.codes.shape[::-1])
        for i, group in enumerate(self.group):
            for o in range(self.codes.shape[1]):
                found[o, i] = float(self.scales[group, o]) * (int(self.codes[i, o]) - int(self.zeros[group, o]))
        return found


def stream(numbers, bits):
    """Along the first axis: bit k of number i is bit `i bits + k` of what is written, 32 to each int32."""
    packed = np.zeros((len(numbers) * bits // 32, *numbers.shape[1:]), np.uint32)
    for i in range(len(numbers)):
        for k in range(bits):
            word, place = divmod(i * bits + k, 32)
            packed[word] |= (numbers[i] >> k & 1).astype(np.uint32) << np.uint32(place)
    return packed.view(np.int32)


def eights(numbers, order=(0, 2, 4, 6, 1, 3, 5, 7)):
    """Along the last axis: nibble n of an int32 holds that one of eight neighbours."""
    packed = np.zeros((len(numbers), numbers.shape[1] // 8), np.uint32)
    for o in range(packed.shape[1]):
        for nibble, place in enumerate(order):
            packed[:, o] |= numbers[:, 8 * o + place].astype(np.uint32) << np.uint32(4 * nibble)
    return packed.view(np.int32)


def as_gptq(made, added=1, name="model.q_proj", index=True):
    tensors = {
        "qweight": stream(made.codes, made.bits),
        "qzeros": np.ascontiguousarray(stream((made.zeros - added & 2**made.bits - 1).T, made.bits).T),
        "scales": made.scales,
    }
    if index:
        tensors["g_idx"] = made.group.astype(np.int32)
    return {f"{name}.{part}": mx.array(tensor) for part, tensor in tensors.items()}


def as_awq(made, name="model.q_proj", order=(0, 2, 4, 6, 1, 3, 5, 7)):
    tensors = {"qweight": eights(made.codes, order), "qzeros": eights(made.zeros, order), "scales": made.scales}
    return {f"{name}.{part}": mx.array(tensor) for part, tensor in tensors.items()}


def values(tensors, width, name="model.q_proj"):
    """What MLX takes a module's weights for, with no rounding beyond that of scales and biases, and how they are packed."""
    weight, scales = tensors[f"{name}.weight"], tensors.get(f"{name}.scales")
    if scales is None:
        return np.asarray(weight.astype(mx.float32)), None
    how = Packing.read(weight, scales, width)
    biases = tensors.get(f"{name}.biases")
    if biases is not None:
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    dense = mx.dequantize(weight, scales, biases, **attrs.asdict(how))
    return np.asarray(dense.astype(mx.float32)), how


def near(found, made, how):
    """As near as one rounding to float16 allows: of `s z` where it is packed, of the weight where it is dense."""
    assert found.shape == made.values().shape
    rounded = (
        np.abs(made.values()) if how is None else np.abs(made.scales.astype(np.float64) * made.zeros)[made.group].T
    )
    return bool((np.abs(found - made.values()) <= HALF * rounded + 1e-7).all())


def fits(tensors, config, made):
    """Whether the converted tensors have the values, and nothing but these; how they are packed."""
    converted = unpacked(tensors, config)
    found, how = values(converted, len(made.codes))
    parts = {"weight", "scales", "biases"} if how else {"weight"}
    assert set(converted) == {f"model.q_proj.{part}" for part in parts}
    return near(found, made, how), how


@pytest.mark.parametrize("config", [GPTQ, GPTQ_V2], ids=["v1", "v2"])
@pytest.mark.parametrize("index", [True, False], ids=["g_idx", "none"])
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(bits, size, index, config):
    made = Integers.random(256, size=size, bits=bits)
    same, how = fits(as_gptq(made, int(config is GPTQ), index=index), config, made)
    assert same
    assert how == Packing(bits, size)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_awq(size):
    made = Integers.random(256, size=size)
    same, how = fits(as_awq(made), AWQ, made)
    assert same
    assert how == Packing(4, size)


@pytest.mark.parametrize(
    "pack", [lambda made: (as_gptq(made), GPTQ), lambda made: (as_awq(made), AWQ)], ids=["gptq", "awq"]
)
@pytest.mark.parametrize(("size", "parts"), [(256, 128), (96, 32), (192, 64), (384, 128)])
def test_a_group_that_mlx_does_not_have_is_several(pack, size, parts):
    """One for a whole row (group_size -1) too: nothing becomes dense."""
    made = Integers.random(384 if size != 256 else 512, size=size)
    same, how = fits(*pack(made), made)
    assert same
    assert how == Packing(4, parts)


@pytest.mark.parametrize(
    "pack", [lambda made: (as_gptq(made), GPTQ), lambda made: (as_awq(made), AWQ)], ids=["gptq", "awq"]
)
def test_symmetric_is_exact(pack):
    """With zeros of 8 nothing is rounded: to the last bit of float16 scales."""
    made = Integers.random(symmetric=True)
    found, how = values(unpacked(*pack(made)), 128)
    assert how == Packing(4, 32)
    assert np.array_equal(found, made.values())


def test_zeros_that_awq_does_not_store():
    made = Integers.random(symmetric=True)
    tensors = as_awq(made)
    del tensors["model.q_proj.qzeros"]
    assert np.array_equal(values(unpacked(tensors, AWQ), 128)[0], made.values())


def test_zeros_wrap_around():
    """A zero of 0 is stored as 15 in GPTQ's first format."""
    made = Integers.random()
    made.zeros[:] = 0
    assert fits(as_gptq(made), GPTQ, made)[0]


@pytest.mark.parametrize(
    "group", [np.random.default_rng(1).permutation(np.arange(128) // 32), np.arange(128) // 32 % 3]
)
def test_inputs_in_the_order_of_their_activations(group):
    """Are dense, in float16, with a warning."""
    made = Integers.random(group=group)
    with pytest.warns(LmxWarning, match="1 of 1 GPTQ modules have groups that are not neighbours"):
        converted = unpacked(as_gptq(made), GPTQ)
    assert set(converted) == {"model.q_proj.weight"}
    assert converted["model.q_proj.weight"].dtype == mx.float16
    found, how = values(converted, 128)
    assert near(found, made, how)
    assert not near(found, Integers.random(), how)


def test_groups_of_sixteen_are_dense():
    made = Integers.random(size=16)
    with pytest.warns(LmxWarning, match="of a size that MLX does not have"):
        assert fits(as_gptq(made), GPTQ, made) == (True, None)
    assert fits(as_awq(made), AWQ, made) == (True, None)


def test_mistakes_would_be_seen(monkeypatch):
    """Each of them makes other values: a format taken for another, nibbles in their plain order, a zero that is one off."""
    made = Integers.random()
    assert not fits(as_gptq(made), GPTQ_V2, made)[0]
    assert not fits(as_gptq(made, added=0), GPTQ, made)[0]
    assert not fits(as_awq(made, order=range(8)), AWQ, made)[0]
    turned = Integers.random(width=128, out=128)
    assert not fits(as_gptq(attrs.evolve(turned, codes=turned.codes.T)), GPTQ, turned)[0]
    monkeypatch.setattr(awq, "HELD_AT", (0, 2, 4, 6, 1, 3, 5, 7))  # the inverse of what it is
    assert not fits(as_awq(made), AWQ, made)[0]


def test_three_bits_run_from_one_number_into_the_next():
    """Ten whole, one of 2 + 1 bits, ten, one of 1 + 2 bits, ten: the layout of AutoGPTQ, written out."""
    numbers = np.arange(32) * 5 % 8
    words = np.zeros(3, np.uint64)
    for i in range(10):
        words[0] |= np.uint64(int(numbers[i]) << 3 * i)
        words[1] |= np.uint64(int(numbers[11 + i]) << 3 * i + 1)
        words[2] |= np.uint64(int(numbers[22 + i]) << 3 * i + 2)
    words[0] |= np.uint64((int(numbers[10]) & 3) << 30)
    words[1] |= np.uint64(int(numbers[10]) >> 2 | (int(numbers[21]) & 1) << 31)
    words[2] |= np.uint64(int(numbers[21]) >> 1)
    assert np.array_equal(stream(numbers[:, None], 3).view(np.uint32)[:, 0], words.astype(np.uint32))


def test_other_tensors_are_as_they_were():
    others = {"model.norm.weight": mx.ones(4), "model.q_proj.bias": mx.ones(64), "lm_head.weight": mx.ones((2, 2))}
    for tensors, config in [
        (as_gptq(Integers.random()), GPTQ),
        (as_awq(Integers.random()), AWQ),
        ({}, MXFP4),
        ({}, FP8),
    ]:
        found = unpacked({**tensors, **others}, config)
        assert all(found[name] is tensor for name, tensor in others.items())


def test_the_text_part_of_a_composite_says_how():
    made = Integers.random()
    assert fits(as_awq(made), {"text_config": AWQ}, made)[0]


E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def test_mxfp4():
    """Experts of gpt-oss: exact, and (experts, out, in)."""
    draw = np.random.default_rng(0)
    blocks = draw.integers(0, 256, (3, 6, 2, 16), np.uint8)
    scales = draw.integers(110, 140, (3, 6, 2), np.uint8)
    expected = np.empty((3, 6, 64), np.float32)
    for e, row, block, byte in np.ndindex(*blocks.shape):
        for half in range(2):
            code = int(blocks[e, row, block, byte]) >> 4 * half & 15
            size = E2M1[code & 7] * 2.0 ** (int(scales[e, row, block]) - 127)
            expected[e, row, 32 * block + 2 * byte + half] = -size if code & 8 else size
    name = "model.layers.0.mlp.experts.gate_up_proj"
    bias = mx.ones((3, 6))
    tensors = {f"{name}_blocks": mx.array(blocks), f"{name}_scales": mx.array(scales), f"{name}_bias": bias}
    converted = unpacked(tensors, MXFP4)
    assert set(converted) == {f"{name}.weight", f"{name}.scales", f"{name}_bias"}
    found, how = values(converted, 64, name)
    assert how == Packing(4, 32, "mxfp4")
    assert np.array_equal(found, expected)
    swapped = unpacked({**tensors, f"{name}_blocks": mx.array(blocks >> 4 | blocks << 4)}, MXFP4)
    assert not np.array_equal(values(swapped, 64, name)[0], expected)


def e4m3(code):
    """Sign, 4 bits of exponent less 7, 3 bits of mantissa; no infinities."""
    exponent, mantissa = code >> 3 & 15, code & 7
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if code & 128 else size


def file_of(path, **tensors):
    """A safetensors file with types that NumPy does not have."""
    head, data = {}, b""
    for name, (dtype, array) in tensors.items():
        head[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return dict(mx.load(str(path)))


@pytest.mark.parametrize("dtype", ["F32", "U8"])
@pytest.mark.parametrize("block", [[128, 128], [32, 48]])
def test_fp8(tmp_path, block, dtype):
    """A file as DeepSeek-V3's: blocks at the ends are cut off, scales are numbers, or exponents (bytes to MLX)."""
    draw = np.random.default_rng(0)
    codes = draw.choice(np.setdiff1d(np.arange(256), [127, 255]), (200, 300)).astype(np.uint8)
    shape = -(-200 // block[0]), -(-300 // block[1])
    exponents = draw.integers(115, 130, shape).astype(np.uint8)
    scales = 2.0 ** (exponents.astype(np.float32) - 127) if dtype == "U8" else draw.uniform(0.001, 1, shape)
    stored = exponents if dtype == "U8" else scales.astype(np.float32)
    expected = np.empty(codes.shape)
    for i, o in np.ndindex(*codes.shape):
        expected[i, o] = e4m3(int(codes[i, o])) * np.float32(scales[i // block[0], o // block[1]])
    tensors = file_of(
        tmp_path / "model.safetensors",
        **{
            "q.weight": ("F8_E4M3", codes),
            "q.weight_scale_inv": (dtype, stored),
            "q.input_scale": ("F32", np.ones(1, np.float32)),
        },
    )
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": block}}
    converted = unpacked(tensors, config)
    assert set(converted) == {"q.weight"}
    found = converted["q.weight"]
    assert found.dtype == mx.bfloat16
    assert mx.array_equal(found, mx.array(expected.astype(np.float32)).astype(mx.bfloat16))


def test_fp8_with_one_scale_for_all():
    tensors = {"q.weight": mx.array([[0x38, 0xB8]], mx.uint8), "q.weight_scale_inv": mx.array(0.5)}
    found = unpacked(tensors, {"quantization_config": {"quant_method": "fp8", "weight_block_size": None}})
    assert found["q.weight"].tolist() == [[0.5, -0.5]]


@pytest.mark.parametrize(("bits", "size", "mode"), [(3, 64, "affine"), (8, 32, "mxfp8"), (4, 16, "nvfp4")])
def test_what_mlx_packed_is_as_it_was(bits, size, mode):
    weight, scales, *biases = mx.quantize(mx.random.normal((8, 128)), group_size=size, bits=bits, mode=mode)
    tensors = {"q.weight": weight, "q.scales": scales, **({"q.biases": biases[0]} if biases else {})}
    how = {"bits": bits, "group_size": size, "mode": mode}
    assert unpacked(tensors, {"quantization": how, "quantization_config": how}) is tensors


def test_a_config_that_was_left_as_it_was():
    """Of a checkpoint that is dense by now."""
    dense = {"q.weight": mx.ones((8, 8), mx.bfloat16)}
    for method in ("gptq", "awq", "fp8", "mxfp4", "bitsandbytes"):
        found = unpacked(dense, {"quantization_config": {"quant_method": method}})
        assert found.keys() == dense.keys()
        assert found["q.weight"] is dense["q.weight"]


def test_nothing_is_computed():
    """Checkpoints larger than the machine: shapes and types are enough."""
    n = 2**20
    integers, half = mx.zeros((n // 8, n), mx.int32), mx.zeros((n // 128, n), mx.float16)
    zeros, exponents = mx.zeros((n // 128, n // 8), mx.int32), mx.zeros((9, n, n // 32), mx.uint8)
    found = [
        unpacked({"q.qweight": integers, "q.qzeros": zeros, "q.scales": half}, GPTQ),
        unpacked({"q.qweight": mx.zeros((n, n // 8), mx.int32), "q.qzeros": zeros, "q.scales": half}, AWQ),
        unpacked(
            {"q_blocks": mx.zeros((9, n, n // 32, 16), mx.uint8), "q_scales": exponents},
            MXFP4,
        ),
        unpacked({"q.weight": mx.zeros((n, n), mx.uint8), "q.weight_scale_inv": mx.zeros((n // 128, n // 128))}, FP8),
    ]
    assert [each["q.weight"].shape for each in found] == [(n, n // 8), (n, n // 8), (9, n, n // 8), (n, n)]


WORD = mx.zeros((8, 64), mx.int32)
NOT_READ = {
    "bitsandbytes": ({"q.weight": mx.zeros((8, 1), mx.uint8)}, {}, "by method 'bitsandbytes'. lmx reads MLX's own"),
    "compressed-tensors": ({"q.weight_packed": WORD}, {}, "by method 'compressed-tensors'"),
    "": ({"q.qweight": WORD}, {}, "no quantization_config that says by which method"),
    "gptq": ({"q.qweight": WORD}, {}, "q is no whole GPTQ module: qzeros and scales are missing"),
    "gptq, of AWQ's shapes": (as_awq(Integers.random()), {}, "model.q_proj is packed as no GPTQ module"),
    "gptq, marlin": ({"q.qweight": WORD}, {"checkpoint_format": "marlin"}, "'marlin' are not read. lmx reads gptq and"),
    "awq": ({"q.qweight": WORD}, {}, "q is no whole AWQ module: it has no scales"),
    "awq, of GPTQ's shapes": (as_gptq(Integers.random()), {}, "model.q_proj is packed as no AWQ module"),
    "awq, gemv": ({"q.qweight": WORD}, {"version": "gemv"}, "kernel 'gemv' are not read"),
    "mxfp4": ({"q_blocks": mx.zeros((2, 4, 1, 16), mx.uint8)}, {}, "q is packed as no mxfp4 is.*scales missing"),
    "fp8": ({"q.weight_scale_inv": mx.zeros((1, 1))}, {}, "but q.weight has none"),
    "fp8, of another block": (
        {"q.weight": mx.zeros((300, 200), mx.uint8), "q.weight_scale_inv": mx.zeros((2, 2))},
        {"weight_block_size": [128, 64]},
        r"q.weight \(300, 200\) has scales \(2, 2\) for blocks of \(128, 64\)",
    ),
    ", nvfp4": (
        {"q.global_scale": mx.zeros(1)},
        {},
        "q.global_scale: nvfp4 with a scale for whole tensors is not read",
    ),
}


@pytest.mark.parametrize("which", NOT_READ)
def test_what_is_not_read(which):
    tensors, more, message = NOT_READ[which]
    with pytest.raises(CheckpointError, match=message):
        unpacked(tensors, {"quantization_config": {"quant_method": which.partition(",")[0], **more}})


def test_the_entry_of_a_config():
    """What most modules are comes first; the others stand under the names of the checkpoint."""
    four, eight = Packing(4, 64), Packing(8, 32)
    packed = {"layers.0.q": four, "layers.0.k": four, "layers.0.up": four, "head": eight, "elsewhere": eight}
    modules = {
        "model.q": ["layers.0.q"],
        "model.kq": ["layers.0.k", "layers.0.q"],
        "lm_head": ["head"],
        "gate": ["router"],
    }
    assert quantisation_entry(packed, modules) == {
        "bits": 4,
        "group_size": 64,
        "mode": "affine",
        "lm_head": {"bits": 8, "group_size": 32, "mode": "affine"},
        "gate": False,
    }
    assert quantisation_entry({}, modules) == {}
    with pytest.raises(ConfigError, match=r"qh is one matrix.*layers.0.q \(4-bit affine.*head \(8-bit"):
        quantisation_entry(packed, {"qh": ["layers.0.q", "head"]})
