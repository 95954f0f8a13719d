"""What rewards promise."""

import random
import tomllib
from pathlib import Path

import pytest

from lmx_core import build, spec
from lmx_core.errors import ConfigError
from lmx_core.registry import registry
from lmx_core.serialize import structure
from lmx_core.testing import conformance
from lmx_rl import Judge, Reward, RewardSpec
from lmx_rl.rewards.extraction import ExtractionOptions

pytestmark = pytest.mark.once

README = (Path(__file__).parent.parent / "README.md").read_text()
OPTIONS = {
    "exact_match": {"inside": "a", "after": "=", "boxed": True},
    "format": {"partial": True},
    "length": {"limit": 10, "margin": 4},
    "numeric": {},
    "regex": {"pattern": "a+"},
    "repetition": {"length": 2, "unit": "characters"},
}


@conformance("reward.lmx-rl/exact_match", options=OPTIONS["exact_match"])
def test_exact_match_keeps_the_promises_of_a_component(check):
    check()


@conformance("reward.lmx-rl/numeric", options={"tolerance": 0.5})
def test_numeric_keeps_them(check):
    check()


@conformance("reward.lmx-rl/regex", options=OPTIONS["regex"])
def test_regex_keeps_them(check):
    check()


@conformance("reward.lmx-rl/length", options=OPTIONS["length"])
def test_length_keeps_them(check):
    check()


@conformance("reward.lmx-rl/format", options={"tags": ["a", "b"], "partial": True})
def test_format_keeps_them(check):
    check()


@conformance("reward.lmx-rl/repetition", options=OPTIONS["repetition"])
def test_repetition_keeps_them(check):
    check()


@pytest.mark.parametrize("name", OPTIONS)
def test_any_text_is_judged(name):
    """A model writes anything: the reward is a finite number or None, and the same each time."""
    reward = build("reward", spec(name, **OPTIONS[name]))
    assert isinstance(reward, Reward)
    draw = random.Random(0)
    texts = ["", "\x00", "9" * 10_000, "1e999", "-" * 50, "1,2,3", "٣", "e5.", "\ud800", "1e-999999999999", ".5.5"]
    texts += ["<think>" * 3, "</a><a>", r"\boxed{" * 40, "=", "a a a a a a"]
    texts += ["".join(draw.choices("0123456789-+.,eE/() \na", k=30)) for _ in range(500)]
    for text in texts:
        for answer in (None, "", "7", text, 3, 2.5, ["4"]):
            found = reward("prompt", text, answer)
            assert found is None or (type(found) is float and -1 <= found <= 1)
            assert reward("another", text, answer) == found


def judged(name, completion, answer=None, **options):
    return build("reward", spec(name, **options))("prompt", completion, answer)


def test_exact_match():
    assert judged("exact_match", " Paris\n", "Paris") == 1
    assert judged("exact_match", "paris", "Paris") == 0
    assert judged("exact_match", "STRASSE", "Straße", ignore_case=True) == 1
    assert judged("exact_match", "Paris, France", "Paris") == 0
    assert judged("exact_match", "4", 4) == 1
    assert judged("exact_match", "", "") == 1
    assert judged("exact_match", "Paris", None) is None


@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        ("The answer is 42.", "42", 1),
        ("42 or rather 43", "42", 0),
        ("$1,234.50", "1234.5", 1),
        ("1,2", "12", 0),
        ("1,2345", "2345", 1),
        ("10 - 13 = -3", "-3", 1),
        ("10-13 = \u22123", -3, 1),
        ("10-13 = \u20133", "-3", 1),
        ("-3", "\u22123", 1),
        ("-3", "\u20133", 1),
        ("\u20133", "3", 0),
        ("pages 10\u201313", "13", 1),
        ("1e\u22123", "0.001", 1),
        (".5", "5", 0),
        (".5", "0.5", 1),
        ("-.5", "-0.5", 1),
        ("-.5", "0.5", 0),
        ("\u2212.5", "-.5", 1),
        ("$.50", "0.5", 1),
        (".5e1", "5", 1),
        ("0.5", ".5", 1),
        ("v1.2.5", "5", 1),
        ("it is ...5", "5", 1),
        ("5.", "5", 1),
        ("it is 10-3", "3", 1),
        ("f(2)-3", "3", 1),
        ("3.0", "3", 1),
        ("3e2", "300", 1),
        ("0.1", 0.1, 1),
        ("0.30000000000000004", "0.3", 0),
        ("10000000", "10000001", 0),
        ("none", "42", 0),
        ("", "42", 0),
        ("72", "Natalia sold 48/2 = 24 clips in May.\n#### 72", 1),
        ("9" * 5000, "9" * 5000, 1),
        ("9" * 5000, "9" * 4999 + "8", 0),
        ("42", "forty-two", None),
        ("42", None, None),
    ],
)
def test_numeric(completion, answer, reward):
    assert judged("numeric", completion, answer) == reward


def test_a_number_may_be_off_by_a_share():
    for completion, reward in {"3.1415": 1, "3.15": 0, "-3.1416": 0, "9" * 5000: 0}.items():
        assert judged("numeric", completion, "3.14159", tolerance=1e-3) == reward
    assert judged("numeric", "1e-9", "0", tolerance=1e-3) == 0


def test_regex():
    pattern = r"(?s)\A<think>.*</think>\s*\S"
    assert judged("regex", "<think>a\nb</think> 4", pattern=pattern) == 1
    assert judged("regex", "4 <think></think>", pattern=pattern) == 0


def test_a_pattern_that_takes_for_ever_is_given_up():
    """Each `.*?` may end at each tag: a step more for each way to choose, 2 ** 60."""
    reward = build("reward", spec("regex", pattern=r"(?s)\A(?:<think>.*?</think>)*\Z", time_limit=0.2))
    assert [reward("", "<think></think>" * 60 + end) for end in ("", "x", "")] == [1, 0, 1]
    reward.close()
    assert reward("", "") == 1
    reward.close()


def test_length():
    """0 up to limit - margin, -1 from the limit on, a straight line between; without a margin the limit is still free."""
    rewards = [judged("length", "x" * n, limit=10, margin=4) for n in range(13)]
    assert rewards == [0] * 7 + [-0.25, -0.5, -0.75, -1, -1, -1]
    assert [judged("length", "x" * n, limit=10) for n in (9, 10, 11)] == [0, 0, -1]


@pytest.mark.parametrize(
    ("options", "text", "answer"),
    [
        ({}, " 7 ", " 7 "),
        ({"boxed": True}, r"so \boxed{7}", "7"),
        ({"boxed": True}, r"\boxed{6} no, \boxed{7}.", "7"),
        ({"boxed": True}, r"\boxed{7} and \boxed{8", None),
        ({"boxed": True}, r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        ({"boxed": True}, r"\boxed{\{1, 2\}} is the set {1, 2}", r"\{1, 2\}"),
        ({"boxed": True}, r"\boxed{a\\}b}", "a\\\\"),
        ({"boxed": True}, r"\boxed {7} \fbox{8}", "8"),
        ({"boxed": True}, r"\boxed{\{1} 2}", r"\{1"),
        ({"boxed": True}, r"\boxed{1\}{2}} 3", r"1\}{2}"),
        ({"boxed": True}, r"\boxed{}", ""),
        ({"boxed": True}, "boxed{7} 7", None),
        ({"boxed": True}, r"\boxedx{7}", None),
        ({"after": "####"}, "#### 6\n#### 7\n", " 7\n"),
        ({"after": "####"}, "7", None),
        ({"after": "Answer:"}, "answer: 7", None),
        ({"after": "####"}, "7 ####", ""),
        ({"inside": "answer"}, "<answer>6</answer><answer>7</answer>", "7"),
        ({"inside": "answer"}, "<answer>6<answer>7</answer> 8", "7"),
        ({"inside": "answer"}, "<answer>7</answer><answer>8", "7"),
        ({"inside": "answer"}, "<answer>7", None),
        ({"inside": "answer"}, "7</answer>", None),
        ({"inside": "answer"}, "</answer>7<answer>", None),
        ({"inside": "answer"}, "<answers>7</answers>", None),
        ({"inside": "answer", "boxed": True}, r"\boxed{6}<answer>\boxed{7}</answer>\boxed{8}", "7"),
        ({"inside": "answer", "boxed": True}, r"<answer>7</answer>\boxed{8}", None),
        ({"inside": "answer", "after": "="}, "9=<answer>1+6=7</answer>=8", "7"),
        ({"after": "Answer:", "boxed": True}, r"\boxed{6} Answer: \boxed{7}", "7"),
        ({"after": "Answer:", "boxed": True}, r"\boxed{6} Answer: 7", None),
    ],
)
def test_where_an_answer_stands(options, text, answer):
    """What of a completion counts; the row's own answer is read alike."""
    extraction = ExtractionOptions(**options)
    assert extraction.given == bool(options)
    assert extraction.of_completion(text) == answer
    if answer is not None:
        assert extraction.of_answer(text) == answer


def test_an_answer_of_the_data_may_be_bare():
    """What it has not is not looked for in it."""
    extraction = ExtractionOptions(inside="answer", after="####", boxed=True)
    texts = ["7", "6 #### 7", "<answer>7</answer>", r"6 #### \boxed{7}", r"<answer>\boxed{7}</answer>", r"8 \boxed{7}"]
    assert [extraction.of_answer(text).strip() for text in texts] == ["7"] * 6
    assert [extraction.of_completion(text) for text in texts] == [None] * 6


def test_rewards_look_where_the_answer_stands():
    """A completion without that part is wrong, whatever else is in it."""
    for name in ("exact_match", "numeric"):
        assert judged(name, r"6 or \boxed{ 7 } or 8", "7", boxed=True) == 1
        assert judged(name, "7", "7", boxed=True) == 0
        assert judged(name, r"\boxed{6} 7", "7", boxed=True) == 0
        assert judged(name, "<answer>7</answer> 8", "#### 7", inside="answer", after="####") == 0
        assert judged(name, "<answer>#### 7</answer> 8", "6 #### 7", inside="answer", after="####") == 1
        assert judged(name, r"\boxed{7}", r"It is 14/2, \boxed{7}, not 8", boxed=True) == 1
        assert judged(name, "7", None, boxed=True) is None


GOOD = "<think>a\n<b></think>\n<answer>4</answer>\n"


@pytest.mark.parametrize(
    ("completion", "whole", "partial"),
    [
        (GOOD, 1, 1),
        ("<think></think><answer></answer>", 1, 1),
        ("Well. " + GOOD, 0, 2 / 3),
        (GOOD + "So.", 0, 2 / 3),
        ("<think>a</think> and <answer>4</answer>", 0, 2 / 3),
        ("<answer>4</answer><think>a</think>", 0, 2 / 3),
        ("<think>a<answer>4</answer></think>", 0, 2 / 3),
        ("<think>a<answer></think>4</answer>", 0, 2 / 3),
        ("<think>a</think>4</answer>", 0, 1 / 3),
        ("<think>a</think><answer>4", 0, 1 / 3),
        ("<think>a</think>", 0, 1 / 3),
        ("a</think><answer>4</answer>", 0, 1 / 3),
        ("<think>a</think><answer>4</answer><answer>5</answer>", 0, 1 / 3),
        (GOOD + "<think>", 0, 1 / 3),
        ("</think>a<think><answer>4</answer>", 0, 1 / 3),
        (GOOD + GOOD, 0, 0),
        ("<Think>a</Think><Answer>4</Answer>", 0, 0),
        ("4", 0, 0),
        ("", 0, 0),
    ],
)
def test_format(completion, whole, partial):
    assert judged("format", completion) == whole
    assert judged("format", completion, partial=True) == pytest.approx(partial, abs=1e-12)


def test_a_prompt_may_begin_the_first_part():
    reward = build("reward", spec("format"))
    assert reward("Think. <think>\n", GOOD.removeprefix("<think>")) == 1
    assert reward("Think. <think>\n", GOOD) == 0
    assert reward("Think in <think> and </think>.", GOOD) == 1
    assert reward("Think in <think> and </think>.", GOOD.removeprefix("<think>")) == 0
    assert reward("<answer>", GOOD) == 1


def test_parts_have_other_names():
    assert judged("format", "<a.b>", tags=["a"]) == 0
    assert judged("format", "<plan-1>x</plan-1><code>y</code><end>z</end>", tags=["plan-1", "code", "end"]) == 1
    assert judged("format", "<plan-1>x</plan-1><end>z</end>", tags=["plan-1", "code", "end"], partial=True) == 0.5
    assert judged("format", "<think>x</think>", tags=["think"]) == 1


@pytest.mark.parametrize(
    ("completion", "options", "reward"),
    [
        ("a b c d", {}, 0),
        ("a b c a b c", {}, -1 / 4),
        ("a  b\nc\ta b c", {}, -1 / 4),
        ("a b a b", {"length": 2}, -1 / 3),
        ("a a a a a", {"length": 1}, -4 / 5),
        ("a b", {}, 0),
        ("a a a", {}, 0),
        ("a a a a", {}, -1 / 2),
        ("", {"length": 1}, 0),
        ("ababa", {"length": 2, "unit": "characters"}, -1 / 2),
        ("ababa", {"length": 2}, 0),
        ("word " * 1001, {"length": 2}, -999 / 1000),
    ],
)
def test_repetition(completion, options, reward):
    assert judged("repetition", completion, **options) == pytest.approx(reward, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("exact_match", {"inside": "<answer>"}, "inside: "),
        ("exact_match", {"after": ""}, "after: "),
        ("format", {"tags": []}, "tags: expected names of tags without brackets, none of them twice, got ..$"),
        ("format", {"tags": ["a", "a"]}, "tags: expected names of tags without brackets, none of them twice"),
        ("format", {"tags": ["<a>"]}, "tags: expected names of tags"),
        ("format", {"tags": "think"}, "tags: expected a list of str, got 'think'"),
        ("repetition", {"length": 0}, "length: must be >= 1"),
        ("repetition", {"unit": "tokens"}, "unit: expected 'words' or 'characters', got 'tokens'"),
        ("regex", {}, "pattern: is missing"),
        (
            "regex",
            {"pattern": "("},
            "pattern: is no regular expression .missing \\), unterminated subpattern at position 0., got '\\('",
        ),
        ("length", {"limit": 0}, "limit: must be >= 1, got 0"),
        ("length", {"limit": 5, "margin": 6}, "margin=6 begins before the text does; it lies within limit=5"),
        ("numeric", {"tolerance": -1}, "tolerance: must be >= 0, got -1"),
        ("exact_match", {"case": False}, "case: unknown option"),
    ],
)
def test_what_is_wrong_with_options_is_said(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build("reward", spec(name, **options))


def test_the_readme_is_true():
    """Its table builds every reward that it names, its example runs, and it names every reward that there is."""
    tables = tomllib.loads(README.partition("```toml\n")[2].partition("```")[0])["train"]["trainer"]["rewards"]
    Judge([structure(table, RewardSpec, "README.md", installed=True) for table in tables]).close()
    exec(README.partition("```python\n")[2].partition("```")[0], {})
    ours = {ref.name for ref in registry("reward").refs() if ref.dist == "lmx-rl"}
    named = [line.split("`")[1] for line in README.splitlines() if line.startswith("| `")]
    assert ours <= {*named}
    assert len(named) == len({*named})
