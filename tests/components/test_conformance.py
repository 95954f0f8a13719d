"""Every built-in component and every architecture keeps the promises of its kind."""

import attrs
import pytest

from lmx_core import BlockConfig, ConfigurableBlock, LanguageModel, ModelConfig, make_config, spec
from lmx_core.components.positions import provided
from lmx_core.construct import build
from lmx_core.plugins import CORE
from lmx_core.registry import registry
from lmx_core.testing import SMALL, checks


def core(kind):
    return [name for name in registry(kind).names() if registry(kind).find(name).dist == CORE]


def named(check):
    return check.__name__


def block(**changes):
    return attrs.evolve(SMALL, **changes)


BLOCKS = {
    **{
        f"attention {name}": block(attention=name, **({"n_kv_heads": 4} if name == "mha" else {}))
        for name in core("attention")
    },
    **{f"ffn {name}": block(ffn=name) for name in core("ffn")},
    **{
        f"ffn {name} {act}": block(ffn=spec(name, activation=act))
        for name in ("standard", "gated")
        for act in ("relu", "gelu_tanh")
    },
    **{f"norm {name}": block(norm=name) for name in core("norm")},
    **{f"norm {name} with biases": block(norm=name, bias=True) for name in core("norm")},
    **{f"position {name}": block(position=name) for name in core("position")},
    **{f"layout {name}": block(layout=name) for name in core("layout")},
    **{f"layout {name} without ffn": block(layout=name, ffn="none") for name in core("layout")},
    **{f"layout {name} without attention": block(layout=name, attention="none") for name in core("layout")},
    "heads wider than the model": block(head_dim=32),
    "multi-query": block(n_kv_heads=1, position="rope"),
}


@pytest.mark.parametrize("check", checks.MIXER, ids=named)
@pytest.mark.parametrize("name", core("attention"))
def test_attention_is_a_mixer(name, check):
    config = block(attention=name, n_kv_heads=4 if name == "mha" else 2, bias=True)
    check(lambda: build("attention", name, config))


@pytest.mark.parametrize("check", checks.MIXER, ids=named)
@pytest.mark.parametrize("config", BLOCKS.values(), ids=BLOCKS)
def test_every_block_is_a_mixer(config, check):
    check(lambda: ConfigurableBlock(config, build("position", config.position, config)))


@pytest.mark.parametrize("check", checks.FFN, ids=named)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", core("ffn"))
def test_ffn(name, bias, check):
    check(lambda: build("ffn", name, block(bias=bias)))


@pytest.mark.parametrize("check", checks.NORM, ids=named)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", core("norm"))
def test_norm(name, bias, check):
    check(lambda: build("norm", name, block(bias=bias)))


@pytest.mark.parametrize("check", checks.POSITION, ids=named)
@pytest.mark.parametrize("name", [name for name in core("position") if provided(build("position", name, SMALL))])
def test_position(name, check):
    check(lambda: build("position", name, SMALL))


MODELS = {
    **{f"{name} tiny": make_config(name, size="tiny") for name in core("config")},
    **{
        f"{position} in a model": ModelConfig(block=block(position=position), vocab_size=50, n_layers=2)
        for position in core("position")
    },
    **{
        f"nothing mixed, {position}": ModelConfig(
            block=block(attention="none", position=position), vocab_size=50, n_layers=2
        )
        for position in ("learned", "sinusoidal")
    },
    "untied post-norm": ModelConfig(block=block(layout="post_norm"), vocab_size=50, n_layers=2, tie_embeddings=False),
    "layers that differ": ModelConfig(
        block=block(position="rope"),
        vocab_size=50,
        n_layers=3,
        block_configs=[
            block(position="rope"),
            block(position="alibi", ffn="none", attention="mha", n_kv_heads=4),
            block(position="rope", rope_theta=500.0, layout="post_norm", norm="layer_norm", bias=True),
        ],
    ),
}


@pytest.mark.parametrize("check", checks.MODEL, ids=named)
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_every_model_is_a_mixer(config, check):
    check(lambda: LanguageModel(config))


def test_the_default_config_is_a_model():
    """`BlockConfig()` and `ModelConfig()` say nothing that does not fit together."""
    assert LanguageModel(ModelConfig(block=BlockConfig(), n_layers=1, vocab_size=10)).count_parameters() > 0
