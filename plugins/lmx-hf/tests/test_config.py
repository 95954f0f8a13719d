"""A config.json means what it means to transformers, however it says it."""

import pytest

from lmx_core.factories import make_config
from lmx_core.registry import registry
from lmx_hf import config_from_hf
from lmx_hf.alike import differences
from lmx_hf.described import Described, UnfitError

from . import cases

PLAIN = {"rope_type": "default"}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
LINEAR = {"rope_type": "linear", "factor": 2.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
GPT_OSS = {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 4096}
LONG = {"short_factor": [1.0] * 6, "long_factor": [2.0] * 6, "original_max_position_embeddings": 512}
NARROW = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "partial_rotary_factor": 0.75}


def by_kind(full, sliding):
    return {"full_attention": full, "sliding_attention": sliding}


def both(name, model_type, one, other):
    """Two configs of one class, in which what else they say is the same."""
    return cases.param(model_type, one, other, data={"model_type": model_type}, name=f"{model_type}-{name}")


PARTIAL = [
    both(
        "a share beside the table",
        model_type,
        {"partial_rotary_factor": 0.125, "rope_parameters": {**PLAIN, "rope_theta": 7e3}},
        {"rope_parameters": {**PLAIN, "rope_theta": 7e3, "partial_rotary_factor": 0.125}},
    )
    for model_type in ("glm", "glm4_moe", "phi3", "stablelm", "qwen3_5_text", "phi", "nemotron")
]
ROPES = [
    both(
        "a base beside the table",
        "qwen2",
        {"rope_theta": 5e5, "rope_parameters": YARN},
        {"rope_theta": 5e5, "rope_scaling": YARN},
    ),
    both(
        "a table's own base",
        "qwen2",
        {"rope_theta": 7.0, "rope_parameters": {**YARN, "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": YARN},
    ),
    both("an empty table", "llama", {"rope_theta": 5e5, "rope_parameters": {}}, {"rope_theta": 5e5}),
    both("a table without a base", "llama", {"rope_theta": 5e5, "rope_parameters": PLAIN}, {"rope_theta": 5e5}),
    both("nulls", "llama", {"rope_theta": 5e5, "rope_parameters": None, "rope_scaling": None}, {"rope_theta": 5e5}),
    both(
        "the old name of its type",
        "llama",
        {"rope_parameters": {"type": "linear", "factor": 2.0, "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": LINEAR},
    ),
    both(
        "a scaling added by hand",
        "llama",
        {"rope_parameters": {**PLAIN, "rope_theta": 7e3}, "rope_scaling": YARN, "rope_theta": 9e3},
        {"rope_theta": 9e3, "rope_scaling": YARN},
    ),
    both(
        "a scaling added by hand, and no base beside it",
        "llama",
        {"rope_parameters": {**PLAIN, "rope_theta": 7e3}, "rope_scaling": YARN},
        {"rope_theta": 1e4, "rope_scaling": YARN},
    ),
    *PARTIAL,
    both(
        "old names",
        "gpt_neox",
        {"rotary_emb_base": 5e3, "rotary_pct": 0.5},
        {"rope_parameters": {**PLAIN, "rope_theta": 5e3, "partial_rotary_factor": 0.5}},
    ),
    both(
        "its own names first",
        "gpt_neox",
        {"rotary_emb_base": 5e3, "rotary_pct": 0.5, "rope_theta": 7.0, "partial_rotary_factor": 0.75},
        {"rotary_emb_base": 5e3, "rotary_pct": 0.5},
    ),
    both(
        "yarn is longrope",
        "phi3",
        {**NARROW, "rope_scaling": {**LONG, "type": "yarn"}},
        {**NARROW, "rope_scaling": {**LONG, "type": "longrope"}},
    ),
    both(
        "su is longrope",
        "phi3",
        {**NARROW, "rope_scaling": {**LONG, "type": "su"}},
        {**NARROW, "rope_parameters": {**LONG, "rope_type": "longrope"}},
    ),
    both(
        "numbers that are turned",
        "minimax_m2",
        {"head_dim": 128, "rotary_dim": 64, "rope_parameters": {**PLAIN, "rope_theta": 7e3}},
        {"head_dim": 128, "rope_parameters": {**PLAIN, "rope_theta": 7e3, "partial_rotary_factor": 0.5}},
    ),
    both("a base", "llama4_text", {"rope_theta": 7e3}, {"rope_parameters": {**PLAIN, "rope_theta": 7e3}}),
    both(
        "a base and a scaling",
        "llama4_text",
        {"rope_theta": 7e3, "rope_scaling": LLAMA3},
        {"rope_parameters": {**LLAMA3, "rope_theta": 7e3}},
    ),
    both(
        "a base for layers without a window",
        "olmo3",
        {"rope_theta": 7e3, "rope_parameters": by_kind(YARN, PLAIN)},
        {"rope_parameters": by_kind({**YARN, "rope_theta": 7e3}, {**PLAIN, "rope_theta": 5e5})},
    ),
    both(
        "a scaling for layers without a window",
        "olmo3",
        {"rope_theta": 7e3, "rope_scaling": YARN},
        {"rope_parameters": by_kind({**YARN, "rope_theta": 7e3}, {**PLAIN, "rope_theta": 5e5})},
    ),
    both(
        "one table for all",
        "olmo3",
        {"rope_theta": 7e3, "rope_parameters": {**YARN, "rope_theta": 3.0}},
        {"rope_theta": 7e3},
    ),
    both(
        "bounds that are not whole, of one kind",
        "olmo3",
        {"rope_parameters": by_kind({**YARN, "truncate": False}, PLAIN)},
        {"rope_parameters": by_kind(YARN, PLAIN)},
    ),
    both(
        "one table for all",
        "gemma3_text",
        {"rope_theta": 7e3, "rope_local_base_freq": 5e3, "rope_parameters": {**LINEAR, "rope_theta": 3.0}},
        {"rope_parameters": by_kind({**PLAIN, "rope_theta": 7e3}, {**PLAIN, "rope_theta": 5e3})},
    ),
    both(
        "a scaling for layers without a window",
        "gemma3_text",
        {"rope_theta": 7e3, "rope_local_base_freq": 5e3, "rope_scaling": LINEAR},
        {"rope_parameters": by_kind({**LINEAR, "rope_theta": 7e3}, {**PLAIN, "rope_theta": 5e3})},
    ),
    both(
        "the class's scaling around a base",
        "gpt_oss",
        {"rope_theta": 999.0},
        {"rope_theta": 999.0, "rope_scaling": {**GPT_OSS, "rope_type": "yarn", "truncate": False}},
    ),
    both(
        "an empty table",
        "gpt_oss",
        {"rope_theta": 999.0, "rope_parameters": {}},
        {"rope_theta": 999.0, "rope_scaling": PLAIN},
    ),
    both("an empty scaling", "gpt_oss", {"rope_theta": 999.0, "rope_scaling": {}}, {"rope_theta": 999.0}),
    both("a base alone, which is not read", "apertus", {"rope_theta": 999.0}, {}),
    both(
        "an empty table",
        "apertus",
        {"rope_theta": 999.0, "rope_parameters": {}},
        {"rope_theta": 999.0, "rope_scaling": PLAIN},
    ),
    both(
        "a scaling around the class's base",
        "apertus",
        {"rope_scaling": LINEAR},
        {"rope_parameters": {**LINEAR, "rope_theta": 1.2e7}},
    ),
    both("a base, of which it has no rope", "kimi_linear", {"rope_theta": 999.0, "rope_scaling": None}, {}),
    both(
        "no base and so no rope",
        "olmo_hybrid",
        {"rope_theta": None},
        {"rope_parameters": {**PLAIN, "rope_theta": None}},
    ),
]


@pytest.mark.parametrize(("model_type", "one", "other"), ROPES)
def test_a_rope_is_the_same_however_it_is_said(model_type, one, other):
    """With what transformers 5 makes of each, as the other config says it."""
    assert not differences(*(config_from_hf({"model_type": model_type, **data}) for data in (one, other)))


SIZES = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 3, "max_position_embeddings": 77}
GPT = {"n_embd": 48, "n_head": 6, "n_layer": 3, "n_positions": 77}
DBRX = {"d_model": 48, "n_heads": 6, "n_layers": 3, "max_seq_len": 77}
MPT = {"d_model": 48, "n_heads": 6, "n_layers": 3}
NEO = {"attention_types": [[["global"], 3]], "hidden_size": 48, "max_position_embeddings": 77}
WIDE = {"hidden_size": 96, "num_attention_heads": 6}
NAMES = [
    *(both("common names", name, SIZES, GPT) for name in ("gpt2", "openai-gpt", "gpt_bigcode")),
    both("common names", "gptj", {**SIZES, "rotary_dim": 4}, {**GPT, "rotary_dim": 4}),
    both("common names before its own", "gpt2", {**GPT, **SIZES, "n_embd": 96, "n_layer": 5}, GPT),
    both("common names", "gpt_bigcode", {**SIZES, "multi_query": False}, {**GPT, "multi_query": False}),
    both("common names", "gpt_neo", {**NEO, **SIZES}, {**NEO, "num_heads": 6, "num_layers": 3}),
    both("common names", "mpt", {key: each for key, each in SIZES.items() if key != "max_position_embeddings"}, MPT),
    both("common names", "dbrx", SIZES, DBRX),
    both("values as wide as heads", "minicpm3", WIDE, {**WIDE, "v_head_dim": 16}),
]


KIMI = ["linear_attention"] * 4
LAYERS = [
    both(
        "no word",
        "kimi_linear",
        {"num_hidden_layers": 10},
        {"num_hidden_layers": 10, "layer_types": [*KIMI, "full_attention", *KIMI[1:], "full_attention", KIMI[0]]},
    ),
    both(
        "both words",
        "kimi_linear",
        {
            "num_hidden_layers": 5,
            "layer_types": [*KIMI, "full_attention"],
            "linear_attn_config": {"full_attn_layers": [4], "kda_layers": [1, 2, 3, 5]},
        },
        {"num_hidden_layers": 5, "linear_attn_config": {"full_attn_layers": [5], "kda_layers": [1, 2, 3, 4]}},
    ),
]


@pytest.mark.parametrize(("model_type", "one", "other"), LAYERS)
def test_layers_are_the_same_however_they_are_said(model_type, one, other):
    assert not differences(*(config_from_hf({"model_type": model_type, **data}) for data in (one, other)))


@pytest.mark.parametrize(("model_type", "one", "other"), NAMES)
def test_sizes_are_the_same_under_either_name(model_type, one, other):
    assert not differences(*(config_from_hf({"model_type": model_type, **data}) for data in (one, other)))


def said_again(model_type, config):
    family = registry("loader").get(model_type)
    return family.config({"vocab_size": config.vocab_size, **family.keys(Described(config))}, config.tie_embeddings)


@pytest.mark.parametrize(
    "model_type", [cases.param(name, data={"model_type": name}, name=name) for name in ("phi", "olmo_hybrid")]
)
def test_heads_of_another_width_are_said(model_type):
    config = make_config(registry("loader").get(model_type).factory, size="tiny", head_dim=32)
    assert config.block.head_dim == 32 != config.block.d_model // config.block.n_heads
    assert not differences(config, said_again(model_type, config))


@pytest.mark.parametrize(
    "model_type", [cases.param(name, data={"model_type": name}, name=name) for name in ("helium", "olmoe")]
)
def test_heads_of_another_width_are_refused(model_type):
    """By families of which transformers has them in one width alone."""
    factory = registry("loader").get(model_type).factory
    assert said_again(model_type, make_config(factory, size="tiny"))
    with pytest.raises(UnfitError, match="128 numbers together, where transformers has as many as d_model, 64"):
        said_again(model_type, make_config(factory, size="tiny", head_dim=32))


@pytest.mark.once
@pytest.mark.parametrize("model_type", ["olmo3", "gemma3_text"])
def test_bounds_that_are_not_whole_are_refused_by_kind(model_type):
    """transformers reads `truncate` beside the tables of the kinds, and so does lmx; neither writes it there."""
    tables = {**by_kind({**YARN, "truncate": True}, PLAIN), "truncate": False}
    sizes = {"num_hidden_layers": 8, "rope_parameters": tables}
    config = config_from_hf({"model_type": model_type, **sizes})
    model = Described(config)
    assert model.rope(model.wide)["rope_scaling"].items() >= {**YARN, "truncate": False}.items()
    with pytest.raises(UnfitError, match="truncate=False"):
        said_again(model_type, config)
