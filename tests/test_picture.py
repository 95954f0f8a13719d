"""The picture of a model says what the model is, in a file that needs nothing else."""

import re
from xml.etree import ElementTree

import attrs
import pytest

from lmx_core import ModelConfig, make_config, spec
from lmx_core.census import census
from lmx_core.picture import picture
from lmx_core.picture.folding import Row, Rows, folded
from lmx_core.testing import SMALL

SVG = "{http://www.w3.org/2000/svg}"


def drawn(config, title="a model", about=""):
    counted = census(config)
    return picture(config, counted, title, about), counted


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_it_says_what_the_model_comes_to():
    svg, _ = drawn(make_config("llama", size="7b"))
    said = texts(svg)
    for text in (
        "a model",
        "6.74 billion",
        "6,738,415,616",
        "512 KiB",
        "2 GiB",
        "12.6 GiB",
        "3.53 GiB",
        "× 32",
        "layer 31",
    ):
        assert text in said


def mixture():
    blocks = {
        "local": attrs.evolve(SMALL, attention=spec("sliding_window", window=8)),
        "still": attrs.evolve(SMALL, attention="none", position="none"),
        "post": attrs.evolve(SMALL, layout=spec("parallel", norms=2)),
    }
    pattern = ["local", "local", "post", "local", "local", "post", "still"]
    return ModelConfig(block=SMALL, blocks=blocks, block_pattern=pattern, n_layers=28)


@pytest.mark.parametrize(
    "config",
    [make_config("gpt", size="tiny"), mixture(), ModelConfig(block=SMALL, n_layers=1)],
    ids=["gpt", "mixture", "one"],
)
def test_everything_lies_within_it(config):
    """Boxes and texts reach no edge, whatever the letters' font."""
    svg, _ = drawn(config, about="long words " * 60)
    root = ElementTree.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    for element in root.iter(f"{SVG}rect"):
        if element.get("class") != "page":
            assert 0 <= float(element.get("x")) <= float(element.get("x")) + float(element.get("width")) <= width
            assert 0 <= float(element.get("y")) <= float(element.get("y")) + float(element.get("height")) <= height
    for element in root.iter(f"{SVG}text"):
        letter = 7.5 if "code" in element.get("class", "") else 6.4
        long = len(element.text) * letter if "end" not in element.get("class", "") else 0
        assert float(element.get("x")) + long * (0.5 if "middle" in element.get("class", "") else 1) <= width
        assert 0 <= float(element.get("y")) <= height


def test_there_is_a_cell_for_each_layer_and_a_card_for_each_block():
    svg, counted = drawn(mixture())
    root = ElementTree.fromstring(svg)
    strip = [each for each in root.iter(f"{SVG}rect") if each.get("height") == "12" and each.get("fill")]
    assert len(strip) == 28
    colours = [each.get("fill") for each in strip]
    assert len(set(colours)) == 3
    assert [colour == colours[0] for colour in colours[:7]] == [True, True, False, True, True, False, False]
    said = texts(svg)
    for name in ("local", "still", "post"):
        assert name in said
    assert f"{counted.layers[0].parameters:,} parameters" in said
    assert "no cache" in said


def test_nothing_in_it_comes_from_outside():
    """No script, no link, no font file; and a name is a text, not markup."""
    svg, _ = drawn(make_config("llama", size="tiny"), "<script>alert('&')</script>", "a < b & c")
    assert "<script>alert('&')</script>" in texts(svg)
    assert "a < b & c" in texts(svg)
    assert not re.search(r"<script|href|url\(|@import|@font-face", svg)


def runs(order):
    return [(each.times, [(row.kind, row.first, row.n) for row in each.rows]) for each in folded(order)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([0, 0, 1], [(1, [(0, 0, 1), (0, 1, 1), (1, 2, 1)])]),
        ([0] * 32, [(1, [(0, 0, 32)])]),
        ([0] * 3 + [1] * 58, [(1, [(0, 0, 3), (1, 3, 58)])]),
        ([0, 1] * 12, [(12, [(0, 0, 1), (1, 1, 1)])]),
        (([0] * 5 + [1]) * 5 + [0] * 4, [(5, [(0, 0, 5), (1, 5, 1)]), (1, [(0, 30, 4)])]),
        ([2] + [0, 1] * 8 + [2], [(1, [(2, 0, 1)]), (8, [(0, 1, 1), (1, 2, 1)]), (1, [(2, 17, 1)])]),
    ],
    ids=["few", "alike", "two runs", "in turn", "gemma", "ends"],
)
def test_layers_are_folded(order, expected):
    assert runs(order) == expected


@pytest.mark.parametrize("seed", range(20))
def test_no_layer_is_lost(seed):
    """Unfolded, the rows are the layers again."""
    order = [(seed * i * i // 7) % 3 for i in range(9 + 5 * seed)]
    again = [row.kind for rows in folded(order) for _ in range(rows.times) for row in rows.rows for _ in range(row.n)]
    assert again == order
    assert Rows([Row(0, 0, 1)]).times == 1
