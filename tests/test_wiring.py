"""A layout is drawn as it computes."""

import attrs
import mlx.core as mx
import pytest
from mlx import nn

from lmx_core import ConfigurableBlock, ModelConfig, make_config, spec
from lmx_core.census import census
from lmx_core.registry import registry
from lmx_core.testing import SMALL
from lmx_core.wiring import Box, Join, around, drawn, groups, wiring

LLAMA = """
│
├── rms_norm ── gqa + rope ──╮
⊕ ◄──────────────────────────╯
├── rms_norm ── gated ──╮
⊕ ◄─────────────────────╯
▼
"""
POST = """
│
├── gqa + rope ──╮
⊕ ◄──────────────╯
rms_norm
├── gated ──╮
⊕ ◄─────────╯
rms_norm
▼
"""
SANDWICH = """
│
├── rms_norm ── gqa + rope ── rms_norm ──╮
⊕ ◄──────────────────────────────────────╯
├── rms_norm ── gated ── rms_norm ──╮
⊕ ◄─────────────────────────────────╯
▼
"""
PARALLEL = """
│
├── rms_norm ──┬── gqa + rope ──╮
│              ╰── gated ───────┤
⊕ ◄─────────────────────────────╯
▼
"""
TWO_NORMS = """
│
├── rms_norm ── gqa + rope ──╮
├── rms_norm ── gated ───────┤
⊕ ◄──────────────────────────╯
▼
"""
SCALED = """
│
├── rms_norm ── gqa + rope ── × 0.22 ──╮
⊕ ◄────────────────────────────────────╯
├── rms_norm ── gated ── × 0.22 ──╮
⊕ ◄───────────────────────────────╯
▼
"""
NORMED = """
│
rms_norm
├── gqa + rope ── × 0.5 ──╮
× 3.5                     │
⊕ ◄───────────────────────╯
rms_norm
├── gated ──╮
⊕ ◄─────────╯
▼
"""


def layer(**changes):
    block = attrs.evolve(SMALL, attention="gqa", ffn="gated", norm="rms_norm", position="rope")
    return ConfigurableBlock(attrs.evolve(block, **changes))


@pytest.mark.says_names
@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("pre_norm", LLAMA),
        ("post_norm", POST),
        ("sandwich", SANDWICH),
        ("parallel", PARALLEL),
        (spec("parallel", norms=2), TWO_NORMS),
        (spec("pre_norm", residual_multiplier=0.22), SCALED),
        (spec("normed_residual", attention_alpha=3.5, attention_beta=0.5), NORMED),
    ],
    ids=str,
)
def test_layouts(layout, text):
    assert drawn(wiring(layer(layout=layout))) == text.strip().splitlines()


def test_a_sublayer_that_is_not_there_is_not_drawn():
    (join,) = wiring(layer(attention="none", position="none"))
    assert [[box.part for box in branch] for branch in join.branches] == [["norm", "ffn"]]
    assert wiring(layer(attention="none", position="none", ffn="none")) == []


@pytest.mark.says_names
def test_a_mixer_says_how_far_it_looks():
    (first, _) = wiring(layer(attention=spec("sliding_window", window=4096)))
    assert first.branches[0][1] == Box("sliding_window + rope, last 4,096", "attention")
    (first, _) = wiring(layer(attention=spec("chunked", chunk_size=512), position="none"))
    assert first.branches[0][1] == Box("chunked, chunks of 512", "attention")


class Gated(nn.Module):
    """A layout of another author: what a sublayer adds has a learned weight (arXiv:2003.04887)."""

    normalised = False

    def __init__(self, config, attention=True, ffn=True):
        super().__init__()
        self.alpha = mx.zeros((1,))

    def __call__(self, x, attention, ffn):
        for sublayer in (attention, ffn):
            if sublayer is not None:
                x = x + self.alpha * sublayer(x)
        return x


class Bent(Gated):
    """It does to its input what cannot be seen."""

    def __call__(self, x, attention, ffn):
        return mx.tanh(super().__call__(x, attention, ffn))


class Nested(Gated):
    """A branch with a sum in it."""

    def __call__(self, x, attention, ffn):
        return x + ffn(x + attention(x))


class Mixed(Gated):
    def __call__(self, x, attention, ffn):
        return x * attention(x) + ffn(x)


@pytest.fixture
def own(request):
    """The name of a layout that is registered for one test."""
    registry("layout").register("own")(request.param)
    yield "own"
    registry("layout").unregister("own")


@pytest.mark.parametrize("own", [Gated], indirect=True)
def test_a_layout_of_another_author(own):
    for step in wiring(layer(layout=own)):
        assert isinstance(step, Join)
        assert step.stream == []
        assert [box.text for box in step.branches[0]][1:] == ["× alpha"]


@pytest.mark.parametrize("own", [Bent, Nested, Mixed], indirect=True)
def test_what_cannot_be_seen_through_is_one_box(own):
    (box,) = wiring(layer(layout=own))
    assert box.part == "block"
    assert box.text.startswith("own of ")
    assert drawn([box])[1] == box.text


def test_looking_changes_nothing():
    """The layout still has its norms, and computes what it did."""
    block = layer()
    x = mx.random.normal((1, 3, SMALL.d_model))
    before = block(x)[0]
    wiring(block)
    assert mx.array_equal(block(x)[0], before)


def test_blocks_that_differ_in_numbers_alone_are_drawn_once():
    """As in OpenELM, whose layers have FFNs of their own width."""
    config = ModelConfig(
        block=SMALL, n_layers=4, block_configs=[attrs.evolve(SMALL, d_ff=d_ff) for d_ff in (96, 128, 160, 96)]
    )
    (group,) = groups(census(config).layers)
    assert (group.layers, group.name) == ([0, 1, 2, 3], "")
    assert (group.each("d_ff"), group.each("d_model")) == ("96-160", str(SMALL.d_model))
    assert group.sum("parameters") == census(config).parts["layers"]


@pytest.mark.says_names
def test_what_is_around_the_layers():
    config = make_config("gpt", size="tiny")
    before, after = around(config, census(config).parts)
    assert [box.text for box in before] == ["embed", "+ learned"]
    assert [box.text for box in after] == ["layer_norm", "head, tied to embed"]
    config = ModelConfig(
        block=SMALL,
        embedding_dim=16,
        embedding_multiplier=4.0,
        embedding_norm="layer_norm",
        final_norm="rms_norm",
        tie_embeddings=False,
        logit_multiplier=0.5,
        logit_softcap=30.0,
    )
    before, after = around(config, census(config).parts)
    assert [box.text for box in before][:4] == ["embed", "project_in", "× 4", "layer_norm"]
    assert [box.text for box in after] == ["rms_norm", "project_out", "head", "× 0.5", "softcap 30"]
