"""What the reward of tests promises: a verdict on code that says nothing of what cannot be known."""

import importlib.util
import json

import pytest

from lmx_core import build, spec
from lmx_core.errors import ConfigError, DataError
from lmx_core.testing import conformance
from lmx_rl.rewards.code_task import Case, CodeTask, plain_value, value_of
from lmx_rl.sandbox import Isolation, Outcome, Returned

pytestmark = pytest.mark.once

PROMPT = 'def double(x):\n    """Twice."""\n'
ANSWER = {
    "prompt": PROMPT,
    "function": "double",
    "tests": [
        {"args": [1], "expected": 2},
        {"args": [], "kwargs": {"x": "a"}, "expected": "aa"},
        {"args": [0], "expected": 0},
    ],
}
RIGHT, WRONG, HALF = "    return 2 * x\n", "    return x\n", "    return x + x if x else 1\n"


class Fake:
    """A sandbox that gives what it was told to."""

    isolation = Isolation.SYSTEM

    def __init__(self, *outcomes):
        self.outcomes, self.programs, self.calls, self.closed = outcomes, [], 0, False

    def run(self, programs):
        self.calls += 1
        self.programs += programs
        return [*self.outcomes]

    def close(self):
        self.closed = True


def reward(sandbox=None, **options):
    made = build("reward", spec("code_tests", **options))
    made._sandboxes = [sandbox] if sandbox else []
    return made


def done(*values):
    return Outcome(status="done", returned=[Returned(value=value) for value in values])


@pytest.fixture(scope="module")
def real():
    made = build("reward", spec("code_tests", sandbox="process", minimum="process"))
    yield made
    made.close()


@conformance("reward.lmx-rl/code_tests")
def test_code_tests_keeps_the_promises_of_a_component(check):
    check()


def test_all_tests_or_nothing(real):
    rewards = real.all([PROMPT] * 4, [RIGHT, WRONG, HALF, ""], [ANSWER] * 4)
    assert rewards == [1.0, 0.0, 0.0, 0.0]
    assert real("prompt", f"```python\n{PROMPT}{RIGHT}```", ANSWER) == 1.0


def test_a_share_of_the_tests():
    partial = build("reward", spec("code_tests", sandbox="process", minimum="process", partial=True))
    assert partial.all([PROMPT] * 3, [RIGHT, WRONG, HALF], [ANSWER] * 3) == [1.0, 1 / 3, 2 / 3]
    partial.close()


def test_what_is_not_known_is_none_and_never_0():
    outcomes = [
        done(2, "aa", 0),
        Outcome(status="unsupported", detail="no generators"),
        Outcome(status="broken", returned=[Returned(value=2)]),
        done(2, "aa", 1),
    ]
    for partial in (False, True):
        assert reward(Fake(*outcomes), partial=partial).all([""] * 4, ["x"] * 4, [ANSWER] * 4)[:3] == [1.0, None, None]


@pytest.mark.parametrize("status", ["failed", "time", "memory", "output"])
def test_what_ends_by_its_own_fault_has_what_it_did_before(status):
    outcome = Outcome(status=status, returned=[Returned(value=2), Returned(error="ValueError: no")])
    assert reward(Fake(outcome))("", "x", ANSWER) == 0.0
    assert reward(Fake(outcome), partial=True)("", "x", ANSWER) == 1 / 3


def test_an_error_passes_no_test():
    """Where None is expected, too."""
    answer = {**ANSWER, "tests": [{"args": [1], "expected": None}]}
    assert reward(Fake(Outcome(status="done", returned=[Returned(error="KeyError: 1")])))("", "x", answer) == 0.0
    assert reward(Fake(done(None)))("", "x", answer) == 1.0


def test_values_are_of_the_expected_type():
    answer = {**ANSWER, "tests": [{"args": [1], "expected": 1}]}
    assert [reward(Fake(done(value)))("", "x", answer) for value in (1, True, 1.0, "1", None)] == [1, 0, 0, 0, 0]


def test_many_are_run_at_once_and_rows_without_answers_are_left_out():
    fake = Fake(done(2, "aa", 0), done(0, "", 0))
    assert reward(fake).all([""] * 4, ["a", "b", "c", "d"], [None, ANSWER, "text", ANSWER]) == [None, 1.0, None, 0.0]
    assert fake.calls == 1
    assert len(fake.programs) == 2
    assert reward(Fake()).all([""], ["a"], [None]) == [None]


def test_what_is_expected_is_not_said_to_the_sandbox():
    fake = Fake(done(2, "aa", 0))
    reward(fake)("", RIGHT, {**ANSWER, "tests": [{"args": [1], "expected": "a secret"}]})
    assert "secret" not in repr(fake.programs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": "no name"}, "answer.function: expected the name of a function, got 'no name'"),
        ({"function": None}, "answer.function: expected a text, got None"),
        ({"prompt": ""}, "answer.prompt: expected a text, got ''"),
        ({"tests": []}, "answer.tests: expected a list of calls, at least one, got \\[\\]"),
        ({"tests": [{"args": [1]}]}, "answer.tests\\[0\\].expected: is missing"),
        ({"tests": [{"args": 1, "expected": 1}]}, "answer.tests\\[0\\].args: expected a list of arguments, got 1"),
        (
            {"tests": [{"arg": [1], "expected": 1}]},
            "answer.tests\\[0\\].arg: unknown field; there are args, expected, kwargs",
        ),
        ({"tests": [{"expected": {"python": "f()"}}]}, "answer.tests\\[0\\].expected: 'f\\(\\)' is no Python literal"),
        ({"tests": [7]}, "answer.tests\\[0\\]: expected a table, got 7"),
    ],
)
def test_an_answer_that_is_no_task_is_named(change, message):
    with pytest.raises(DataError, match=message):
        reward(Fake())("", "x", {**ANSWER, **change})


def test_less_isolation_than_the_minimum_is_refused():
    made = build("reward", spec("code_tests", sandbox="unsafe", minimum="process"))
    with pytest.raises(ConfigError, match="less than the minimum process"):
        made("", RIGHT, ANSWER)
    with pytest.raises(
        ConfigError, match="minimum: expected 'none' or 'process' or 'system' or 'interpreter', got 'high'"
    ):
        reward(minimum="high")


def test_close_ends_the_sandbox():
    fake = Fake()
    reward(fake).close()
    assert fake.closed
    reward().close()


VALUES = [
    None,
    True,
    0,
    -(10**30),
    1.5,
    float("inf"),
    -float("inf"),
    "\ud800é",
    b"\x00",
    [1, [2.0]],
    {"a": [None]},
    (1, (2,)),
]
VALUES += [
    {1, 2},
    set(),
    frozenset(),
    {1: 2, (3,): "x"},
    {"python": "1"},
    {"python": "1", "b": (1,)},
    [(1, {2})],
    [{"python": 3}],
]


@pytest.mark.parametrize("value", [each for each in VALUES if each != frozenset() or type(each) is set], ids=repr)
def test_values_come_back_from_json_as_they_were(value):
    again = value_of(json.loads(json.dumps(plain_value(value), allow_nan=False)), "value")
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize("value", [float("nan"), frozenset({1}), object(), (float("inf"),)], ids=repr)
def test_a_value_without_a_literal_is_refused(value):
    with pytest.raises(DataError, match=r"literal"):
        plain_value(value)


def test_a_task_comes_back_from_plain_data():
    task = CodeTask(prompt=PROMPT, function="double", tests=[Case(args=[(1, 2)], kwargs={"y": {3}}, expected=b"x")])
    assert CodeTask.read(json.loads(json.dumps(task.plain()))) == task


def test_what_does_not_pass_in_one_sandbox_is_run_in_the_next_whose_word_counts():
    outcomes = [done(2, "aa", 0), done(2, "aa", 1), Outcome(status="unsupported"), done(0, "", 0)]
    second = Fake(done(2, "aa", 0), Outcome(status="failed"), Outcome(status="broken"))
    made = reward()
    made._sandboxes = [Fake(*outcomes), second]
    assert made.all([""] * 4, list("wxyz"), [ANSWER] * 4) == [1.0, 1.0, 0.0, None]
    assert len(second.programs) == 3


NEVER_MONTYS_FAULT = {
    "a tie": ("    return [round(i / 1000, 2) for i in (5, 15, 2675)][x]\n", [[2, 2.67]]),
    "a generator": ("    return next((i for i in [1, 2] if i > x), None)\n", [[0, 1], [2, None]]),
    "an endless generator": (
        "    from itertools import count\n    return next(i for i in count() if i > x)\n",
        [[5, 6]],
    ),
    "a module": ("    import heapq\n    return heapq.nsmallest(1, [x, 2])[0]\n", [[1, 1]]),
    "a class": ("    class A(int): pass\n    return int(A(x))\n", [[1, 1]]),
}


@pytest.mark.skipif(importlib.util.find_spec("pydantic_monty") is None, reason="needs the extra 'sandbox'")
def test_unless_told_otherwise_a_right_program_passes_though_monty_has_not_all_of_python():
    """And a wrong one does not escape by using what Monty lacks."""
    made = build("reward", spec("code_tests", minimum="process"))
    bodies = [body for body, _ in NEVER_MONTYS_FAULT.values()]
    tests = [[{"args": [x], "expected": y} for x, y in cases] for _, cases in NEVER_MONTYS_FAULT.values()]
    answers = [{"prompt": "def f(x):\n", "function": "f", "tests": each} for each in tests]
    assert made.all([""] * len(bodies), bodies, answers) == [1.0] * len(bodies)
    wrong = ["    class A(int): pass\n    return A\n", "    raise NameError(\"name 'open' is not defined\")\n"]
    assert made.all([""] * 2, wrong, answers[-1:] * 2) == [0.0, 0.0]
    made.close()
