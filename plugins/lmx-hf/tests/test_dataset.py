"""Datasets as text, as examples and as packed rows of tokens, that go on where they were left."""

import itertools
import json
import random
import sys

import numpy as np
import pytest

from lmx_core.config import spec
from lmx_core.construct import build
from lmx_core.data.corpus import DataConfig, HeldOut, read_corpus
from lmx_core.data.documents import Documents
from lmx_core.data.prepare import prepare
from lmx_core.data.tokenizers import ByteTokenizer, decode
from lmx_core.errors import ConfigError, DataError, LmxError
from lmx_core.testing import conformance
from lmx_core.train import main
from lmx_hf import HFDataset, HFDatasetOptions, HFTokenizer
from lmx_hf.data import rows

from .small_tokenizers import TEXT, gpt2, llama2, llama3

datasets = pytest.importorskip("datasets", reason="this is what reads them")

pytestmark = pytest.mark.once

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Nothing is fetched, and what is kept is kept here."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def tokenizer():
    """One that begins and ends texts, and that chats."""
    made = HFTokenizer(json.loads(llama3().to_str())).to_dict()
    made["settings"] = {"roles": {"bos_token": "<|begin|>", "eos_token": "<|end|>"}, "templates": {"default": CHATML}}
    return HFTokenizer.from_dict(made)


def jsonl(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def texts(count, seed=0):
    draw = random.Random(seed)
    return [f"{i} {' '.join(draw.choices(TEXT.split(), k=draw.randint(1, 30)))} é🙂" for i in range(count)]


@pytest.fixture
def corpus(tmp_path):
    """The options of 500 texts in two files, all for training."""
    all_texts = texts(500)
    files = [jsonl(tmp_path / f"{i}.jsonl", [{"text": text} for text in all_texts[i::2]]) for i in range(2)]
    return {"path": "json", "data_files": files, "validation_fraction": 0.0}, all_texts[0::2] + all_texts[1::2]


def dataset(**options):
    return HFDataset(HFDatasetOptions(**options))


def told(examples):
    """Anything that arrays are made of, to be compared."""
    return [
        [np.asarray(getattr(each, name)).tolist() for name in each.__slots__ if name[0] != "_"] for each in examples
    ]


@conformance("dataset.lmx-hf/hf", options={"path": "text", "data_files": [__file__]})
def test_it_keeps_the_promises_of_a_dataset(check):
    check()


@pytest.mark.parametrize("streaming", [True, False])
def test_every_kind_of_place_gives_the_same_documents(tmp_path, streaming):
    """Files of any kind, a folder of them, and what `save_to_disk` wrote."""
    lines = [{"body": text, "n": i} for i, text in enumerate(texts(40))]
    (tmp_path / "folder").mkdir()
    file = jsonl(tmp_path / "folder" / "a.jsonl", lines)
    made = datasets.Dataset.from_list(lines)
    made.to_parquet(tmp_path / "a.parquet")
    made.save_to_disk(tmp_path / "disk")
    datasets.DatasetDict(train=made).save_to_disk(tmp_path / "disks")
    (tmp_path / "a.txt").write_text("".join(line["body"] + "\n" for line in lines), encoding="utf-8")
    places = [
        {"path": "json", "data_files": file},
        {"path": "parquet", "data_files": [str(tmp_path / "*.parquet")]},
        {"path": str(tmp_path / "folder")},
        {"path": str(tmp_path / "disk")},
        {"path": str(tmp_path / "disks")},
    ]
    found = [[*dataset(**place, columns={"text": "body"}, streaming=streaming).documents("train")] for place in places]
    found.append([*dataset(path="text", data_files=str(tmp_path / "a.txt"), streaming=streaming).documents("train")])
    assert all(each == found[0] for each in found)
    held_out = [*dataset(**places[0], columns={"text": "body"}, streaming=streaming).documents("validation")]
    assert sorted([*found[0], *held_out]) == sorted(line["body"] + "\n" for line in lines)


def test_what_is_held_out_is_apart(tmp_path):
    """About the fraction, equal texts on one side, or a split and files of their own."""
    lines = [{"text": text} for text in texts(1000)]
    file = jsonl(tmp_path / "a.jsonl", [*lines, *lines, {"text": ""}])
    train, held_out = ([*dataset(path="json", data_files=file).documents(split)] for split in ("train", "validation"))
    assert len(train) + len(held_out) == 2000
    assert 140 < len(held_out) < 260
    assert not {*train} & {*held_out}
    other = jsonl(tmp_path / "b.jsonl", [{"text": "other"}])
    apart = dataset(path="json", data_files=file, validation_files=other, separator=" | ")
    assert [*apart.documents("validation")] == ["other | "]
    assert len([*apart.documents("train")]) == 2000
    splits = {name: datasets.Dataset.from_list([{"text": name}]) for name in ("train", "dev")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "disk")
    apart = dataset(path=str(tmp_path / "disk"), validation_split="dev")
    assert [*apart.documents("validation"), *apart.documents("train")] == ["dev\n", "train\n"]


@pytest.mark.parametrize("kind", ["byte level", "byte fallback", "core's"])
def test_packed_rows_are_the_documents_one_after_another(corpus, kind, monkeypatch):
    """As a plain loop gives them: each begun and ended as the tokenizer says, cut into rows, documents numbered in each."""
    monkeypatch.setattr(rows, "CHUNK", 64)
    options, all_texts = corpus
    made = {"byte level": gpt2, "byte fallback": llama2}.get(kind)
    tokenizer = HFTokenizer(json.loads(made().to_str()), lossy=True) if made else ByteTokenizer()
    begin, end = ([1] if kind == "byte level" else []), tokenizer.encode("\n")
    whole = [[*begin, *tokenizer.encode(text), *end] for text in all_texts]
    tokens = [*itertools.chain.from_iterable(whole)]
    numbers = [*itertools.chain.from_iterable([i] * len(each) for i, each in enumerate(whole))]
    found = [*dataset(**options).packed(tokenizer, 96)]
    assert len(found) == len(tokens) // 96
    for i, row in enumerate(found):
        assert row.tokens.dtype == np.int32
        assert row.tokens.tolist() == tokens[96 * i : 96 * (i + 1)]
        first = numbers[96 * i]
        assert row.documents.tolist() == [number - first for number in numbers[96 * i : 96 * (i + 1)]]
        assert row.learn.all()
    given = next(dataset(**options).packed(tokenizer, 96, begin=[5, 6], end=[]))
    assert given.tokens.tolist()[:10] == [5, 6, *tokenizer.encode(all_texts[0])][:10]


@pytest.mark.parametrize("shuffle_buffer", [0, 130])
@pytest.mark.parametrize("streaming", [True, False])
def test_a_stream_goes_on_where_it_was_left(corpus, tokenizer, streaming, shuffle_buffer, monkeypatch):
    """From any row on, within a document, a chunk, a shuffled block and an epoch, and after the last."""
    monkeypatch.setattr(rows, "CHUNK", 50)
    options, _ = corpus
    made = dataset(**options, streaming=streaming, shuffle_buffer=shuffle_buffer)
    for stream in (
        lambda: made.packed(tokenizer, 70, epochs=2),
        lambda: made.examples(tokenizer, epochs=2),
    ):
        whole, states = stream(), []
        states.append(whole.state_dict())
        expected = []
        for each in whole:
            expected.append(each)
            states.append(whole.state_dict())
        states, expected = [json.dumps(state) for state in states], told(expected)
        count = len(expected)
        for left in {0, 1, 2, 7, count // 3, count // 2, count // 2 + 1, 3 * count // 4, count - 1, count}:
            resumed = stream()
            resumed.load_state_dict(json.loads(states[left]))
            assert resumed.state_dict() == json.loads(states[left])
            assert told(resumed) == expected[left:]
        twice = stream()
        twice.load_state_dict(json.loads(states[count // 2]))
        kept = told(itertools.islice(twice, 5))
        again = stream()
        again.load_state_dict(json.loads(json.dumps(twice.state_dict())))
        assert kept + told(again) == expected[count // 2 :]


def test_pairs_go_on_where_they_were_left(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 7)
    lines = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)]
    made = dataset(path="json", data_files=jsonl(tmp_path / "a.jsonl", lines), validation_fraction=0, shuffle_buffer=16)
    whole = made.pairs(tokenizer)
    expected = [*itertools.islice(whole, 18)]
    state = json.loads(json.dumps(whole.state_dict()))
    resumed = made.pairs(tokenizer)
    resumed.load_state_dict(state)
    rest = told(resumed)
    assert len(expected) + len(rest) == 40
    assert rest == told(whole)


def test_a_position_of_other_data_is_refused(corpus, tokenizer):
    options, _ = corpus
    state = dataset(**options).packed(tokenizer, 64).state_dict()
    for other, message in (
        (dataset(**options, seed=3).packed(tokenizer, 64), "saved with seed=0 and this stream has 3"),
        (dataset(**options, name="b").packed(tokenizer, 64), "saved with name=None and this stream has 'b'"),
        (dataset(**options).examples(tokenizer), "saved with seq_len=64 and this stream has None"),
        (dataset(**options).packed(tokenizer, 65), "saved with seq_len=64 and this stream has 65"),
        (dataset(**options).examples(ByteTokenizer()), "saved with begin="),
    ):
        with pytest.raises(DataError, match=message):
            other.load_state_dict(state)
    with pytest.raises(DataError, match="no position of a stream"):
        dataset(**options).packed(tokenizer, 64).load_state_dict({"step": 3})


DAMAGE = [
    {"of": 3},
    {"position": 3},
    {"position": None},
    {"offset": "3"},
    {"offset": -1},
    {"offset": 10**6},
    *({"position": {name: value}} for name in ("epoch", "row", "read", "block") for value in ("a", None, -1, 1.5)),
    {"position": {"row": 10**6}},
    {"position": {"source": 3}},
    {"position": {"source": {}}},
    {"position": {"source": {"x": 1}}},
    {"position": {"source": {"examples_iterable": 3}}},
]


@pytest.mark.parametrize("kind", ["packed", "examples"])
@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_a_damaged_position_is_refused(corpus, kind, damage, monkeypatch):
    """At once, or when the next row is asked for."""
    monkeypatch.setattr(rows, "CHUNK", 50)
    made = dataset(**corpus[0])
    stream = made.packed(ByteTokenizer(), 64) if kind == "packed" else made.examples(ByteTokenizer())
    [*itertools.islice(stream, 150)]
    state = json.loads(json.dumps(stream.state_dict()))
    assert state["position"]["source"]
    changed = damage.get("position")
    whole = {**state, **damage} | ({"position": {**state["position"], **changed}} if isinstance(changed, dict) else {})

    def go_on():
        stream.load_state_dict(whole)
        return next(stream)

    with pytest.raises(DataError, match="position|cannot be read"):
        go_on()


def test_a_seed_shuffles(corpus, tokenizer):
    """The same order each time, another for another seed and in the next epoch; all rows in each."""
    options, all_texts = corpus

    def order(seed, **more):
        made = dataset(**options, shuffle_buffer=200, seed=seed).examples(tokenizer, end=[], begin=[], **more)
        return [decode(tokenizer, each.tokens.tolist()) for each in made]

    first = order(0)
    assert first == order(0) != order(1)
    assert sorted(first) == sorted(order(1)) == sorted(all_texts)
    assert first != all_texts
    both = order(0, epochs=2)
    assert both[:500] == first != both[500:]
    assert sorted(both[500:]) == sorted(all_texts)
    endless = dataset(**options).examples(tokenizer, epochs=None)
    assert len([*itertools.islice(endless, 1200)]) == 1200


def parts(tokenizer, example):
    """Text, learned or not, in turn."""
    pairs = zip(example.tokens.tolist(), example.learn.tolist(), strict=True)
    return [
        (learned, decode(tokenizer, [token for token, _ in group]))
        for learned, group in itertools.groupby(pairs, lambda pair: pair[1])
    ]


USER, ANSWER = {"role": "user", "content": "to be?"}, {"role": "assistant", "content": "or not"}
HEADER = "<|im_start|>user\nto be?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "to be"}, [(True, "<|begin|>to be<|end|>")]),
        ({"prompt": "to be", "completion": " or not"}, [(False, "<|begin|>to be"), (True, " or not<|end|>")]),
        ({"prompt": "to be ", "completion": "or not"}, [(False, "<|begin|>to be "), (True, "or not<|end|>")]),
        ({"messages": [USER, ANSWER]}, [(False, HEADER), (True, "or not<|im_end|>"), (False, "\n")]),
        ({"prompt": [USER], "completion": [ANSWER]}, [(False, HEADER), (True, "or not<|im_end|>")]),
        (
            {"messages": [USER, ANSWER, USER, ANSWER]},
            [
                (False, HEADER),
                (True, "or not<|im_end|>"),
                (False, f"\n{HEADER}"),
                (True, "or not<|im_end|>"),
                (False, "\n"),
            ],
        ),
        (
            {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]},
            [(False, f"{HEADER}or not<|im_end|>\n{HEADER}"), (True, "or not<|im_end|>")],
        ),
    ],
)
def test_answers_are_learned_and_prompts_are_not(tmp_path, tokenizer, row, expected):
    """The end of an answer is; a chat template writes its own beginnings and ends."""
    made = dataset(path="json", data_files=jsonl(tmp_path / "a.jsonl", [row]), validation_fraction=0)
    (found,) = made.examples(tokenizer)
    assert parts(tokenizer, found) == expected
    packed = next(made.packed(tokenizer, len(found.tokens)))
    assert (packed.tokens == found.tokens).all()
    assert (packed.learn == found.learn).all()


OTHER = {"role": "assistant", "content": "nor"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "to be", "chosen": " or", "rejected": " nor"}, ["<|begin|>to be", " or<|end|>", " nor<|end|>"]),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}, [HEADER, "or not<|im_end|>", "nor<|im_end|>"]),
        ({"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, [HEADER, "or not<|im_end|>", "nor<|im_end|>"]),
        (
            {"prompt": "to be?", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
            [HEADER, "or not<|im_end|>", "nor<|im_end|>"],
        ),
        ({"chosen": "to be", "rejected": "nor"}, ["<|begin|>", "to be<|end|>", "nor<|end|>"]),
    ],
)
def test_preferences_become_pairs(tmp_path, tokenizer, row, expected):
    """Texts, answers to a conversation, and whole conversations that share all but their last turn."""
    made = dataset(path="json", data_files=jsonl(tmp_path / "a.jsonl", [row]), validation_fraction=0)
    (pair,) = made.pairs(tokenizer)
    assert [decode(tokenizer, each.tolist()) for each in (pair.prompt, pair.chosen, pair.rejected)] == expected


def test_preferences_are_judged_answers(tmp_path, tokenizer):
    """The better one is good, the other is not."""
    rows = [{"prompt": "to be", "chosen": " or", "rejected": " nor"}]
    made = dataset(path="json", data_files=jsonl(tmp_path / "a.jsonl", rows), validation_fraction=0)
    found = [(decode(tokenizer, each.completion.tolist()), each.good) for each in made.judged(tokenizer)]
    assert found == [(" or<|end|>", True), (" nor<|end|>", False)]


def test_judged_answers(tmp_path, tokenizer):
    """With what they were found to be; as texts and messages, and in the order of the rows."""
    lines = [
        {"q": "to be", "a": " or", "good": True},
        {"q": "to be", "a": " nor", "good": False},
        {"q": "to be", "a": " or", "good": False},
    ]
    columns = {"prompt": "q", "completion": "a", "label": "good"}
    options = {"data_files": jsonl(tmp_path / "a.jsonl", lines), "columns": columns, "validation_fraction": 0}
    found = [*dataset(path="json", **options).judged(tokenizer)]
    assert [decode(tokenizer, each.prompt.tolist()) for each in found] == ["<|begin|>to be"] * 3
    assert [decode(tokenizer, each.completion.tolist()) for each in found] == [
        " or<|end|>",
        " nor<|end|>",
        " or<|end|>",
    ]
    assert [each.good for each in found] == [True, False, False]
    chat = jsonl(tmp_path / "b.jsonl", [{"prompt": [USER], "completion": [ANSWER], "label": True}])
    (found,) = dataset(path="json", data_files=chat, validation_fraction=0).judged(tokenizer)
    assert [decode(tokenizer, each.tolist()) for each in (found.prompt, found.completion)] == [
        HEADER,
        "or not<|im_end|>",
    ]


def test_what_is_labelled_as_bad_is_not_learned(tmp_path, tokenizer):
    lines = [{"prompt": "to be", "completion": " or", "label": good} for good in (True, False)]
    file = jsonl(tmp_path / "a.jsonl", lines)
    good, bad = dataset(path="json", data_files=file, validation_fraction=0).examples(tokenizer)
    assert parts(tokenizer, good) == [(False, "<|begin|>to be"), (True, " or<|end|>")]
    assert (bad.tokens == good.tokens).all()
    assert not bad.learn.any()


@pytest.mark.parametrize(
    ("row", "tokens", "text"),
    [
        ({"prompt": "to be"}, "<|begin|>to be", "to be"),
        ({"prompt": [USER]}, HEADER, USER["content"]),
        ({"prompt": "to be", "completion": " or not"}, "<|begin|>to be", "to be"),
        ({"prompt": "to be", "chosen": " or", "rejected": " nor"}, "<|begin|>to be", "to be"),
    ],
)
def test_prompts_have_all_that_their_row_has(tmp_path, tokenizer, row, tokens, text):
    """The answer as it stands there, and every column that is neither."""
    lines = [row | {"solution": 42, "kind": "sum"}, row | {"solution": 43, "kind": None}]
    options = {"data_files": jsonl(tmp_path / "a.jsonl", lines), "columns": {"answer": "solution"}}
    found = [*dataset(path="json", validation_fraction=0, **options).prompts(tokenizer)]
    assert [(decode(tokenizer, each.tokens.tolist()), each.text) for each in found] == [(tokens, text)] * 2
    assert [each.answer for each in found] == [42, 43]
    others = {name: value for name, value in row.items() if name != "prompt"}
    assert [each.about for each in found] == [others | {"kind": kind} for kind in ("sum", None)]


def test_one_prompt_is_on_one_side(tmp_path, tokenizer):
    """Whatever is asked of a dataset, and of conversations by what comes before their last turn."""
    lines = [{"prompt": str(i % 60), "completion": str(i), "label": i % 2 == 0} for i in range(300)]
    made = dataset(path="json", data_files=jsonl(tmp_path / "a.jsonl", lines), validation_fraction=0.3)
    held_out = {each.text for each in made.prompts(tokenizer, "validation")}
    assert 5 < len(held_out) < 35
    assert not held_out & {each.text for each in made.prompts(tokenizer, "train")}
    judged = {decode(tokenizer, each.prompt.tolist()) for each in made.judged(tokenizer, "validation")}
    assert judged == {f"<|begin|>{text}" for text in held_out}
    talk = [{"messages": [{**USER, "content": str(i % 60)}, {**ANSWER, "content": str(i)}]} for i in range(300)]
    made = dataset(path="json", data_files=jsonl(tmp_path / "b.jsonl", talk), validation_fraction=0.3)
    asked = [
        {parts(tokenizer, each)[0] for each in made.examples(tokenizer, split)} for split in ("train", "validation")
    ]
    assert not asked[0] & asked[1]
    assert len(asked[0]) + len(asked[1]) == 60


def test_a_token_that_spans_prompt_and_answer_is_none(tmp_path):
    """The prompt keeps the tokens that it has alone, since it is asked alone."""
    tokenizer = HFTokenizer(json.loads(gpt2().to_str()))
    assert len(tokenizer.encode("question")) < len([*tokenizer.encode("quest"), *tokenizer.encode("ion")])
    file = jsonl(tmp_path / "a.jsonl", [{"prompt": "the quest", "completion": "ion"}])
    (found,) = dataset(path="json", data_files=file, validation_fraction=0).examples(tokenizer, begin=[], end=[])
    assert found.tokens.tolist() == [*tokenizer.encode("the quest"), *tokenizer.encode("ion")]
    assert parts(tokenizer, found) == [(False, "the quest"), (True, "ion")]


def test_tools_reach_the_template(tmp_path, tokenizer):
    made = tokenizer.with_chat_template("{{ tools[0].function.name }}" + CHATML)
    tool = {"type": "function", "function": {"name": "weather"}}
    for tools in ([tool], json.dumps([tool])):
        file = jsonl(tmp_path / "a.jsonl", [{"messages": [USER, ANSWER], "tools": tools}])
        (found,) = dataset(path="json", data_files=file, validation_fraction=0).examples(made)
        assert decode(made, found.tokens.tolist()).startswith("weather<|im_start|>")


def test_rows_are_read_as_they_are_needed(tmp_path, tokenizer):
    """What comes later, here a broken file, is not looked at before."""
    good = jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts(3000)])
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text')
    stream = dataset(path="json", data_files=[good, str(tmp_path / "b.jsonl")], validation_fraction=0).examples(
        tokenizer
    )
    assert len([*itertools.islice(stream, 3000)]) == 3000
    with pytest.raises(DataError, match=r"b.jsonl \(train\) cannot be read after row 3000: .*Mend the file"):
        next(stream)


WRONG = [
    (
        [{"txt": "a"}],
        {"format": "text"},
        r"has no column 'text'. Did you mean 'txt'\? Its columns: txt. Rows of format",
    ),
    (
        [{"a": "a", "b": 1}],
        {},
        "has the columns a, b, none of the sets that lmx knows: chosen and rejected; .*columns = { te",
    ),
    (
        [{"text": "a"}, {"text": None}],
        {},
        r"row 1 of .*a.jsonl \(train\): its text is None .NoneType., not a text. Leave su",
    ),
    ([{"text": 3}], {}, "row 0 of .*: its text is 3 .int., not a text"),
    ([{"text": "a"}] * 1500 + [{"text": ""}, {"other": "b"}], {}, "row 1501 of .*: its text is None"),
    (
        [{"messages": "hi"}],
        {},
        "row 0 of .*: its messages is 'hi' .str., not a list of messages, each with a role and a con",
    ),
    ([{"messages": [{"from": "user", "value": "hi"}]}], {}, "row 0 of .*not a list of messages"),
    (
        [{"prompt": "a", "completion": 3}],
        {},
        "row 0 of .*: its completion is 3 .int., not a text or a list of messages",
    ),
    (
        [{"messages": [{"role": "user", "content": "a"}], "tools": tools} for tools in ("[]", None, "notjson")],
        {},
        r"row 2 of .*a.jsonl \(train\): its tools is 'notjson', which is no JSON \(Expecting value",
    ),
    ([], {}, "a.jsonl.* has no rows"),
    ([{"text": ""}], {}, "has no rows. Give it more text, or correct the split"),
    ([{"text": "a"}], {"split": "trian"}, "json has no split 'trian'. Did you mean 'train'. It has train."),
    (
        [{"prompt": "a", "chosen": "b", "rejected": "c"}],
        {},
        'rows of format "preference"; these are made of text or prompt',
    ),
]


JUDGED = {"prompt": "a", "completion": "b", "label": True}


@pytest.mark.parametrize(
    ("way", "row", "message"),
    [
        ("judged", JUDGED | {"label": 1}, r"row 0 of .*: its label is 1 .int., not true or false"),
        ("judged", JUDGED | {"completion": ""}, r"row 0 of .*: its completion is '' .str., empty"),
        ("judged", {"prompt": "a", "completion": "b"}, "has no column 'label'.*columns = { prompt = .* names another"),
        ("pairs", {"prompt": "a", "chosen": "b", "rejected": ""}, r"row 0 of .*: its rejected is '' .str., empty"),
        ("prompts", {"prompt": 3, "answer": 3}, "row 0 of .*: its prompt is 3 .int., not a text or a list of messages"),
        ("prompts", {"text": "a"}, "has no column 'prompt'"),
        ("encoded", {"prompt": "a", "answer": 3}, r'of format "question", of which .*train.trainer = "grpo"'),
    ],
)
def test_what_rows_lack_is_said(tmp_path, tokenizer, way, row, message):
    made = dataset(path="json", data_files=jsonl(tmp_path / "a.jsonl", [row]), validation_fraction=0)
    with pytest.raises(DataError, match=message):
        list(getattr(made, way)(tokenizer, "train"))


def test_questions_and_comparisons_are_texts_for_a_tokenizer_to_fit(tmp_path):
    lines = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    made = dataset(path="json", data_files=jsonl(tmp_path / "a.jsonl", lines), validation_fraction=0)
    assert [*made.documents("train")] == ["ab\n", "ac\n"]
    made = dataset(path="json", data_files=jsonl(tmp_path / "b.jsonl", [{"prompt": "a"}]), validation_fraction=0)
    assert [*made.documents("train")] == ["a\n"]


@pytest.mark.parametrize(("lines", "options", "message"), WRONG)
def test_wrong_rows_are_explained(tmp_path, tokenizer, lines, options, message):
    file = jsonl(tmp_path / "a.jsonl", lines)
    with pytest.raises(DataError, match=message):
        [*dataset(path="json", data_files=file, validation_fraction=0, **options).packed(tokenizer, 4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"path": "nobody/nothing"},
            "nobody/nothing is neither a folder here nor to be had from the hub .*Correct the path",
        ),
        ({"path": "json"}, '"json" reads files: which ones\\? data_files ='),
        ({"path": "json", "data_files": "none.jsonl"}, "data_files none.jsonl match no file in .*Correct the path"),
        ({"path": "json", "data_files": "*.none"}, "\\*.none.* has no rows"),
        ({"path": "json", "data_files": "x", "validation_fraction": 0}, "match no file"),
    ],
)
def test_a_place_without_data_is_explained(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        [*dataset(**options).documents("train")]


def test_all_that_is_read_first_is_explained(tmp_path):
    """`datasets` says that something failed; what did is its cause."""
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text')
    made = dataset(path="json", data_files=str(tmp_path / "b.jsonl"), validation_fraction=0, streaming=False)
    with pytest.raises(DataError, match="b.jsonl cannot be opened as a dataset: .*ArrowInvalid: JSON parse error"):
        [*made.documents("train")]


def test_a_dataset_that_the_hub_does_not_give_is_explained(monkeypatch):
    def refused(*arguments, **options):
        raise datasets.exceptions.DatasetNotFoundError(
            "Dataset 'org/x' doesn't exist on the Hub or cannot be accessed."
        )

    monkeypatch.setattr(datasets, "load_dataset", refused)
    with pytest.raises(DataError, match="org/x is no folder here, and: Dataset 'org/x' doesn't .*hf auth login"):
        dataset(path="org/x").packed(ByteTokenizer(), 8).__next__()


def test_wrong_options_are_explained(corpus):
    with pytest.raises(ConfigError, match="path: it is empty. Give a name on the hub"):
        dataset(path="")
    with pytest.raises(ConfigError, match="columns: no 'txet'. Did you mean 'text'"):
        dataset(path="json", columns={"txet": "a"})
    with pytest.raises(ConfigError, match="give one of them"):
        dataset(path="json", validation_split="a", validation_files="b")
    with pytest.raises(DataError, match="validation_fraction=0 holds nothing out"):
        dataset(**corpus[0]).documents("validation").__next__()
    with pytest.raises(DataError, match="seq_len=0: a row has at least 1 token"):
        dataset(**corpus[0]).packed(ByteTokenizer(), 0)


def test_what_needs_a_tokenizer_says_so(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [{"messages": [USER, ANSWER]}])
    made = dataset(path="json", data_files=file, validation_fraction=0)
    with pytest.raises(DataError, match='"messages" become text by a chat template.*packed'):
        [*made.documents("train")]
    with pytest.raises(
        DataError, match="rows of messages need a tokenizer with a chat template, and ByteTokenizer has"
    ):
        next(made.packed(ByteTokenizer(), 8))
    prompts = jsonl(tmp_path / "b.jsonl", [{"prompt": "to be", "completion": " or not"}])
    assert [*dataset(path="json", data_files=prompts, validation_fraction=0).documents("train")] == ["to be or not\n"]


def test_a_missing_library_is_named(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(LmxError, match="datasets is needed and cannot be imported .*pip install datasets"):
        [*dataset(**corpus[0]).documents("train")]


def core(path, lines, tokenizer, **options):
    """What `lmx train` reads of rows."""
    chosen = spec("hf", path="json", data_files=[jsonl(path, lines)], **options)
    return read_corpus(DataConfig(dataset=chosen), 300, 100, tokenizer)


def test_lmx_learns_answers_alone(tmp_path, tokenizer):
    """Prompts and messages reach the corpus with their masks, on both sides; texts as text."""
    talk = [{"messages": [{**USER, "content": f"to be {i}?"}, ANSWER]} for i in range(60)]
    asked = [{"prompt": f"to be {i}?", "completion": " or not"} for i in range(60)]
    for lines, answer in ((talk, "or not<|im_end|>"), (asked, " or not<|end|>")):
        corpus = core(tmp_path / "a.jsonl", lines, tokenizer, validation_fraction=0.3)
        for documents in (corpus.train, corpus.validation):
            assert isinstance(documents, Documents)
            assert {decode(tokenizer, each.tokens[each.learn].tolist()) for each in documents} == {answer}
        assert len(corpus.train) + len(corpus.validation) <= 60
        assert len(corpus.train) >= 30
        assert 1 <= len(corpus.glimpse) < len(corpus.validation)
        assert corpus.fingerprint()["validation_tokens"] == len(corpus.validation.tokens)
    texts_of = [{"text": f"to be {i}"} for i in range(60)]
    corpus = core(tmp_path / "b.jsonl", texts_of, tokenizer, validation_fraction=0.3)
    assert corpus.train.learn is None
    assert isinstance(corpus.validation, HeldOut)


def test_what_has_no_answers_is_no_corpus(tmp_path, tokenizer):
    with pytest.raises(DataError, match="nothing in the .* documents of the .* split of dataset .* is learned"):
        core(tmp_path / "a.jsonl", [{"messages": [{**USER, "content": str(i)}]} for i in range(40)], tokenizer)
    pairs = [{"prompt": f"a{i}", "chosen": "b", "rejected": "c"} for i in range(40)]
    with pytest.raises(
        DataError, match=r'rows of format "preference", .*need a preference trainer, such as train.trainer = "dpo"'
    ):
        core(tmp_path / "b.jsonl", pairs, tokenizer)


def test_answers_are_prepared(tmp_path, tokenizer):
    """Tokens on disk have the masks, and are the same corpus."""
    lines = [{"prompt": f"to be {i}?", "completion": " or not"} for i in range(60)]
    expected = core(tmp_path / "a.jsonl", lines, tokenizer, validation_fraction=0.3)
    tokenizer.write(tmp_path / "model")
    chosen = spec("hf", path="json", data_files=[str(tmp_path / "a.jsonl")], validation_fraction=0.3)
    config = DataConfig(dataset=chosen, tokenizer=spec("hf", path=str(tmp_path / "model")))
    prepare(config, tmp_path / "out", tokenizer=tokenizer)
    found = read_corpus(
        DataConfig(dataset=spec("tokens", path=str(tmp_path / "out")), tokenizer=config.tokenizer), 300, 100
    )
    assert found.fingerprint() == expected.fingerprint()
    assert (found.train.learn == expected.train.learn).all()
    assert (found.train.ends == expected.train.ends).all()


def test_lmx_trains_on_it(tmp_path, monkeypatch):
    """By a config alone; the run's data are told apart by their tokens."""
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "a.jsonl", [{"text": f"{i} {TEXT}"} for i in range(200)])
    (tmp_path / "a.toml").write_text(
        '[model]\nfactory = "llama"\nsize = "tiny"\n[data]\n'
        'dataset = { name = "hf", path = "json", data_files = ["a.jsonl"], separator = "" }\n'
        "[train]\nmax_steps = 3\nbatch_size = 2\nseq_len = 16\n"
    )
    assert main.started(tmp_path / "a.toml", [], None, False).run()["val_bpb"] > 0
    found = build("dataset", spec("hf", path="json", data_files=["a.jsonl"]))
    assert isinstance(found, HFDataset)
