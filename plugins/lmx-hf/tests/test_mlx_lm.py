"""What lmx writes for mlx-lm, read by mlx-lm, and what mlx-lm writes, read by lmx: every family, as it is installed."""

import warnings

import mlx.core as mx
import pytest

from lmx_core import LanguageModel, make_config, quantised, spec
from lmx_core.errors import LmxWarning
from lmx_core.model import flat_parameters
from lmx_core.registry import registry
from lmx_core.testing import randomise
from lmx_hf import export, load_from_hf, peers

from . import cases

utils = pytest.importorskip("mlx_lm.utils", reason="the test reads and writes with mlx-lm")

SHORT, LONG = [1.0, 1.5, 2.0, 2.5], [3.0, 5.0, 7.0, 9.0]


def longrope(short, long):
    return {"rope_scaling": spec("longrope", short_factor=short, long_factor=long, original_max_seq_len=64)}


ARGUMENTS = {
    **cases.ARGUMENTS,
    "deepseek_v2": {
        "rope_scaling": spec("yarn", factor=4.0, original_max_seq_len=64, mscale=0.707, mscale_all_dim=0.707)
    },
    "minicpm3": longrope(SHORT, LONG),
    "qwen2_moe": {"ffns": ["sparse"]},
}
"""Beside what all tests have: what checkpoints of a family are like, unlike the smallest size, and mlx-lm asks for."""
SAYS = {**dict.fromkeys(peers.REFUSED, "not supported"), "olmo": "^1$"}
"""What mlx-lm says of families that it does not load."""
NO_WINDOW = {"window": None}
OTHERWISE = {
    "gemma": {"activation": "gelu"},
    "gemma2": NO_WINDOW,
    "glm": {"rope_fraction": 1.0},
    "gpt_bigcode": {"activation": "gelu"},
    "minicpm3": {**longrope(LONG, LONG), "base_width": 64},
    "mistral": NO_WINDOW,
    "phi3": NO_WINDOW,
    "qwen2": NO_WINDOW,
    "starcoder2": {"window": None, "activation": "gelu"},
}
"""Families of which mlx-lm computes another model, even of the smallest: what makes it that one."""
WIDE_SHORT, WIDE_LONG = SHORT + SHORT, LONG + LONG
FURTHER = {
    "dbrx": ({"renormalise": False}, {}),
    "gpt_neox": ({"activation": "gelu"}, {"activation": "gelu_tanh"}),
    "gpt_oss": ({"clamp": 0.5}, {"clamp": 7.0}),
    "llama4_text": ({"pattern": ["nope", "rope"]}, {"pattern": ["rope", "rope", "rope", "nope"]}),
    "mixtral": ({"window": 8}, {"window": None}),
    "olmoe": ({"clip": 0.2}, {"clip": None}),
    "phi3": (
        {"window": None, **longrope(WIDE_SHORT, WIDE_LONG)},
        {"window": None, **longrope(WIDE_LONG, WIDE_LONG)},
    ),
    "qwen3_moe": ({"window": 8}, {"window": None}),
}
"""The same of models that have what the smallest has not, such as Pythia and the long ones of Phi-3."""
SHIFTED = ("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next")
"""Families of which it stores `1 + weight` in the place of a norm's weight, which rounds it."""
TOLERANCE = 3e-5
"""Of the largest logit."""
GROUP = 64


def families(*without):
    known = [name for name in cases.loaders() if all(name not in each for each in without)]
    return [cases.param(name, data={"model_type": name}, name=name) for name in known]


READ = families(SAYS)
"""Those that mlx-lm loads."""
RIGHT = families(SAYS, OTHERWISE)
"""Those of which it computes what transformers does."""


def listed(table):
    return [cases.param(name, *each, data={"model_type": name}, name=name) for name, each in table.items()]


def made(model_type, **changes):
    factory = registry("loader").get(model_type).factory
    config = make_config(factory, size="tiny", **{**ARGUMENTS.get(model_type, {}), **changes})
    return randomise(LanguageModel(config)).eval()


def written(model, model_type, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmxWarning)  # of what mlx-lm will make of it
        export(model, folder, "mlx-lm", family=model_type)
    return folder


def saved(theirs, config, folder):
    """As mlx-lm writes it."""
    utils.save_model(folder, theirs)
    utils.save_config(config, folder / "config.json")
    return folder


def logits(model):
    """Of more tokens than the windows of the smallest models are long."""
    tokens = mx.random.randint(0, 250, (2, 24), key=mx.random.key(3))
    out = model(tokens)
    return out[0] if isinstance(out, tuple) else out


def distance(found, expected):
    return (mx.abs(found - expected).max() / mx.abs(expected).max()).item()


def equal(one, other):
    return one.dtype == other.dtype and mx.array_equal(one, other).item()


def same(model_type, ours, theirs):
    """Whether a dense weight came back as it was."""
    if model_type in SHIFTED and ours.ndim == 1:
        return mx.allclose(ours, theirs, rtol=0, atol=2**-22).item()
    return equal(ours, theirs)


def rounded(weight, bits):
    """Packed, and dense again."""
    return mx.dequantize(*mx.quantize(weight, GROUP, bits), GROUP, bits)


@pytest.mark.parametrize("model_type", RIGHT)
def test_mlx_lm_computes_what_lmx_does(model_type, tmp_path):
    """From a folder that lmx wrote, dense and packed; without a warning."""
    model = made(model_type)
    export(model, tmp_path / "dense", "mlx-lm", family=model_type)
    theirs, _ = utils.load_model(tmp_path / "dense")
    assert distance(logits(theirs), logits(model)) < TOLERANCE
    packed = quantised.quantise(model, 4, GROUP).packed
    theirs, _ = utils.load_model(written(model, model_type, tmp_path / "packed"))
    assert packed
    assert distance(logits(theirs), logits(model)) < TOLERANCE


@pytest.mark.parametrize(("model_type", "changes"), listed({name: [each] for name, each in OTHERWISE.items()}))
def test_mlx_lm_computes_another_model(model_type, changes, tmp_path):
    check_another(model_type, {}, changes, tmp_path)


@pytest.mark.parametrize(("model_type", "arguments", "changes"), listed(FURTHER))
def test_mlx_lm_computes_another_model_of_further_ones(model_type, arguments, changes, tmp_path):
    check_another(model_type, arguments, changes, tmp_path)


def check_another(model_type, arguments, changes, tmp_path):
    """The one that is said; and not, which would be news, that of the family. A warning says so."""
    model = made(model_type, **arguments)
    with pytest.warns(LmxWarning, match=peers.OTHERWISE[model_type][-1].why if arguments else "mlx-lm"):
        export(model, tmp_path / "dense", "mlx-lm", family=model_type)
    theirs, _ = utils.load_model(tmp_path / "dense")
    assert distance(logits(theirs), logits(model)) > TOLERANCE
    assert distance(logits(theirs), logits(made(model_type, **changes))) < TOLERANCE


@pytest.mark.parametrize(("model_type", "says"), listed({name: [each] for name, each in SAYS.items()}))
def test_mlx_lm_refuses(model_type, says, tmp_path):
    folder = written(made(model_type), model_type, tmp_path / "dense")
    with pytest.raises(BaseException, match=says):  # SystemExit among them
        utils.load_model(folder)


@pytest.mark.parametrize("model_type", ["cohere2", "gemma3_text"])
def test_mlx_lm_refuses_an_order_of_layers_that_it_has_no_key_for(model_type, tmp_path):
    """It reads `sliding_window_pattern`, and would go on with one of its own if there were none."""
    model = made(model_type, pattern=["full", "sliding", "sliding"])
    with pytest.raises(TypeError, match="NoneType"):
        utils.load_model(written(model, model_type, tmp_path / "dense"))


@pytest.mark.parametrize("model_type", READ)
def test_what_mlx_lm_saves_is_read_bit_by_bit(model_type, tmp_path):
    model = made(model_type)
    folder = saved(*utils.load_model(written(model, model_type, tmp_path / "ours")), tmp_path / "theirs")
    ours, back = flat_parameters(model), flat_parameters(load_from_hf(folder)[0])
    assert ours.keys() == back.keys()
    assert [name for name in ours if not same(model_type, ours[name], back[name])] == []


@pytest.mark.parametrize("model_type", READ)
def test_what_mlx_lm_packs_is_read(model_type, tmp_path):
    """Each matrix is what MLX makes of lmx's in 4 or 8 bits, dense where lmx has no packed form; and so the logits."""
    model = made(model_type)
    theirs, config = utils.load_model(written(model, model_type, tmp_path / "ours"))
    theirs, config = utils.quantize_model(theirs, config, GROUP, 4)
    read, _ = load_from_hf(saved(theirs, config, tmp_path / "theirs"))
    ours, back = flat_parameters(model), flat_parameters(read)
    found = quantised.packed_modules(read)
    assert found
    for path, how in found.items():
        expected = mx.quantize(ours.pop(f"{path}.weight"), how.group_size, how.bits)
        for name, each in zip(("weight", "scales", "biases"), expected, strict=True):
            assert equal(back.pop(f"{path}.{name}"), each), f"{path}.{name}"
    assert ours.keys() == back.keys()
    changed = [name for name in ours if not same(model_type, ours[name], back[name])]
    assert [name for name in changed if not any(equal(back[name], rounded(ours[name], bits)) for bits in (4, 8))] == []
    if model_type not in OTHERWISE:
        assert distance(logits(read), logits(theirs)) < TOLERANCE


def test_only_families_that_there_are_stand_in_the_tables():
    assert {*SAYS, *OTHERWISE, *FURTHER, *SHIFTED, *ARGUMENTS} <= {*cases.loaders()}
    assert {*OTHERWISE, *FURTHER} == {*peers.OTHERWISE}
