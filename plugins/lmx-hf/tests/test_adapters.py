"""What adapters of PEFT and mlx-lm make of a checkpoint's weights."""

import mlx.core as mx
import numpy as np
import pytest

from lmx_hf.adapters import fused

from .small_adapters import LAYER, close, dora, low_rank, mlx_lm, named, numbers, peft, product, scaled

pytestmark = pytest.mark.once

Q = f"{LAYER}.q_proj"
FACTORS = low_rank(Q, 6, 4)
A, B = FACTORS.values()
W = numbers(6, 4)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 6 / 2),
        ({"use_rslora": True}, 6 / 2**0.5),
        ({"alpha_pattern": {"q_proj": 5}}, 5 / 2),
        ({"alpha_pattern": {"proj": 5}}, 6 / 2),  # a pattern names whole parts
        ({"alpha_pattern": {"^model.layers.1.*": 1, r".*\.self_attn\.[qk]_proj": 7, "q_proj": 1}}, 7 / 2),
        ({"r": 8, "rank_pattern": {"q_proj": 2}}, 6 / 2),
        ({"r": 8, "rank_pattern": {"layers.0.self_attn.q_proj": 2}, "use_rslora": True}, 6 / 2**0.5),
        ({"alpha_pattern": None, "rank_pattern": None, "lora_alpha": 1.5, "bias": "none"}, 1.5 / 2),
    ],
)
def test_scale(config, scale, tmp_path):
    """Alpha over rank, or over its root; each of the two by the first pattern that a module's name ends with."""
    new = fused({f"{Q}.weight": W}, peft(tmp_path, FACTORS, **config))

    close(new[f"{Q}.weight"], scaled(W, A, B, scale))


def test_scale_of_mlx_lm(tmp_path):
    """It is the factor itself, whatever rank and alpha say."""
    tensors = named(Q, A.T, B.T, parts=("lora_a", "lora_b"))

    new = fused({f"{Q}.weight": W}, mlx_lm(tmp_path, tensors, lora_parameters={"rank": 8, "scale": 2.5, "alpha": 9}))

    close(new[f"{Q}.weight"], scaled(W, A, B, 2.5))


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("write", ["peft", "mlx_lm"])
def test_stored_the_other_way_round(write, square, tmp_path):
    """GPT-2's weights are (in, out). The shape tells, and of a square one what the caller knows."""
    rows, columns = (4, 4) if square else (12, 4)
    a, b, weight = numbers(2, columns), numbers(rows, 2), numbers(columns, rows)
    if write == "peft":
        adapter = peft(tmp_path, named("transformer.h.0.attn.c_attn", a, b))
    else:
        adapter = mlx_lm(tmp_path, named("model.h.0.attn.c_attn", a.T, b.T, parts=("lora_a", "lora_b")))

    new = fused({"h.0.attn.c_attn.weight": weight}, adapter, lambda name: name == "h.0.attn.c_attn.weight")

    close(new["h.0.attn.c_attn.weight"], scaled(weight.T, a, b, 3).T)


@pytest.mark.parametrize(
    ("fan_in_fan_out", "told", "turned"), [(False, None, False), (True, None, True), (True, False, False)]
)
def test_square(fan_in_fan_out, told, turned, tmp_path):
    """Unless the caller says how a square matrix is stored, PEFT's config does."""
    a, b, weight = numbers(2, 4), numbers(4, 2), numbers(4, 4)
    adapter = peft(tmp_path, named(Q, a, b), fan_in_fan_out=fan_in_fan_out)

    new = fused({f"{Q}.weight": weight}, adapter, None if told is None else lambda _: told)

    close(new[f"{Q}.weight"], scaled(weight.T, a, b, 3).T if turned else scaled(weight, a, b, 3))


def test_dora(tmp_path):
    """Norms run over the inputs, wherever these are."""
    magnitude, square = numbers(6), numbers(4, 4)
    tensors = named(Q, A, B, magnitude) | named("k", A, B, magnitude) | named("v", A, numbers(4, 2), numbers(4))
    weights = {f"{Q}.weight": W, "k.weight": W.T, "v.weight": square}

    new = fused(weights, peft(tmp_path, tensors, use_dora=True, fan_in_fan_out=True))

    close(new[f"{Q}.weight"], dora(W, A, B, 3, magnitude))
    close(new["k.weight"], dora(W, A, B, 3, magnitude).T)
    close(new["v.weight"], dora(square.T, A, numbers(4, 2), 3, numbers(4)).T)


def test_dora_of_mlx_lm(tmp_path):
    """Of a linear layer each output has its norm, of an embedding each token."""
    a, b, embedding = numbers(7, 2), numbers(2, 4), numbers(7, 4)
    parts = ("lora_a", "lora_b", "m")
    tensors = named(Q, A.T, B.T, numbers(6), parts=parts) | named("model.embed_tokens", a, b, numbers(7), parts=parts)
    adapter = mlx_lm(tmp_path, tensors, fine_tune_type="dora")

    new = fused({f"{Q}.weight": W, "model.embed_tokens.weight": embedding}, adapter)

    close(new[f"{Q}.weight"], dora(W, A, B, 3, numbers(6)))
    close(new["model.embed_tokens.weight"], dora(embedding, b, a, 3, numbers(7)))


@pytest.mark.parametrize("tokens", [7, 4])
@pytest.mark.parametrize("with_magnitude", [False, True])
def test_embedding(with_magnitude, tokens, tmp_path):
    """PEFT's is that of a linear layer whose inputs are tokens: DoRA's norms run over the vocabulary."""
    a, b, magnitude, weight = numbers(2, tokens), numbers(4, 2), numbers(4), numbers(tokens, 4)
    parts = ("lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
    tensors = named("model.embed_tokens", a, b, *([magnitude] if with_magnitude else []), parts=parts)
    weights = {"model.embed_tokens.weight": weight, "lm_head.weight": numbers(tokens, 4)}

    new = fused(weights, peft(tmp_path, tensors, use_dora=with_magnitude))

    expected = dora(weight.T, a, b, 3, magnitude) if with_magnitude else scaled(weight.T, a, b, 3)
    close(new["model.embed_tokens.weight"], expected.T)


def test_square_embedding_of_mlx_lm(tmp_path):
    a, b, weight = numbers(4, 2), numbers(2, 4), numbers(4, 4)
    adapter = mlx_lm(tmp_path, named("model.embed_tokens", a, b, parts=("lora_a", "lora_b")))

    new = fused({"model.embed_tokens.weight": weight}, adapter)

    close(new["model.embed_tokens.weight"], scaled(weight, b, a, 3))


def test_whole_tensors(tmp_path):
    """Saved modules and biases replace the checkpoint's, in its types; `lora_B.bias` is added to one."""
    weights = {"lm_head.weight": numbers(7, 4, dtype=mx.float16), "norm.weight": numbers(4), f"{Q}.bias": numbers(6)}
    weights |= {f"{Q}.weight": W, "k_proj.weight": W, "k_proj.bias": numbers(6)}
    head, norm, bias = numbers(7, 4, seed=5), numbers(4, seed=5), numbers(6, seed=5)
    tensors = {"lm_head.weight": head, "model.norm.modules_to_save.default.weight": norm, f"{Q}.base_layer.bias": bias}
    tensors |= FACTORS | named("k_proj", A, B) | {"k_proj.lora_B.bias": bias}

    new = fused(weights, peft(tmp_path, tensors, lora_bias=True))

    assert list(new) == list(weights)
    assert mx.array_equal(new["lm_head.weight"], head.astype(mx.float16))
    assert mx.array_equal(new["norm.weight"], norm)
    assert mx.array_equal(new[f"{Q}.bias"], bias)
    close(new[f"{Q}.weight"], scaled(W, A, B, 3))
    close(new["k_proj.bias"], np.array(numbers(6)) + 3 * np.array(bias))


def test_full_fine_tuning_of_mlx_lm(tmp_path):
    """Every tensor is replaced, in the checkpoint's layouts, experts one by one."""
    mine = {
        f"{Q}.weight": numbers(6, 4, seed=5),
        "model.h.0.c_fc.weight": numbers(8, 4),
        "model.norm.weight": numbers(4),
    }
    mine |= {"model.layers.0.mlp.switch_mlp.up_proj.weight": numbers(2, 3, 4)}
    weights = {f"{Q}.weight": W, "h.0.c_fc.weight": numbers(4, 8, seed=6), "model.norm.weight": numbers(4, seed=6)}
    weights |= {f"model.layers.0.mlp.experts.{e}.up_proj.weight": numbers(3, 4, seed=6) for e in range(2)}

    new = fused(weights, mlx_lm(tmp_path, mine, fine_tune_type="full"))

    assert list(new) == list(weights)
    assert mx.array_equal(new[f"{Q}.weight"], numbers(6, 4, seed=5))
    assert mx.array_equal(new["h.0.c_fc.weight"], numbers(8, 4).T)
    assert mx.array_equal(new["model.norm.weight"], numbers(4))
    for e in range(2):
        assert mx.array_equal(new[f"model.layers.0.mlp.experts.{e}.up_proj.weight"], numbers(2, 3, 4)[e])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model.language_model.layers.0.q_proj", "language_model.model.layers.0.q_proj"),
        ("model.layers.0.q_proj", "model.language_model.layers.0.q_proj"),
        ("transformer.h.0.attn.c_attn", "h.0.attn.c_attn"),
        ("model.decoder.layers.0.fc1", "decoder.layers.0.fc1"),
        ("lm_head", "embed_out"),
        ("model.h.0.attention.dense", "gpt_neox.layers.0.attention.dense"),
        ("lm_head", "language_model.lm_head"),
        ("model.layers.0.mlp.experts.1.w3", "model.layers.0.block_sparse_moe.experts.1.w3"),
    ],
)
def test_prefixes(theirs, ours, tmp_path):
    """What a model is wrapped in does not count, and neither do known names of one thing."""
    vision = {"model.vision_tower.layers.0.q_proj.weight": W}

    new = fused(vision | {f"{ours}.weight": W}, peft(tmp_path, named(theirs, A, B)))

    close(new[f"{ours}.weight"], scaled(W, A, B, 3))
    assert new["model.vision_tower.layers.0.q_proj.weight"] is W


def test_its_own_name_first(tmp_path):
    """A tensor of the very name is the one that is meant, whatever else is alike."""
    weights = {"language_model.layers.0.q_proj.weight": W, "model.layers.0.q_proj.weight": W}

    new = fused(weights, peft(tmp_path, named("model.layers.0.q_proj", A, B)))

    assert new["language_model.layers.0.q_proj.weight"] is W
    close(new["model.layers.0.q_proj.weight"], scaled(W, A, B, 3))


def test_names_of_adapters(tmp_path):
    """The adapter's own name may stand in a tensor's."""
    tensors = {f"{Q}.lora_A.default.weight": A, f"{Q}.lora_B.default.weight": B}

    close(fused({f"{Q}.weight": W}, peft(tmp_path, tensors))[f"{Q}.weight"], scaled(W, A, B, 3))


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_types(dtype, tmp_path):
    """Sums are those of float32, and the weight keeps its type."""
    weight = W.astype(dtype)

    new = fused({f"{Q}.weight": weight}, peft(tmp_path, FACTORS))[f"{Q}.weight"]

    exact = mx.array(scaled(weight, A, B, 3).astype(np.float32)).astype(dtype)
    assert new.dtype == dtype
    assert mx.array_equal(new, exact)


def test_lazy(tmp_path):
    """Weights are read no sooner than they are used."""
    file = tmp_path / "model.safetensors"
    mx.save_safetensors(str(file), {f"{Q}.weight": W})
    weights = mx.load(str(file))
    new = fused(weights, peft(tmp_path / "adapter", FACTORS))

    with file.open("r+b") as opened:  # the same file, with other numbers
        opened.seek(-W.nbytes, 2)
        opened.write(np.array(W + 1).tobytes())

    close(new[f"{Q}.weight"], scaled(W + 1, A, B, 3))
    assert list(weights) == [f"{Q}.weight"]


TIED = {"model.embed_tokens.weight": numbers(7, 4)}
EMBEDDING = {"model.embed_tokens.lora_embedding_A": numbers(2, 7), "model.embed_tokens.lora_embedding_B": numbers(4, 2)}
HEAD = low_rank("lm_head", 7, 4)


@pytest.mark.parametrize("trained", ["embedding", "head", "both"])
def test_tied_head(trained, tmp_path):
    """Each is what it was while the adapter was trained: PEFT changes one and not the other."""
    tensors = {"embedding": EMBEDDING, "head": HEAD, "both": EMBEDDING | HEAD}[trained]
    old = TIED["model.embed_tokens.weight"]

    new = fused(TIED, peft(tmp_path, tensors))

    delta = 3 * product(*EMBEDDING.values()).T if trained != "head" else 0
    close(new["model.embed_tokens.weight"], np.array(old) + delta)
    close(new["lm_head.weight"], scaled(old, *HEAD.values(), 3) if trained != "embedding" else old)


def test_tied_head_of_mlx_lm(tmp_path):
    """It is the embedding itself."""
    adapter = mlx_lm(tmp_path, named("model.embed_tokens", numbers(7, 2), numbers(2, 4), parts=("lora_a", "lora_b")))

    assert list(fused(TIED, adapter)) == list(TIED)


def test_tied_head_stays_tied(tmp_path):
    """Where the adapter is about other things."""
    new = fused(TIED | {f"{Q}.weight": W}, peft(tmp_path, FACTORS))

    assert list(new) == ["model.embed_tokens.weight", f"{Q}.weight"]


def test_base_of_a_tied_embedding(tmp_path):
    """A base that the adapter brings is the head's too; what was trained on it is not."""
    base = numbers(7, 4, seed=9)

    new = fused(TIED, peft(tmp_path, EMBEDDING | {"model.embed_tokens.base_layer.weight": base}))

    assert mx.array_equal(new["lm_head.weight"], base)
    close(new["model.embed_tokens.weight"], scaled(base.T, *EMBEDDING.values(), 3).T)
