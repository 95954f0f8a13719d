"""A mixture that starts from a dense model."""

import attrs
import mlx.core as mx
import pytest
from mlx import nn

from lmx_core import LanguageModel, ModelConfig, load_model, save_model, spec
from lmx_core.errors import ConfigError
from lmx_core.testing import SMALL, close, randomise
from lmx_ffn_moe import MoE, upcycle

TOKENS = mx.random.randint(0, 50, (2, 17), key=mx.random.key(0))


def dense(**block):
    config = attrs.evolve(SMALL, **{"ffn": "gated", "position": "rope", **block})
    return randomise(LanguageModel(ModelConfig(block=config, vocab_size=50, n_layers=3)))


@pytest.mark.parametrize("ffn", ["gated", spec("gated", activation="xielu", bias=True)])
@pytest.mark.parametrize(
    "moe", [{}, {"router": "sigmoid", "top_k": 3}, {"router": "topk_softmax", "top_k": 1}, {"correction_bias": True}]
)
def test_it_computes_what_the_dense_model_does(ffn, moe, tmp_path):
    """Experts are alike and their weights sum to 1; the routers, which are new, differ from layer to layer."""
    model = dense(ffn=ffn)
    mixture = upcycle(model, spec("moe", n_experts=4, **moe))
    assert all(isinstance(layer.ffn, MoE) for layer in mixture.layers)
    close(mixture(TOKENS)[0], model(TOKENS)[0], 1e-5)
    assert mixture.count_parameters() > 2.5 * model.count_parameters()
    first, second = (mixture.layers[i].ffn.router.weight for i in (0, 1))
    assert mx.abs(first - second).max() > 0.01
    save_model(mixture, tmp_path)
    close(load_model(tmp_path)(TOKENS)[0], mixture(TOKENS)[0], 0.0)


def test_some_layers_stay_dense():
    model = dense()
    mixture = upcycle(model, spec("moe", n_experts=4), layers=[1])
    assert [isinstance(layer.ffn, MoE) for layer in mixture.layers] == [False, True, False]
    close(mixture(TOKENS)[0], model(TOKENS)[0], 1e-5)


@pytest.mark.parametrize(
    ("block", "moe", "said"),
    [
        ({"ffn": "standard"}, spec("moe"), "not quantised, but ffn = standard is none"),
        ({}, spec("moe", d_ff=13), "have d_ff=96, got 13"),
        ({}, spec("moe", activation="relu"), "have activation='silu', got 'relu'"),
        ({}, spec("moe", n_shared_experts=1), "leave out shared experts"),
        ({}, spec("moe", weigh="input", router="sigmoid"), "leave out shared experts, clamp, up_shift, weigh"),
        ({}, spec("latent_moe"), "has none such"),
        ({}, spec("gated"), "has none such"),
    ],
)
def test_what_no_copy_can_fill_is_refused(block, moe, said):
    with pytest.raises(ConfigError, match=said):
        upcycle(dense(**block), moe)


def test_a_quantised_model_is_refused():
    model = dense()
    nn.quantize(model, group_size=32)
    with pytest.raises(ConfigError, match="gated FFNs that are not quantised"):
        upcycle(model, "moe")


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="layer 3 of a model with n_layers=3"):
        upcycle(dense(), spec("moe"), layers=[0, 3])
