"""Prompts and answers as tokens, and on which side a row is."""

import random

import pytest

from lmx_core.data.answers import Answers, example
from lmx_core.data.datasets.rows import share
from lmx_core.data.tokenizers import ByteTokenizer
from lmx_core.errors import DataError

pytestmark = pytest.mark.once

USER, ANSWER, OTHER = (
    {"role": role, "content": said} for role, said in (("user", "a?"), ("assistant", "b"), ("assistant", "c"))
)


class Chatting(ByteTokenizer):
    """Bytes but for `ab`, which is one token; a template that writes the role's first letter before each content."""

    prefix = (1,)
    eos_tokens = (2, 3)

    def encode(self, text):
        return [*text.replace("ab", "\x00").encode()]

    def encode_chat(self, messages, tools=None):
        turns = [(each["role"][0], each["content"], each["role"] == "assistant") for each in messages]
        tokens = [*f"{tools or ''}".encode(), *"".join(f"{who}{said}." for who, said, _ in turns).encode()]
        learn = [flag for who, said, good in turns for flag in (False, *[good] * (len(said) + 1))]
        return tokens, [False] * (len(tokens) - len(learn)) + learn

    def apply_chat_template(self, messages, tools=None):
        return [*self.encode_chat(messages, tools)[0], *b"a"]


def told(continued):
    return [tuple(bytes(part) for part in each) for each in continued]


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("x", "y", (b"\x01x", b"y\x02")),
        ("a", "b", (b"\x01a", b"b\x02")),
        ("xa", "ba", (b"\x01xa", b"ba\x02")),
        ("x", "ab", (b"\x01x", b"\x00\x02")),
        ("", "y", (b"\x01", b"y\x02")),
        (None, "y", (b"\x01", b"y\x02")),
        ([USER], [ANSWER], (b"ua?.a", b"b.")),
        ([USER], "b", (b"ua?.a", b"b.")),
        ("a?", [ANSWER], (b"ua?.a", b"b.")),
        (None, [USER, ANSWER], (b"ua?.a", b"b.")),
        (None, [USER, ANSWER, USER], (b"ua?.a", b"b.")),
        ("left aside", [USER, OTHER, USER, ANSWER], (b"ua?.ac.ua?.a", b"b.")),
        ([USER, OTHER, USER], [ANSWER], (b"ua?.ac.ua?.a", b"b.")),
    ],
)
def test_a_prompt_has_the_tokens_that_it_is_asked_with(prompt, answer, expected):
    """A token that would span both is none; of a conversation, the last turn of the assistant's is the answer."""
    answers = Answers.of(Chatting())
    assert told(answers.answered([(prompt, answer, None)])) == [expected]
    if prompt is not None and prompt != "left aside":
        tokens, _ = answers.asked(prompt if isinstance(answer, str) or not isinstance(prompt, str) else [USER])
        assert bytes(tokens) == expected[0]


def test_many_are_what_each_is_alone():
    """Texts and conversations mixed, in their order."""
    answers, draw = Answers.of(Chatting()), random.Random(0)
    rows = []
    for _ in range(200):
        prompt, answer = ("".join(draw.choices("abx", k=draw.randint(0, 5))) for _ in range(2))
        rows.append((prompt, answer, None) if draw.random() < 0.5 else ([{**USER, "content": prompt}], answer, ["t"]))
    assert answers.answered(rows) == [each for row in rows for each in answers.answered([row])]


def test_both_answers_of_a_pair_have_one_prompt():
    answers = Answers.of(Chatting())
    rows = [("x", "a", "b", None), ([USER], "b", [OTHER], None), (None, [USER, ANSWER], [USER, OTHER], '["t"]')]
    found = [
        tuple(bytes(part.tolist()) for part in (each.prompt, each.chosen, each.rejected))
        for each in answers.pairs(rows)
    ]
    assert found == [(b"\x01x", b"a\x02", b"b\x02"), (b"ua?.a", b"b.", b"c."), (b"['t']ua?.a", b"b.", b"c.")]
    with pytest.raises(DataError, match="the answers of a preference row have different prompts"):
        answers.pairs([(None, [USER, ANSWER], [USER, ANSWER, USER, OTHER], None)])


def test_an_answer_ends_as_the_tokenizer_says_or_else_as_told():
    """With nothing, unless told otherwise."""
    row = [("x", "y", None)]
    assert told(Answers.of(ByteTokenizer()).answered(row)) == [(b"x", b"y")]
    assert told(Answers.of(ByteTokenizer(), "!\n").answered(row)) == [(b"x", b"y!\n")]
    assert told(Answers.of(Chatting(), "!").answered(row)) == [(b"\x01x", b"y\x02")]


def test_of_an_example_the_answer_is_learned():
    found = example([1, 2], [3])
    assert found.tokens.tolist() == [1, 2, 3]
    assert found.learn.tolist() == [False, False, True]


def test_what_the_assistant_must_say():
    with pytest.raises(DataError, match="the assistant says nothing in .*Leave such rows out"):
        Answers.of(Chatting()).answered([(None, [USER], None)])
    with pytest.raises(
        DataError, match="rows of messages need a tokenizer with a chat template, and ByteTokenizer has none"
    ):
        Answers.of(ByteTokenizer()).answered([([USER], [ANSWER], None)])
    with pytest.raises(DataError, match="rows of messages need a tokenizer with a chat template"):
        Answers.of(ByteTokenizer()).asked([USER])


def test_rows_that_ask_the_same_are_on_one_side():
    """By prompt, by text, or by what comes before the last turn; evenly spread."""
    assert share({"prompt": "a", "completion": "b"}) == share({"prompt": "a", "chosen": "c"}) == share({"text": "a"})
    assert (
        share({"messages": [USER, ANSWER]}) == share({"messages": [USER, OTHER]}) == share({"chosen": [USER, ANSWER]})
    )
    assert share({"messages": [USER, ANSWER]}) != share({"messages": [{**USER, "content": "z"}, ANSWER]})
    assert share({"other": 1}) != share({"other": 2})
    shares = [share({"prompt": str(i)}) for i in range(2000)]
    assert all(0 <= each < 1 for each in shares)
    assert 0.45 < sum(each < 0.5 for each in shares) / 2000 < 0.55
