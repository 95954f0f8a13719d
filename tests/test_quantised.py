"""Weights of few bits: what is packed, by which rules, and how packed models are saved, read, run and trained."""

import json

import attrs
import mlx.core as mx
import pytest
from click.testing import CliRunner
from mlx import nn
from mlx import optimizers as optim
from mlx.utils import tree_flatten

from lmx_core import LanguageModel, ModelConfig, build, generate, load_model, make_config, save_model
from lmx_core.checkpoint import load_weights
from lmx_core.cli import lmx
from lmx_core.data.tokenizers import ByteTokenizer, save_tokenizer, stream_text
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.model import flat_parameters
from lmx_core.quantised import Packing, packed_modules, packing, quantise, take_packing
from lmx_core.testing import SMALL, randomise
from lmx_core.testing.checks import close
from lmx_core.train.config import TrainConfig
from lmx_core.train.start import begun
from lmx_core.train.step import Micro, Step

TOKENS = mx.random.randint(0, 64, (2, 12), key=mx.random.key(3))
BLOCK = attrs.evolve(SMALL, position="rope", bias=False, ffn="gated", d_ff=128, norm="rms_norm")
AFFINE = [(2, 64), (3, 32), (4, 64), (4, 32), (5, 32), (6, 64), (8, 32)]
MODES = [*((*how, "affine") for how in AFFINE), (4, 32, "mxfp4"), (8, 32, "mxfp8"), (4, 16, "nvfp4")]
modes = pytest.mark.parametrize(("bits", "group_size", "mode"), MODES)


def model(seed=0, dtype=mx.float32, **changes):
    config = ModelConfig(**{"block": BLOCK, "vocab_size": 64, "n_layers": 2, "tie_embeddings": False, **changes})
    net = randomise(LanguageModel(config), seed).eval()
    net.set_dtype(dtype)
    return net


def unpacked(net):
    """The same model with the weights that the packed ones stand for, dense."""
    twin = LanguageModel(net.config).eval()
    weights = flat_parameters(net)
    for path, how in packed_modules(net).items():
        triplet = [weights.pop(f"{path}.{name}", None) for name in ("weight", "scales", "biases")]
        weights[f"{path}.weight"] = mx.dequantize(*triplet, **attrs.asdict(how)).astype(mx.float32)
    twin.load_weights(list(weights.items()))
    return twin


@modes
@pytest.mark.parametrize("tied", [False, True])
def test_a_packed_model_computes_with_the_rounded_weights(tied, bits, group_size, mode):
    """Embedding, tied head, attention and FFN; whole, and token by token with a cache."""
    net = model(tie_embeddings=tied)
    before = net(TOKENS)[0]
    done = quantise(net, bits, group_size, mode)
    assert set(done.packed.values()) == {Packing(bits, group_size, mode)}
    assert not done.dense
    logits = net(TOKENS)[0]
    close(logits, unpacked(net)(TOKENS)[0], 2e-4)
    assert mx.abs(logits - before).max() > 0
    cache = net.make_cache()
    steps = [net(TOKENS[:, i : i + 1], cache=cache)[0] for i in range(12)]
    close(mx.concatenate(steps, axis=1), logits, 2e-4)


@pytest.mark.parametrize("rows", [1, 5, 200])
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32])
@pytest.mark.parametrize(("bits", "group_size", "mode"), [(4, 64, "affine"), (3, 32, "affine"), (4, 32, "mxfp4")])
def test_sums_of_products_are_not_rounded(rows, dtype, bits, group_size, mode):
    """One rounding of the result, as for dense weights, whatever the device and however many rows."""
    linear = nn.Sequential(nn.Linear(4096, 32))
    linear.set_dtype(dtype)
    x = mx.random.normal((rows, 4096), key=mx.random.key(1)).astype(dtype)
    quantise(linear, bits, group_size, mode)
    packed = linear.layers[0]
    scales, biases = packed.scales, packed.get("biases")
    if biases is not None:
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    weight = mx.dequantize(packed.weight, scales, biases, group_size=group_size, bits=bits, mode=mode).astype(
        mx.float32
    )
    exact = x.astype(mx.float32) @ weight.T + packed.bias.astype(mx.float32)
    assert linear(x).dtype == dtype
    close(linear(x).astype(mx.float32), exact, {mx.bfloat16: 1e-2, mx.float16: 2e-3, mx.float32: 1e-4}[dtype])


def test_eight_bits_stay_near():
    net = model()
    before = net(TOKENS)[0]
    quantise(net, 8, 32)
    close(net(TOKENS)[0], before, 0.1)
    assert generate(net, [1, 2, 3], max_tokens=4, temperature=0) == generate(
        unpacked(net), [1, 2, 3], max_tokens=4, temperature=0
    )


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@modes
def test_saved_and_read_to_the_bit(tmp_path, dtype, bits, group_size, mode):
    """The tensors say how they are packed, per module; nothing else is written down."""
    net = model(dtype=dtype, tie_embeddings=True)
    quantise(
        net, bits, group_size, mode, {"layers.1.*": {"bits": 3, "group_size": 32, "mode": "affine"}, "embed": False}
    )
    save_model(net, tmp_path)
    assert "quanti" not in (tmp_path / "config.json").read_text()
    again = load_model(tmp_path)
    assert packed_modules(again) == packed_modules(net)
    kept, read = flat_parameters(net), flat_parameters(again)
    assert kept.keys() == read.keys()
    assert all(read[name].dtype == weight.dtype and mx.array_equal(read[name], weight) for name, weight in kept.items())
    assert mx.array_equal(net(TOKENS)[0], again(TOKENS)[0])


def test_rules():
    """The last one that matches counts; what has no packed form or does not divide stays dense, and the report says why."""
    block = attrs.evolve(BLOCK, d_ff=96, position="learned", max_seq_len=32)
    net = model(block=block)
    total = net.count_parameters()
    rules = {"layers.0.*": 8, "layers.*.q_proj": {"group_size": 32}, "head": False, "*.v_proj": {"mode": "mxfp4"}}
    done = quantise(net, rules=rules)
    assert done.packed["embed"] == Packing(4, 64)
    assert done.packed["layers.0.attention.k_proj"] == Packing(8, 64)
    assert done.packed["layers.0.attention.q_proj"] == Packing(4, 32)
    assert done.packed["layers.1.attention.v_proj"] == Packing(4, 32, "mxfp4")
    assert done.packed == packed_modules(net)
    assert done.dense == {
        "head": "by rule 'head'",
        "positions.0": "LearnedPosition has no packed form",
        "layers.0.ffn.down": "rows of 96 do not divide into groups of 64",
        "layers.1.ffn.down": "rows of 96 do not divide into groups of 64",
    }
    assert done.parameters == total == net.count_parameters()
    sizes = [weight.nbytes for weight in flat_parameters(net).values()]
    assert (done.bytes_before, done.bytes_after) == (4 * total, sum(sizes))
    assert done.bits_per_weight == 8 * sum(sizes) / total


def test_rules_reach_what_a_wide_group_does_not():
    net = model(block=attrs.evolve(BLOCK, d_ff=96))
    assert quantise(net, rules={"*.down": {"group_size": 32}}).packed["layers.1.ffn.down"] == Packing(4, 32)


class Touchy(nn.Linear):
    sensitive = True


class Exact(nn.Linear):
    full_precision = frozenset({"weight"})


def test_sensitive_weights_stay_dense_unless_a_rule_names_them():
    def make():
        return nn.Sequential(Touchy(64, 8), Exact(64, 8), nn.Linear(64, 8))

    done = quantise(make())
    assert list(done.packed) == ["layers.2"]
    assert set(done.dense.values()) == {"is sensitive to rounding"}
    assert list(quantise(make(), rules={"layers.0": 8}).packed) == ["layers.0", "layers.2"]
    assert list(quantise(make(), rules={"layers.*": True}).packed) == ["layers.0", "layers.1", "layers.2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 7}, "bits=7: mode 'affine' of MLX has 1, 2, 3, 4, 5, 6, 8"),
        ({"bits": True}, "bits=True"),
        ({"group_size": 0}, "group_size=0: mode 'affine' of MLX has 32, 64, 128"),
        ({"mode": "mxfp4", "bits": 8}, "bits=8: mode 'mxfp4' of MLX has 4"),
        ({"mode": "mxfp6"}, "mode='mxfp6'. Did you mean 'mxfp"),
        ({"rules": {"layers.7.*": 8}}, "rule 'layers.7.\\*' matches no module with a matrix"),
        ({"rules": {"layers.0.attention.q_prj": 8}}, "Did you mean 'layers.0.attention.q_proj'"),
        ({"rules": {"layers.0": 8}}, "Did you mean 'layers.0.\\*'"),
        ({"rules": {"positions.0": 8}}, "quantises nothing: positions.0 \\(LearnedPosition\\) has no packed form"),
        ({"rules": {"head": {"group": 32}}}, "has 'group'. Did you mean 'group_size'"),
        ({"rules": {"head": {"bits": 9}}}, "rule 'head': bits=9"),
    ],
)
def test_mistakes(arguments, message):
    net = model(block=attrs.evolve(BLOCK, position="learned", max_seq_len=32))
    with pytest.raises(ConfigError, match=message):
        quantise(net, **arguments)
    assert not packed_modules(net)


def test_what_is_packed_stays_so():
    """A second call reaches what the first one left dense."""
    net = model()
    quantise(net, 4, rules={"layers.*": False})
    first = flat_parameters(net)["head.weight"]
    done = quantise(net, 8)
    assert done.packed["head"] == Packing(4, 64)
    assert done.packed["layers.0.ffn.up"] == Packing(8, 64)
    assert mx.array_equal(first, net.head.weight)
    with pytest.raises(ConfigError, match="quantises nothing: head is packed already"):
        quantise(net, rules={"head": 8})


def test_one_module_at_a_time():
    """A dense weight goes once its packed form is there: the peak is a module above the model, not another model."""
    net = model(block=attrs.evolve(BLOCK, d_model=512, d_ff=2048), n_layers=8)
    mx.eval(net.parameters())
    largest = max(weight.nbytes for weight in flat_parameters(net).values())
    mx.clear_cache()
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    seen = []
    done = quantise(net, progress=lambda *at: seen.append(at))
    assert mx.get_peak_memory() <= held + 2 * largest < held + done.bytes_after
    assert mx.get_active_memory() < held - 0.8 * (done.bytes_before - done.bytes_after)
    assert seen == [(i, len(done.packed)) for i in range(len(done.packed))]


def test_shapes_are_enough(tmp_path):
    """Nothing is read to know how a file is packed: weights that no machine holds are taken too."""
    net, rows = nn.Sequential(nn.Linear(64, 10**9, bias=False)), 10**9
    triplet = {"weight": mx.zeros((rows, 16), mx.uint32), "scales": mx.zeros((rows, 2), mx.uint8)}
    take_packing(net, {f"layers.0.{name}": weight for name, weight in triplet.items()})
    assert packing(net.layers[0]) == Packing(8, 32, "mxfp8")


class Headed(nn.Module):
    """A module with a matrix and no packed form."""

    def __init__(self):
        super().__init__()
        self.weight = mx.zeros((3, 8, 64))


def test_what_has_no_packed_form_comes_back_dense():
    net = nn.Sequential(Headed(), nn.Linear(64, 8, bias=False))
    matrix = mx.random.normal((3, 8, 64), key=mx.random.key(0)).astype(mx.float16)
    weight, scales, biases = mx.quantize(matrix, group_size=32, bits=5)
    kept = {"layers.1.weight": mx.zeros((8, 64))}
    found = take_packing(net, {"layers.0.weight": weight, "layers.0.scales": scales, "layers.0.biases": biases, **kept})
    assert found.keys() == {"layers.0.weight", "layers.1.weight"}
    assert found["layers.0.weight"].dtype == mx.float16
    assert mx.array_equal(found["layers.0.weight"], mx.dequantize(weight, scales, biases, group_size=32, bits=5))
    assert not packed_modules(net)


@pytest.mark.parametrize(
    ("weight", "scales", "message"),
    [
        (mx.zeros((64, 8), mx.uint32), mx.zeros((64, 3)), "no rows of 64 numbers"),
        (mx.zeros((64, 8), mx.uint32), mx.zeros((64, 4)), "4 bits in groups of 16 with scales of .*float32"),
        (mx.zeros((64, 8), mx.uint32), mx.zeros((64, 1), mx.uint8), "4 bits in groups of 64 with scales of .*uint8"),
        (mx.zeros((64, 14), mx.uint32), mx.zeros((64, 1)), "7 bits in groups of 64"),
        (mx.zeros((64, 8), mx.uint32), mx.zeros((64, 0)), "division"),
        (mx.zeros((64, 8), mx.uint32), mx.zeros(()), ""),
        (mx.zeros((64, 8), mx.uint8), mx.zeros((64, 1)), "uint8 \\(64, 8\\)"),
    ],
)
def test_files_that_are_packed_in_no_way(tmp_path, weight, scales, message):
    net = model()
    weights = {**flat_parameters(net), "head.weight": weight, "head.scales": scales}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    with pytest.raises(CheckpointError, match=f"head is packed in a way that MLX does not know: .*{message}"):
        load_weights(net, tmp_path / "model.safetensors")


def test_a_triplet_that_is_not_whole(tmp_path):
    """Named as missing or as no part of the model, like any other tensor."""
    net = model()
    quantise(net)
    weights = {**flat_parameters(net), "layers.9.scales": mx.zeros(3)}
    del weights["head.biases"]
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    with pytest.raises(
        CheckpointError, match=r"head.biases: is missing[^$]*layers.9.scales: is not part of this model"
    ):
        load_weights(model(), tmp_path / "model.safetensors")


def test_packed_weights_are_not_trained():
    """What is beside them is, and learns through them."""
    net = model()
    quantise(net, 8, rules={"head": False})
    assert "head.weight" in dict(tree_flatten(net.trainable_parameters()))
    optimizer, config = optim.SGD(0.1), TrainConfig(compile=False, dtype="float32")
    objective = build("objective", config.objective, config)
    batch = Micro({"inputs": TOKENS[:, :-1], "targets": TOKENS[:, 1:]}, seed=0)
    step = Step(net, objective, optimizer, config)
    packed, losses = net.layers[0].ffn.up.weight, [step([batch], 0.1)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]
    assert mx.array_equal(packed, net.layers[0].ffn.up.weight)
    net.unfreeze()
    with pytest.raises(
        ConfigError, match=r"no gradient: embed, layers.0.attention.q_proj, \S+k_proj and 12 more\. Freeze them"
    ):
        Step(net, objective, optimizer, config)


def test_no_run_starts_from_packed_weights(tmp_path):
    net = model()
    quantise(net)
    save_model(net, tmp_path)
    with pytest.raises(ConfigError, match="packed in few bits, and such weights are not trained"):
        begun({"start": str(tmp_path)})


@pytest.mark.parametrize("tied", [False, True])
def test_verbs(tmp_path, tied):
    """`lmx count` tells what its config has; `lmx generate` continues as the model does in Python."""
    net = randomise(LanguageModel(attrs.evolve(make_config("llama", size="tiny"), tie_embeddings=tied))).eval()
    total = net.count_parameters()
    quantise(net, 4, 32)
    save_model(net, tmp_path)
    save_tokenizer("bytes", ByteTokenizer(), tmp_path / "tokenizer.json")
    counted = CliRunner().invoke(lmx, ["count", str(tmp_path), "--json"])
    assert json.loads(counted.output)["total"] == total
    arguments = ["generate", str(tmp_path), "--prompt", "ab", "--max-tokens", "8", "--temp", "0"]
    drawn = generate(net, list(b"ab"), max_tokens=8, temperature=0)
    text = "".join(stream_text(ByteTokenizer(), iter(drawn)))
    assert CliRunner().invoke(lmx, arguments).output == f"ab{text}\n"
