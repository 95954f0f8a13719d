"""What rewards promise that another model gives."""

import math
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from lmx_core import build, make_config, opening, save_model, spec
from lmx_core.data.tokenizers import ByteTokenizer, CharTokenizer, save_tokenizer
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.model import LanguageModel
from lmx_core.testing import conformance, randomise
from lmx_rl.rewards.frozen import Frozen

pytestmark = pytest.mark.once

LONGEST = 48


class Begins(ByteTokenizer):
    """Every text begins with a 7, and every question is in brackets."""

    def encode_prompt(self, text):
        return [7, *self.encode(text)]

    def apply_chat_template(self, messages):
        return [7, *self.encode(f"[{messages[0]['role']}: {messages[0]['content']}]")]


@conformance("reward.lmx-rl/likelihood", options={"model": "judge"})
def test_likelihood_keeps_the_promises_of_a_component(check):
    check()


@conformance("reward.lmx-rl/verdict", options={"model": "judge", "question": "{completion}?"})
def test_verdict_keeps_them(check):
    check()


@conformance("reward.lmx-rl/model", options={"model": "judge", "head": "score.safetensors"})
def test_model_keeps_them(check):
    check()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model that has positions for few tokens, none of which it sees without its position."""
    folder = tmp_path_factory.mktemp("judge")
    config = make_config("gpt", size="tiny", vocab_size=256, max_seq_len=LONGEST)
    save_model(randomise(LanguageModel(config)), folder)
    save_tokenizer("bytes", ByteTokenizer(), Path(folder) / "tokenizer.json")
    return str(folder)


def token_logps(model, tokens):
    """Of each token but the first, by the whole model."""
    logits = model(mx.array([tokens]))[0][0]
    logps = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return [logps[i, token].item() for i, token in enumerate(tokens[1:])]


TEXTS = [("What is it?", "A cat."), ("", "Hello"), ("x" * 20, "y"), ("Who?", "I am he"), ("Where?", "é" * 15)]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_likelihood_is_the_mean_over_the_completion(place, batch_size):
    """Neither the prompt counts nor the padding, and what stands beside it in the batch changes nothing."""
    reward = build("reward", spec("likelihood", model=place, batch_size=batch_size))
    prompts, completions = zip(*TEXTS, strict=True)
    found = reward.all(prompts, completions, [None] * 5)
    for (prompt, completion), mean in zip(TEXTS, found, strict=True):
        tokens = [*(prompt + completion).encode()]
        logps = token_logps(reward.frozen.model, tokens)
        expected = logps[-len(completion.encode()) :] if prompt else logps  # of the first one nothing is known
        assert mean == pytest.approx(sum(expected) / len(expected), abs=1e-4)
        assert type(mean) is float
        assert reward(prompt, completion) == pytest.approx(mean, abs=1e-4)


def test_likelihood_reads_a_text_as_it_begins(place):
    reward = build("reward", spec("likelihood", model=place))
    reward.frozen.tokenizer = Begins()
    for prompt, completion in (("Who?", "I"), ("", "I am")):
        logps = token_logps(reward.frozen.model, [7, *(prompt + completion).encode()])[-len(completion) :]
        assert reward(prompt, completion) == pytest.approx(sum(logps) / len(logps), abs=1e-4)


def test_what_cannot_be_read_is_not_judged(place):
    """An empty completion, a single token without any before, what is too long, what the tokenizer has no token for; the
    others of the batch are judged.
    """
    reward = build("reward", spec("likelihood", model=place))
    texts = [("a", ""), ("", "a"), ("a" * 40, "b" * 9), ("a" * 40, "b" * 8), ("", "ab"), ("", "")]
    found = reward.all(*zip(*texts, strict=True), [None] * 6)
    assert [each is None for each in found] == [True, True, True, False, False, True]
    reward.frozen.tokenizer = CharTokenizer("ab")
    assert [each is None for each in reward.all(["a", "c", "a"], ["c", "a", "b"], [None] * 3)] == [True, True, False]
    assert reward.all([], [], []) == []


QUESTION = "{prompt}|{completion}|{answer}?"


def sure(model, tokens, yes, no):
    logits = model(mx.array([tokens]))[0][0, -1]
    return 1 / (1 + math.exp(logits[no].item() - logits[yes].item()))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_verdict_is_how_sure_the_model_is_of_its_yes(place, batch_size):
    """By the first tokens of both words, after the question."""
    options = {"question": QUESTION, "yes": "Yes", "no": "no", "batch_size": batch_size}
    reward = build("reward", spec("verdict", model=place, **options))
    prompts, completions = zip(*TEXTS, strict=True)
    found = reward.all(prompts, completions, range(5))
    for i, (prompt, completion) in enumerate(TEXTS):
        tokens = [*f"{prompt}|{completion}|{i}?".encode()]
        assert found[i] == pytest.approx(sure(reward.frozen.model, tokens, ord("Y"), ord("n")), abs=1e-4)
        assert reward(prompt, completion, i) == pytest.approx(found[i], abs=1e-4)
    assert len({round(each, 3) for each in found}) > 1
    other = build("reward", spec("verdict", model=place, **{**options, "yes": "no", "no": "Yes"}))
    assert other("a", "b", 1) == pytest.approx(1 - reward("a", "b", 1), abs=1e-5)


def test_a_verdict_may_be_asked_for_in_a_conversation(place, monkeypatch):
    with pytest.raises(ConfigError, match="has no chat template. Leave out chat = true"):
        build("reward", spec("verdict", model=place, yes="y", no="n", chat=True))
    monkeypatch.setattr(ByteTokenizer, "apply_chat_template", Begins.apply_chat_template, raising=False)
    reward = build("reward", spec("verdict", model=place, question="{completion}?", yes="y", no="n", chat=True))
    expected = sure(reward.frozen.model, [7, *b"[user: {x}?]"], ord("y"), ord("n"))
    assert reward("not read", "{x}") == pytest.approx(expected, abs=1e-4)


def test_a_verdict_that_needs_an_answer_has_one(place):
    reward = build("reward", spec("verdict", model=place, question=QUESTION, yes="y", no="n"))
    assert [each is None for each in reward.all("ab", "ab", [None, 0])] == [True, False]
    assert reward("a" * 50, "b", 1) is None
    without = build("reward", spec("verdict", model=place, question="{completion}?", yes="y", no="n"))
    assert without("a", "b", None) is not None


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("bias", [None, 0.5])
def test_a_reward_model_is_a_linear_map_of_the_last_state(place, tmp_path, batch_size, bias):
    """After the final norm, at the last token of prompt and completion, whatever it stands beside."""
    weight = mx.random.normal((1, 64), key=mx.random.key(0))
    file = tmp_path / "score.safetensors"
    mx.save_safetensors(str(file), {"score.weight": weight, **({"score.bias": mx.array([bias])} if bias else {})})
    reward = build("reward", spec("model", model=place, head=str(file), batch_size=batch_size))
    prompts, completions = zip(*TEXTS, ("a" * 40, "b" * 9), ("", ""), ("Who?", ""), strict=True)
    found = reward.all(prompts, completions, [None] * 8)
    assert [each is None for each in found] == [False] * 5 + [True, True, False]
    for prompt, completion, each in zip(prompts, completions, found, strict=True):
        if each is not None:
            hidden = reward.frozen.model.hidden(mx.array([[*(prompt + completion).encode()]]))[0][0, -1]
            assert each == pytest.approx((weight[0] @ hidden).item() + (bias or 0), abs=1e-4)
            assert reward(prompt, completion) == pytest.approx(each, abs=1e-4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weight": mx.zeros((1, 64))}, "has no score.weight. Name the file that has the head."),
        (
            {"score.weight": mx.zeros((1, 32))},
            r"has score.weight \(1, 32\) and .*; the model asks for \(1, 64\) and \(1,\)",
        ),
        ({"score.weight": mx.zeros((2, 64))}, r"has score.weight \(2, 64\)"),
        ({"score.weight": mx.zeros((1, 64)), "score.bias": mx.zeros((2,))}, r"score.bias \(2,\); the model asks"),
        (None, "the head of a reward model cannot be read from .*score.safetensors"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(place, tmp_path, arrays, message):
    file = tmp_path / "score.safetensors"
    if arrays is not None:
        mx.save_safetensors(str(file), arrays)
    with pytest.raises(CheckpointError, match=message):
        build("reward", spec("model", model=place, head=str(file)))


def test_the_model_stays_as_it_is(place, monkeypatch):
    """No parameter is trained, and dropout is off, however it was opened."""
    opened = opening.open_model(place)
    opened.model.train()
    monkeypatch.setattr(opening, "open_model", lambda _: opened)
    frozen = build("reward", spec("likelihood", model=place)).frozen
    assert isinstance(frozen, Frozen)
    assert tree_flatten(frozen.model.trainable_parameters()) == []
    assert not frozen.model.training


def test_a_batch_is_filled_up_as_far_as_it_must(place):
    """Rows of like length stand together; few shapes are compiled."""
    frozen = build("reward", spec("likelihood", model=place, batch_size=2)).frozen
    rows = [[1] * 40, [2] * 3, None, [3] * 33, [4] * 30, []]
    found = [(numbers, tokens.tolist()) for numbers, tokens in frozen.batches(rows)]
    assert found == [
        ([1, 4], [[2] * 3 + [0] * 29, [4] * 30 + [0] * 2]),
        ([3, 0], [[3] * 33 + [0] * 15, [1] * 40 + [0] * 8]),  # 64, but for the longest that the model reads
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"yes": " yes", "no": " no"}, "yes=' yes' and no=' no' begin with one token. Give others."),
        ({"yes": ""}, "has no token for ''. Give another word."),
        ({"question": "{prompt}?"}, "question: expected a text with {completion}, got '{prompt}.'"),
        (
            {"question": "{completion} {text}"},
            "question: expected a text with {prompt}, {completion} and {answer}; KeyE",
        ),
        ({"question": "{completion} {"}, "question: expected a text with {prompt}, {completion} and {answer}; ValueE"),
        ({"question": "{completion} {}"}, "question: expected a text with {prompt}, {completion} and {answer}; IndexE"),
        ({"batch_size": 0}, "batch_size: must be >= 1"),
    ],
)
def test_what_is_wrong_with_options_is_said(place, options, message):
    with pytest.raises(ConfigError, match=message):
        build("reward", spec("verdict", model=place, **options))


def test_a_model_that_reads_no_text_is_refused(place, tmp_path):
    save_model(LanguageModel(make_config("gpt", size="tiny")), tmp_path)
    with pytest.raises(CheckpointError, match="has no tokenizer, so that it can read no text"):
        build("reward", spec("likelihood", model=str(tmp_path)))
    with pytest.raises(CheckpointError):
        build("reward", spec("likelihood", model=str(tmp_path / "none")))
