"""Sizes are those that somebody published: the config of a checkpoint gives them, and as many parameters.

`published.json` has the keys of their config.json that `families` reads, each of them, as transformers 5 completes them,
and how many parameters transformers then makes; `nox -s parity` counts anew.
"""

import functools
import json
import math
from pathlib import Path

import attrs
import pytest

from lmx_core import LanguageModel, make_config
from lmx_core.catalogue import PROVIDERS
from lmx_core.construct import completed
from lmx_core.model import parameter_shapes
from lmx_core.plugins import CORE
from lmx_core.registry import registry
from lmx_core.serialize import plain

from .families import FAMILIES
from .hf import Config

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
SIZES = [
    FAMILIES[model_type].case(model_type, size, name=f"{model_type}-{size}")
    for model_type, sizes in PUBLISHED.items()
    for size in sizes
]
OURS = {CORE, *PROVIDERS}
GPT2 = {"small": "124m", "medium": "355m", "large": "774m", "xl": "1.5b"}
"""Sizes of `gpt` by those of `gpt2`."""


@functools.cache
def of_checkpoint(model_type, size):
    family, data = FAMILIES[model_type], PUBLISHED[model_type][size]["config"]
    arguments = family.arguments(Config(data, {"rope_parameters": {}}))
    return make_config(family.factory, **arguments, tie_embeddings=data["tie_word_embeddings"])


@functools.cache
def of_factory(factory, size):
    return make_config(factory, size=size)


def differences(ours, theirs):
    """Fields in which two models differ, with both values; what says no more than a default would is no difference."""
    ours, theirs = completed(ours), completed(theirs)
    blocks = {(ours.block, theirs.block): "block"}
    for i in range(min(ours.n_layers, theirs.n_layers)):
        blocks.setdefault((ours.get_block_config(i), theirs.get_block_config(i)), f"layer {i}")
    pairs = {where: (in_full(one), in_full(other)) for (one, other), where in blocks.items()}
    return [
        f"{where} {key}: {one.get(key)} and {other.get(key)}"
        for where, (one, other) in {"model": (whole(ours), whole(theirs)), **pairs}.items()
        for key in {**one, **other}
        if not same(one.get(key), other.get(key))
    ]


def same(one, other):
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=3e-7)
    return one == other


def whole(config):
    """Fields of a model, without those of its blocks."""
    bare = attrs.evolve(config, block_configs=None, blocks={}, block_pattern=None)
    return dict(flat({**plain(bare), "block": None, "embedding_dim": config.embedding_dim or config.block.d_model}))


def in_full(block):
    """Fields of a block, with what its numbers and those of its parts are when none are given."""
    fields = plain(block) | {"head_dim": block.head_dim, "n_kv_heads": block.n_kv_heads}
    fields["attention"] = {"scale": block.head_dim**-0.5, **fields["attention"]}
    scaling = fields["position"].get("scaling") if isinstance(fields["position"], dict) else None
    if isinstance(scaling, dict) and "beta_fast" in scaling and "mscale" not in scaling:
        scaling.setdefault("attention_factor", 0.1 * math.log(scaling["factor"]) + 1)
    return dict(flat(fields))


def flat(value, path=""):
    """`a.b` for what is `{"a": {"b": ...}}`, and `a.0` for the first of a list."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield from flat(each, f"{path}.{key}" if path else str(key))


def parameters(config):
    """How many; layers with the same block have as many, so that a pattern is built once.

    The correction of a router, which no gradient moves, is not counted: transformers has it among its buffers.
    """
    period = len(config.block_pattern or config.block_configs or [config.block])
    layers, outside = [0] * period, 0
    for path, shape in parameter_shapes(LanguageModel(attrs.evolve(config, n_layers=period))).items():
        if path.endswith(".router.correction"):
            continue
        part, *below = path.split(".")
        if part == "layers":
            layers[int(below[0])] += math.prod(shape)
        else:
            outside += math.prod(shape)
    return outside + sum(layers[i % period] for i in range(config.n_layers))


@pytest.mark.parametrize(("model_type", "size"), SIZES)
def test_a_published_model_is_a_size(model_type, size):
    """The config of a checkpoint makes the same model as the factory's size of that name, with all of its parameters."""
    ours, theirs = of_factory(FAMILIES[model_type].factory, size), of_checkpoint(model_type, size)
    assert not differences(ours, theirs)
    assert parameters(theirs) == PUBLISHED[model_type][size]["parameters"]


@pytest.mark.says_names
def test_no_size_is_made_up():
    """Every size is published, but for `tiny`, and GPT-3 and MiniCPM, of which transformers has no class."""
    published = {}
    for model_type, sizes in PUBLISHED.items():
        if (factory := FAMILIES[model_type].factory) in registry("config").names():
            published.setdefault(registry("config").get(factory), set()).update(sizes)
    gpt, minicpm = registry("config").get("gpt"), registry("config").get("minicpm")
    published[gpt] |= {*GPT2, *(size for size in gpt.sizes if size.startswith("3-"))}
    published[minicpm] = {*minicpm.sizes} - {"tiny"}
    ours = [name for name in registry("config").names() if registry("config").find(name).dist in OURS]
    assert {name: {*registry("config").get(name).sizes} - {"tiny"} for name in ours} == {
        name: published.get(registry("config").get(name)) for name in ours
    }


@pytest.mark.once
@pytest.mark.parametrize("size", GPT2)
def test_gpt_is_gpt2(size):
    """The sizes of `gpt` that name no edition are those of GPT-2."""
    assert not differences(of_factory("gpt", size), of_factory("gpt2", GPT2[size]))
