"""Rows of JSON Lines files: what their fields make of them, and what is said of bad ones."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from lmx_core import build, spec
from lmx_core.config import ComponentSpec
from lmx_core.data.corpus import DataConfig, read_corpus
from lmx_core.data.tokenizers import ByteTokenizer, CharTokenizer
from lmx_core.errors import ConfigError, DataError
from lmx_core.testing import conformance
from lmx_rl.data import JSONLines, JSONLinesOptions

from .chatting import Chatting

pytestmark = pytest.mark.once

USER, ANSWER, OTHER = (
    {"role": "user", "content": "to be?"},
    {"role": "assistant", "content": "or not"},
    {"role": "assistant", "content": "nor"},
)


def write(path, lines):
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    path.write_text("".join(f"{each}\n" for each in texts), encoding="utf-8", errors="surrogateescape")
    return str(path)


@pytest.fixture
def rows(tmp_path):
    """A dataset of these rows, all of them for training."""

    def made(*lines, **options):
        file = write(tmp_path / "a.jsonl", lines)
        return JSONLines(JSONLinesOptions(paths=file, **{"validation_fraction": 0, **options}))

    return made


def text(tokens):
    return ByteTokenizer().decode_bytes(np.asarray(tokens).tolist()).decode()


def parts(example):
    """The text that is not learned, and that which is."""
    return text(example.tokens[~example.learn]), text(example.tokens[example.learn])


@conformance("dataset.lmx-rl/jsonl", options={"paths": [str(Path(__file__).parent / "rows.jsonl")]})
def test_jsonl_keeps_the_promises_of_a_dataset(check):
    check()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "to be", "completion": " or not"}, ("\x01to be", " or not\x02")),
        ({"prompt": "", "completion": "or not"}, ("\x01", "or not\x02")),
        ({"prompt": "to be", "completion": " or not", "label": True, "id": 7}, ("\x01to be", " or not\x02")),
        ({"prompt": [USER], "completion": [ANSWER]}, ("<user:to be?><assistant:", "or not>")),
        ({"prompt": [USER], "completion": "or not"}, ("<user:to be?><assistant:", "or not>")),
        ({"messages": [USER, ANSWER]}, ("<user:to be?><assistant:", "or not>")),
        ({"messages": [USER, ANSWER], "tools": ["t"]}, ("['t']<user:to be?><assistant:", "or not>")),
        ({"messages": [USER, ANSWER, USER, OTHER]}, ("<user:to be?><assistant:" * 2, "or not>nor>")),
    ],
)
def test_answers_are_learned_and_prompts_are_not(rows, row, expected):
    (example,) = rows(row).encoded(Chatting(), "train")
    assert parts(example) == expected


def test_texts_are_documents(rows):
    """`encoded` leaves them to `documents`."""
    made = rows({"text": "one"}, "", {"text": "two", "id": 3}, "  ", {"text": ""}, separator="|")
    assert made.encoded(Chatting(), "train") is None
    assert [*made.documents("train")] == ["one|", "two|"]


def test_documents_hold_every_character(rows):
    """So that a tokenizer that is fitted on them can encode every answer."""
    made = rows({"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "d", "completion": "e"}, {"prompt": "f"})
    assert [*made.documents("train")] == ["ab\n", "ac\n", "de\n", "f\n"]


def test_what_is_labelled_as_bad_is_not_learned(rows):
    made = rows(*({"prompt": "a", "completion": each, "label": each == "b"} for each in "bcb"))
    assert [parts(each) for each in made.encoded(ByteTokenizer(), "train")] == [("a", "b")] * 2


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "to be", "chosen": " or", "rejected": " nor"}, ("\x01to be", " or\x02", " nor\x02")),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": "nor"}, ("<user:to be?><assistant:", "or not>", "nor>")),
        ({"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, ("<user:to be?><assistant:", "or not>", "nor>")),
        (
            {"prompt": [USER], "chosen": [ANSWER], "rejected": "nor", "tools": ["t"]},
            ("['t']<user:to be?><assistant:", "or not>", "nor>"),
        ),
    ],
)
def test_comparisons_become_pairs(rows, row, expected):
    (pair,) = rows(row).pairs(Chatting(), "train")
    assert tuple(text(each) for each in (pair.prompt, pair.chosen, pair.rejected)) == expected
    assert pair.prompt.dtype == pair.chosen.dtype == pair.rejected.dtype == np.int32


def test_judged_answers(rows):
    made = rows(
        *({"q": "to be", "completion": " or", "good": good} for good in (True, False)),
        columns={"prompt": "q", "label": "good"},
    )
    found = [(text(each.prompt), text(each.completion), each.good) for each in made.judged(Chatting(), "train")]
    assert found == [("\x01to be", " or\x02", True), ("\x01to be", " or\x02", False)]


def test_pairs_are_judged_answers(rows):
    made = rows({"prompt": "to be", "chosen": " or", "rejected": " and"})
    found = [(text(each.prompt), text(each.completion), each.good) for each in made.judged(Chatting(), "train")]
    assert found == [("\x01to be", " or\x02", True), ("\x01to be", " and\x02", False)]


@pytest.mark.parametrize(
    ("row", "tokens", "said"),
    [
        ({"prompt": "2+2="}, "\x012+2=", "2+2="),
        ({"prompt": [OTHER, USER]}, "<assistant:nor><user:to be?><assistant:", "to be?"),
        ({"prompt": [{"role": "user", "content": ["a"]}]}, "<user:['a']><assistant:", "<user:['a']><assistant:"),
        ({"prompt": [USER], "tools": ["t"]}, "['t']<user:to be?><assistant:", "to be?"),
    ],
)
def test_questions_become_prompts(rows, row, tokens, said):
    """With the answer as it stands there, and with all that the row has beside it."""
    more = {"answer": [4, {"unit": None}], "kind": "sum", "difficulty": 0.5}
    (prompt,) = rows(row | more).prompts(Chatting(), "train")
    assert (text(prompt.tokens), prompt.text) == (tokens, said)
    assert prompt.answer == [4, {"unit": None}]
    assert prompt.about == {"kind": "sum", "difficulty": 0.5}
    (prompt,) = rows(row).prompts(Chatting(), "train")
    assert (prompt.answer, prompt.about) == (None, {})


def test_an_answer_ends_as_the_tokenizer_or_the_options_say(rows):
    row = {"prompt": "a", "completion": "b"}
    for tokenizer, end, expected in (
        (ByteTokenizer(), "", "b"),
        (ByteTokenizer(), "\n\n", "b\n\n"),
        (Chatting(), "!", "b\x02"),
    ):
        (example,) = rows(row, end=end).encoded(tokenizer, "train")
        assert parts(example)[1] == expected


def test_a_field_may_be_called_otherwise(rows):
    """And one that is called like a role, but is not named, plays none."""
    made = rows({"question": "q", "prompt": "p", "solution": "s"}, columns={"prompt": "question", "answer": "solution"})
    (prompt,) = made.prompts(ByteTokenizer(), "train")
    assert (prompt.text, prompt.answer, prompt.about) == ("q", "s", {})


class Pairwise(ByteTokenizer):
    """A token for each `ab`, and a byte for anything else."""

    def encode(self, text):
        return [*text.replace("ab", "\x00").encode()]


def test_a_token_that_spans_prompt_and_answer_is_none(rows):
    """The prompt has the tokens that it is asked with; an answer follows it, where that is possible."""
    first, second = rows({"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "ab"}).encoded(
        Pairwise(), "train"
    )
    assert first.tokens.tolist() == [*b"ab"]
    assert second.tokens.tolist() == [*b"c\x00"]


def test_one_prompt_is_on_one_side(tmp_path):
    """Whatever the answers: about the fraction of the prompts is held out, however rows are worded beside them."""
    draw = random.Random(0)
    lines = [{"prompt": f"{draw.randrange(300)}", "completion": str(i)} for i in range(2000)]
    made = JSONLines(JSONLinesOptions(paths=write(tmp_path / "a.jsonl", lines), validation_fraction=0.2))
    train, held_out = (
        {text(each.tokens) for each in made.prompts(ByteTokenizer(), split)} for split in ("train", "validation")
    )
    assert not train & held_out
    assert 0.1 < len(held_out) / 300 < 0.3
    talks = [{"messages": [{**USER, "content": str(i % 100)}, {**ANSWER, "content": str(i)}]} for i in range(400)]
    made = JSONLines(JSONLinesOptions(paths=write(tmp_path / "b.jsonl", talks), validation_fraction=0.2))
    sides = [{parts(each)[0] for each in made.encoded(Chatting(), split)} for split in ("train", "validation")]
    assert not sides[0] & sides[1]
    assert len(sides[0]) + len(sides[1]) == 100


def test_files_are_held_out(tmp_path):
    """Whole, and left out of what is trained on; rows come file by file in a fixed order."""
    for name in "abc":
        write(tmp_path / f"{name}.jsonl", [{"text": f"{name}{i}"} for i in range(3)])
    (tmp_path / "notes.txt").write_text("no rows")
    options = {"validation_paths": str(tmp_path / "b.jsonl"), "separator": ""}
    for paths in (str(tmp_path), [str(tmp_path / "*.jsonl")]):
        made = JSONLines(JSONLinesOptions(paths=paths, **options))
        assert [*made.documents("validation")] == ["b0", "b1", "b2"]
        train = [*made.documents("train")]
        assert sorted(train) == ["a0", "a1", "a2", "c0", "c1", "c2"]
        assert train[:3] in (["a0", "a1", "a2"], ["c0", "c1", "c2"])


WAYS = ("encoded", "pairs", "judged", "prompts")


@pytest.mark.parametrize(
    ("way", "line", "message"),
    [
        (
            "pairs",
            {"prompt": "a", "chosen": "b"},
            "rejected is missing, which is to be a text, .*The row has prompt, chosen; columns = { rejected = ",
        ),
        (
            "pairs",
            {"prompt": "a", "chosen": "b", "rejected": ""},
            "rejected is empty, and from an empty answer nothing is learned",
        ),
        (
            "pairs",
            {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": ""}]},
            "rejected is empty",
        ),
        ("pairs", {"chosen": "b", "rejected": "c"}, "prompt is missing"),
        ("pairs", {"prompt": "", "chosen": "b", "rejected": "c"}, "its prompt has no tokens, and an answer needs one"),
        (
            "pairs",
            {"chosen": [USER, ANSWER], "rejected": [ANSWER, USER, OTHER]},
            "the answers of a preference row have different prompts",
        ),
        ("judged", {"prompt": "a", "completion": "b", "label": 1}, r"label is 1 \(int\), not true or false"),
        (
            "judged",
            {"prompt": "a", "completion": "b", "lable": True},
            "label is missing, which is to be true or false. Did you mean 'lable'",
        ),
        ("judged", {"prompt": "a", "completion": "", "label": True}, "completion is empty"),
        ("prompts", {"question": "a"}, "prompt is missing, .*The row has question; columns = { prompt ="),
        ("prompts", {"prompt": None}, r"prompt is None \(NoneType\), not a text, or a list of messages"),
        ("prompts", {"prompt": ""}, "its prompt has no tokens"),
        ("prompts", {"prompt": []}, r"prompt is \[\] \(list\), not a text, or"),
        (
            "prompts",
            {"prompt": [{"from": "user", "value": "a"}]},
            "prompt is .*, not a text, or a list of messages, each with a role and a content",
        ),
        ("prompts", {"prompt": "a\ud800"}, "prompt: character 1 of the text is '.ud800', half a UTF-16 pair"),
        ("encoded", {"prompt": "a", "completion": 3}, r"completion is 3 \(int\), not a text"),
        ("encoded", {"prompt": "a", "completion": ""}, "completion is empty"),
        ("encoded", {"prompt": "a", "completion": []}, r"completion is \[\] \(list\), not a text"),
        ("encoded", {"completion": "b"}, "prompt is missing"),
        ("encoded", "[1]", r"is \[1\] \(list\), not a table of fields"),
        ("encoded", '{"prompt": ', r"is no JSON \(.*\): {\"prompt\":. Each line is one table"),
        ("encoded", "[" * 100_000, "is no JSON"),
        ("encoded", '{"prompt": "\udcff"}', r"byte 13 is b'.xff', which is no UTF-8. Save the file as UTF-8"),
    ],
)
def test_a_bad_row_is_named(rows, way, line, message):
    """By file and line, which counts blank ones."""
    good = {"prompt": "a", "completion": "b", "label": True, "chosen": "c", "rejected": "d"}
    made = rows(good, "", good, line, good)
    found = getattr(made, way)(
        Chatting() if isinstance(line, dict) and "tokens" not in message else ByteTokenizer(), "train"
    )
    with pytest.raises(DataError, match=rf"a\.jsonl, line 4:? ?{message}"):
        list(found)


def test_messages_need_a_template(rows):
    made = rows({"messages": [USER, ANSWER]})
    with pytest.raises(
        DataError, match=r"a\.jsonl, line 1: rows of messages need a tokenizer with a chat template, and ByteTok"
    ):
        [*made.encoded(ByteTokenizer(), "train")]
    with pytest.raises(DataError, match=r"line 1: messages become text by a chat template"):
        [*made.documents("train")]
    made = rows({"messages": [USER]}, {"messages": [ANSWER, {"role": "user"}]})
    with pytest.raises(DataError, match=r"line 2: messages is .* not a list of messages"):
        [*made.encoded(Chatting(), "train")]


def test_a_tokenizers_refusal_is_told_with_its_row(rows):
    """Though many rows are encoded together."""
    made = rows(*[{"prompt": "a", "completion": "b"}] * 5, {"prompt": "a", "completion": "z"})
    with pytest.raises(DataError, match=r"a\.jsonl, line 6: 1 of the text's characters have no token: 'z'"):
        [*made.encoded(CharTokenizer("ab"), "train")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            'of which nothing is learned as a text.*train.trainer = "dpo"',
        ),
        ({"prompt": "a", "answer": "b"}, 'it has prompt, answer, of which nothing .*train.trainer = "grpo"'),
    ],
)
def test_what_needs_another_trainer_says_so(rows, row, message):
    with pytest.raises(DataError, match=rf"line 1: .*{message}"):
        rows(row).encoded(ByteTokenizer(), "train")


def test_a_split_without_rows_is_explained(rows, tmp_path):
    with pytest.raises(
        DataError, match="no row of .*a.jsonl is for validation. Give more rows, another validation_frac"
    ):
        [*rows({"text": "a"}).documents("validation")]
    (tmp_path / "empty.jsonl").write_text("\n \n")
    made = JSONLines(JSONLinesOptions(paths=str(tmp_path / "empty.jsonl")))
    for way in WAYS:
        with pytest.raises(DataError, match="no row of .*empty.jsonl is for train"):
            [*getattr(made, way)(ByteTokenizer(), "train")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "paths: is missing"),
        ({"paths": []}, "paths: must name files"),
        ({"paths": "a", "columns": {"pormpt": "a"}}, "columns: no 'pormpt'. Did you mean 'prompt'"),
        ({"paths": "a", "columns": {"prompt": "a", "answer": "a"}}, "columns: 'a' stands for several fields"),
        ({"paths": "a", "validation_fraction": 1.0}, "validation_fraction: must be < 1"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(ConfigError, match=message):
        build("dataset", spec("jsonl", **options))


def test_a_missing_file_is_explained():
    with pytest.raises(DataError, match="nothing-here.jsonl matches no file"):
        [*build("dataset", spec("jsonl", paths="nothing-here.jsonl")).documents("train")]


def test_a_mark_at_the_beginning_is_no_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "\xe2\x80\xa8a"}\r\n{"text": "b"}')
    made = JSONLines(JSONLinesOptions(paths=str(tmp_path / "a.jsonl"), validation_fraction=0, separator=""))
    assert [*made.documents("train")] == ["\u2028a", "b"]


def test_lmx_trains_on_answers(tmp_path):
    """The corpus that `lmx train` reads has the masks of both splits."""
    lines = [{"prompt": f"{i}?", "completion": "!"} for i in range(100)]
    chosen = ComponentSpec("jsonl", {"paths": [write(tmp_path / "a.jsonl", lines)]})
    corpus = read_corpus(DataConfig(dataset=chosen), 1000, 100)
    for documents in (corpus.train, corpus.validation):
        assert {parts(each)[1] for each in documents} == {"!"}
    assert len(corpus.train) + len(corpus.validation) == 100
