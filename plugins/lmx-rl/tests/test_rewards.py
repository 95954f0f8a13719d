"""What rewards promise."""

import random
import tomllib
from pathlib import Path

import pytest

from lmx_core import build, spec
from lmx_core.errors import ConfigError
from lmx_core.registry import registry
from lmx_core.testing import conformance
from lmx_rl import Reward

README = (Path(__file__).parent.parent / "README.md").read_text()
OPTIONS = {"exact_match": {}, "numeric": {}, "regex": {"pattern": "a+"}, "length": {"limit": 10, "margin": 4}}


@conformance("reward.lmx-rl/exact_match")
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


@pytest.mark.parametrize("name", OPTIONS)
def test_any_text_is_judged(name):
    """A model writes anything: the reward is a finite number or None, and the same each time."""
    reward = build("reward", spec(name, **OPTIONS[name]))
    assert isinstance(reward, Reward)
    draw = random.Random(0)
    texts = ["", "\x00", "9" * 10_000, "1e999", "-" * 50, "1,2,3", "٣", "e5.", "\ud800", "1e-999999999999", ".5.5"]
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


def test_length():
    """0 up to limit - margin, -1 from the limit on, a straight line between; without a margin the limit is still free."""
    rewards = [judged("length", "x" * n, limit=10, margin=4) for n in range(13)]
    assert rewards == [0] * 7 + [-0.25, -0.5, -0.75, -1, -1, -1]
    assert [judged("length", "x" * n, limit=10) for n in (9, 10, 11)] == [0, 0, -1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
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
    for table in tomllib.loads(README.partition("```toml\n")[2].partition("```")[0])["rewards"]:
        assert isinstance(build("reward", spec(table.pop("name"), **table)), Reward)
    exec(README.partition("```python\n")[2].partition("```")[0], {})
    ours = {ref.name for ref in registry("reward").refs() if ref.dist == "lmx-rl"}
    assert ours == {line.split("`")[1] for line in README.splitlines() if line.startswith("| `")} == set(OPTIONS)
