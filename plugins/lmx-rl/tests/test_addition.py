"""Sums, for every way to learn them."""

import itertools

import numpy as np
import pytest

from lmx_core import build, spec
from lmx_core.data.tokenizers import ByteTokenizer, CharTokenizer
from lmx_core.errors import ConfigError
from lmx_core.testing import conformance
from lmx_rl.data import Addition, AdditionOptions

pytestmark = pytest.mark.once

WAYS = ("documents", "encoded", "pairs", "judged", "prompts")


def addition(**options):
    return Addition(AdditionOptions(**options))


def text(tokens):
    return ByteTokenizer().decode_bytes(np.asarray(tokens).tolist()).decode()


class Ending(ByteTokenizer):
    """Bytes, with a token that begins texts and one that ends them."""

    prefix = (2,)
    eos_tokens = (3, 4)


@conformance("dataset.lmx-rl/addition", options={"seed": 3})
def test_addition_keeps_the_promises_of_a_dataset(check):
    check()


@pytest.mark.parametrize("digits", [1, 2])
def test_every_sum_is_there_once_and_right(digits):
    """Both splits together are all problems; each is what Python makes of it."""
    made = addition(digits=digits, held_out=10)
    held_out, train = ([*made.documents(split)] for split in ("validation", "train"))
    assert len(held_out) == 10
    assert len({*held_out, *train}) == len(held_out) + len(train) == 100**digits
    for document in [*held_out, *train]:
        prompt, equals, answer = document.partition("=")
        assert equals
        assert answer.endswith("\n")
        assert len(answer) == digits + 2
        assert {len(number) for number in prompt.split("+")} == {digits}
        assert int(answer.strip()[::-1]) == sum(map(int, prompt.split("+")))


def test_the_example_of_the_docs():
    assert "12+34=640\n" in {*addition().documents("train"), *addition().documents("validation")}
    assert "99+99=891\n" in {*addition().documents("train"), *addition().documents("validation")}


def test_its_characters_are_thirteen():
    """Digits, plus, equals, and the line break behind each document."""
    assert CharTokenizer.fit(addition().documents("train")).vocab_size == 13


def test_every_way_tells_of_the_same_problems():
    """In the same order, with the same right answer, and in `encoded` with that answer alone learned."""
    made, tokenizer = addition(digits=1, held_out=30), ByteTokenizer()
    for split in ("train", "validation"):
        found = [[*getattr(made, way)(tokenizer, split)] for way in WAYS[1:]]
        for document, example, pair, judged, prompt in zip(made.documents(split), *found, strict=True):
            asked, right = document[:4], document[4:-1]
            assert text(example.tokens) == asked + right
            assert example.learn.tolist() == [False] * 4 + [True] * 2
            assert [text(each) for each in (pair.prompt, pair.chosen)] == [asked, right]
            assert text(judged.prompt) == asked
            assert judged.good == (text(judged.completion) == right)
            assert (text(prompt.tokens), prompt.text, prompt.answer) == (asked, asked, right)


def test_wrong_answers_are_wrong_and_look_right():
    """Digits, as many as in the right one, anything but that."""
    for pair in addition().pairs(ByteTokenizer(), "train"):
        assert len(text(pair.rejected)) == 3
        assert text(pair.rejected).isdigit()
        assert text(pair.rejected) != text(pair.chosen)
    goods = [each.good for each in addition().judged(ByteTokenizer(), "train")]
    assert sum(goods) == len(goods) / 2


def test_a_seed_decides_on_everything():
    def told(seed):
        made = addition(seed=seed, digits=1, held_out=20)
        pairs = made.pairs(ByteTokenizer(), "train")
        return [*made.documents("validation")], [(text(pair.prompt), text(pair.rejected)) for pair in pairs]

    assert told(0) == told(0)
    assert told(0)[0] != told(1)[0]
    assert told(0)[1] != told(1)[1]


def test_texts_begin_and_end_as_the_tokenizer_says():
    """With its first token before the prompt and its token that ends texts, which is learned, behind the answer."""
    made = addition(digits=1, held_out=30)
    example, pair, prompt = (
        next(iter(getattr(made, way)(Ending(), "train"))) for way in ("encoded", "pairs", "prompts")
    )
    assert example.tokens[[0, -1]].tolist() == [2, 3]
    assert example.learn.tolist() == [False] * 5 + [True] * 3
    assert pair.prompt[0] == prompt.tokens[0] == 2
    assert pair.chosen[-1] == pair.rejected[-1] == 3
    assert prompt.tokens.tolist() == pair.prompt.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": 1, "held_out": 100}, "held_out=100 leaves nothing to train on: of digits=1 there are 100 problems"),
        ({"digits": 4}, "digits: must be <= 3, got 4"),
        ({"held_out": 0}, "held_out: must be >= 1, got 0"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(ConfigError, match=message):
        build("dataset", spec("addition", **options))


def test_no_sum_is_on_both_sides():
    for way in WAYS[1:]:
        sides = [
            {bytes(getattr(each, "prompt", getattr(each, "tokens", None)).tobytes()) for each in found}
            for found in (getattr(addition(), way)(ByteTokenizer(), split) for split in ("train", "validation"))
        ]
        assert not sides[0] & sides[1]
        assert len([*itertools.chain(*sides)]) == 10_000
