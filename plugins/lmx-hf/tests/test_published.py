"""Sizes are those that somebody published: the config of a checkpoint gives them, and as many parameters; and each is said
again by a config.json.

`published.json` has the keys of their config.json that families read, each of them, as transformers 5 completes them, and
how many parameters transformers then makes; `nox -s parity` counts anew.
"""

import functools
import json
import math
from pathlib import Path

import attrs
import pytest

from lmx_core import LanguageModel, make_config
from lmx_core.catalogue import PROVIDERS
from lmx_core.model import parameter_shapes
from lmx_core.plugins import CORE
from lmx_core.registry import registry
from lmx_hf.alike import differences
from lmx_hf.config import Config
from lmx_hf.described import Described

from . import cases

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
SIZES = [
    cases.param(model_type, size, data={"model_type": model_type}, name=f"{model_type}-{size}")
    for model_type, sizes in PUBLISHED.items()
    for size in sizes
]
OURS = {CORE, *PROVIDERS}
GPT2 = {"small": "124m", "medium": "355m", "large": "774m", "xl": "1.5b"}
"""Sizes of `gpt` by those of `gpt2`."""


def family_of(model_type):
    return registry("loader").get(model_type)


def arguments(model_type, data):
    """A factory's, without what its class takes for granted: the config has to say it."""
    return family_of(model_type).arguments(Config({"model_type": model_type, **data}, {"rope_parameters": {}}))


@functools.cache
def of_checkpoint(model_type, size):
    data = PUBLISHED[model_type][size]["config"]
    tied = data["tie_word_embeddings"]
    return make_config(family_of(model_type).factory, **{**arguments(model_type, data), "tie_embeddings": tied})


@functools.cache
def of_factory(factory, size):
    return make_config(factory, size=size)


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
    ours, theirs = of_factory(family_of(model_type).factory, size), of_checkpoint(model_type, size)
    assert not differences(ours, theirs)
    assert parameters(theirs) == PUBLISHED[model_type][size]["parameters"]


@pytest.mark.parametrize(("model_type", "size"), SIZES)
def test_a_size_is_said_by_a_config(model_type, size):
    """What an export would write of it is read as the same model."""
    family, config = family_of(model_type), of_factory(family_of(model_type).factory, size)
    said = {"vocab_size": config.vocab_size, **family.keys(Described(config))}
    assert not differences(config, family.config(json.loads(json.dumps(said)), tied=config.tie_embeddings))


def test_no_size_is_made_up():
    """Every size is published, but for `tiny`, and GPT-3 and MiniCPM, of which transformers has no class."""
    published = {}
    for model_type, sizes in PUBLISHED.items():
        if (factory := family_of(model_type).factory) in registry("config").names():
            published.setdefault(registry("config").get(factory), set()).update(sizes)
    gpt, minicpm = registry("config").get("gpt"), registry("config").get("minicpm")
    published[gpt] |= {*GPT2, *(size for size in gpt.sizes if size.startswith("3-"))}
    published[minicpm] = {*minicpm.sizes} - {"tiny"}
    ours = [name for name in registry("config").names() if registry("config").find(name).dist in OURS]
    assert {name: {*registry("config").get(name).sizes} - {"tiny"} for name in ours} == {
        name: published.get(registry("config").get(name)) for name in ours
    }


@pytest.mark.parametrize("size", GPT2)
def test_gpt_is_gpt2(size):
    """The sizes of `gpt` that name no edition are those of GPT-2."""
    assert not differences(of_factory("gpt", size), of_factory("gpt2", GPT2[size]))
