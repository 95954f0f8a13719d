"""A model with muP is written as one without, which computes the same."""

import mlx.core as mx
import pytest
from mlx import nn

from lmx_core import BlockConfig, LanguageModel, ModelConfig
from lmx_core.errors import ConfigError
from lmx_core.testing import randomise
from lmx_core.testing.checks import close
from lmx_hf import export, load_from_hf

TOKENS = mx.array([[1, 2, 3, 4, 5, 6]])


def model(head_dim, **config):
    block = BlockConfig(
        attention="gqa",
        ffn="gated",
        norm="rms_norm",
        position="rope",
        bias=False,
        d_model=128,
        n_heads=2,
        head_dim=head_dim,
        d_ff=64,
    )
    return randomise(LanguageModel(ModelConfig(block=block, vocab_size=32, n_layers=2, mup_base_width=32, **config)))


@pytest.mark.parametrize(
    ("family", "head_dim", "tied"), [("llama", 64, False), ("granite", 16, False), ("granite", 16, True)]
)
def test_it_is_read_back_with_the_same_logits(tmp_path, family, head_dim, tied):
    """With heads of 64 muP's scale is the usual one; Granite's config can say another, and a factor of the logits."""
    net = model(head_dim, tie_embeddings=tied)
    export(net, tmp_path / "there", family=family)
    other, _ = load_from_hf(tmp_path / "there")
    assert other.config.mup_base_width is None
    close(other(TOKENS)[0], net(TOKENS)[0], 1e-5)


def test_a_family_that_cannot_say_it_is_refused(tmp_path):
    """LLaMA has neither another scale nor a factor of the logits."""
    for head_dim, tied, lacking in ((16, False, "attention.scale"), (64, True, "logit_multiplier")):
        with pytest.raises(ConfigError, match=f"llama is another model: .*{lacking}"):
            export(model(head_dim, tie_embeddings=tied), tmp_path / "there", family="llama")
    packed = model(64)
    nn.quantize(packed, group_size=32, bits=8)
    with pytest.raises(ConfigError, match="mup_base_width.*packed"):
        export(packed, tmp_path / "there", "mlx-lm", family="llama")
