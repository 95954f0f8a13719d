"""What problems of code promise."""

import doctest
import hashlib
import json

import pytest

from lmx_core import build, spec
from lmx_core.data.tokenizers import ByteTokenizer, decode
from lmx_core.errors import ConfigError, DataError
from lmx_core.testing import conformance
from lmx_rl.problems import Case, Problem, generate, problems_of, read_problems, write_problems
from lmx_rl.problems.kinds import KINDS
from lmx_rl.rewards.code_tests import judgements
from lmx_rl.sandbox import Isolation, open_sandbox

pytestmark = pytest.mark.once

ROW = {
    "task_id": "a/1",
    "prompt": "def f(x):\n",
    "function": "f",
    "tests": [{"args": [1], "expected": 2}],
    "kind": "a",
    "difficulty": 2,
    "solution": "    return x + 1\n",
}


@pytest.fixture(scope="module")
def sandbox():
    made = open_sandbox("process", Isolation.PROCESS)
    yield made
    made.close()


@conformance("dataset.lmx-rl/code_problems", options={"per_kind": 3})
def test_code_problems_keeps_the_promises_of_a_dataset(check):
    check()


def solved(sandbox, problems, completions):
    found = judgements(sandbox, [each.task for each in problems], completions)
    assert all(each.outcome.known for each in found)
    return [each.solved for each in found]


# problems of this package


def test_solutions_written_by_hand_pass(sandbox):
    problems = problems_of("handwritten")
    assert len(problems) == 22
    assert len({each.kind for each in problems}) == 3
    assert solved(sandbox, problems, [each.solution for each in problems]) == [True] * 22


def test_examples_written_by_hand_are_true():
    """And the tests are others."""
    for each in problems_of("handwritten"):
        space = {}
        exec(each.prompt + each.solution, space)
        (found,) = [
            test
            for test in doctest.DocTestFinder().find(space[each.function], each.function, globs=space)
            if test.examples
        ]
        result = doctest.DocTestRunner(verbose=False).run(found)
        assert (result.failed, result.attempted > 0) == (0, True)
        shown = {example.source.strip() for example in found.examples}
        assert not shown & {f"{each.function}({', '.join(map(repr, case.args))})" for case in each.tests}


MUTANTS = {
    "change": [("range(1, amount + 1)", "range(1, amount)"), ("coin <= part", "coin < part"), ("+ 1)\n", "+ 2)\n")],
    "leap_years": [("first - 1", "first"), ("- year // 100", "+ year // 100"), ("year // 4 ", "(year + 1) // 4 ")],
    "nearest_square": [("<= n", "<= n + 5"), ("return low", "return high"), ("(root + 1) ** 2\n", "(root + 2) ** 2\n")],
    "factorial_zeros": [
        ("count += n", "count += 1"),
        ("while n:", "while n > 5:"),
        ("return count", "return count + 1"),
    ],
    "triangle": [("<= long", "< long"), ("short <= 0", "short <= 2"), ("{a, b, c}", "{a, b}")],
    "trimmed_mean": [("[1:-1]", "[1:]"), ("[1:-1]", "[:-1]"), ("len(kept)", "len(values)")],
    "happy": [("** 2", "** 3"), ("return n == 1", "return n != 1"), ("while n != 1", "while n > 10")],
    "roman": [('4: "IV"', '4: "IIII"'), ('900: "CM"', '900: "DCD"'), ("n // value", "n // value + 1")],
    "depth": [("now < 0", "now < -1"), ("now = deepest = 0", "now = deepest = 1"), ("if now == 0", "if now <= 1")],
    "same_letters": [("b.lower()", "b"), ('a.lower().replace(" ", "")', "a.lower()"), ("sorted(a", "set(a")],
    "slug": [("c.lower()", "c"), ('"-".join', '"--".join'), ("isalnum", "isalpha")],
    "common_start": [("[:i]", "[: i + 1]"), ("any(", "all("), ("return shortest\n", 'return ""\n')],
    "seconds": [("3600", "3601"), ("* 10", "* 11"), ("number = 0\n", "number = 1\n")],
    "wrapped": [("<= width", "< width"), ("+ 1 +", "+"), ("lines and", "len(lines) > 1 and")],
    "merged": [("first <= found", "first < found"), ("max(found[-1][1], last)", "last"), ("sorted(ranges)", "ranges")],
    "majority": [("> len", ">= len"), ("2 * values", "3 * values"), ("return None", "return 0")],
    "flattened": [("found += flattened(item)", "found += item"), ("append(item)", "append([item])")],
    "columns": [
        ("range(len(rows[0]))", "range(len(rows[0]) - 1)"),
        ("row[i]", "row[-i]"),
        ("row in rows", "row in rows[1:]"),
    ],
    "trapped": [
        ("heights[i:]", "heights[i + 1 :] or [0]"),
        ("heights[: i + 1]", "heights[: i + 2]"),
        ("total = 0", "total = 1"),
    ],
    "by_length": [("sorted(words)", "words"), ("len(word)", "len(word) - 1"), ("sorted(words)", "sorted(set(words))")],
    "islands": [("(r + 1, c)", "(r + 1, c + 1)"), ("count = 0", "count = 1"), ("(r, c - 1)", "(r, c)")],
    "first_pair": [
        ("range(second)", "range(second + 1)"),
        ("== total", ">= total"),
        ("first, second", "second, first"),
    ],
}


def test_mutants_fail(sandbox):
    """A function that is off by one, or gives nothing, its argument or a constant, solves none of the problems."""
    problems = {each.function: each for each in problems_of("handwritten")}
    assert MUTANTS.keys() == problems.keys()
    tried = []
    for name, changes in MUTANTS.items():
        for before, after in changes:
            assert problems[name].solution.count(before) >= 1, (name, before)
            tried.append((problems[name], problems[name].solution.replace(before, after, 1)))
        tried += [(problems[name], body) for body in weak(problems[name])]
    passed = solved(sandbox, *zip(*tried, strict=True))
    assert [text for (_, text), each in zip(tried, passed, strict=True) if each] == []


def weak(problem):
    """Bodies that do no work."""
    arguments = range(len(problem.tests[0].args))
    constants = {repr(case.expected) for case in problem.tests}
    names = problem.prompt.partition("(")[2].partition(")")[0].split(", ")
    bodies = ["None", *sorted(constants), *(names[i].partition(":")[0] for i in arguments)]
    return [f"    return {body}\n" for body in bodies]


# generated problems


def test_every_kind_of_every_difficulty_is_solved_by_its_solution_and_by_nothing_weak(sandbox):
    problems = generate(per_kind=6, seed=1)
    assert len(problems) == 6 * len(KINDS) == 180
    assert {(each.kind, each.difficulty) for each in problems} == {
        (kind, level) for kind in KINDS for level in (1, 2, 3)
    }
    assert all(solved(sandbox, problems, [each.solution for each in problems]))
    tried = [
        (each, body) for each in problems for body in ["    return None\n", *weak(each)[-len(each.tests[0].args) :]]
    ]
    passed = solved(sandbox, *zip(*tried, strict=True))
    assert [(each.prompt, text) for (each, text), done in zip(tried, passed, strict=True) if done] == []


def test_tests_are_hidden_and_examples_true():
    for each in generate(per_kind=9, seed=2):
        space = {}
        exec(each.prompt + each.solution, space)
        (found,) = doctest.DocTestFinder().find(space[each.function], each.function, globs=space)
        assert len(found.examples) == 2
        assert doctest.DocTestRunner(verbose=False).run(found).failed == 0
        calls = {f"{each.function}({', '.join(map(repr, case.args))})" for case in each.tests}
        assert len(calls) == len(each.tests) == 10
        assert not calls & {example.source.strip() for example in found.examples}
        assert len({repr(case.expected) for case in each.tests}) > 1


def test_problems_depend_on_their_seed_kind_difficulty_and_number_alone():
    whole = {each.task_id: each for each in generate(per_kind=6)}
    assert len({each.prompt for each in whole.values()}) == len(whole) == 180
    for each in generate(kinds=["lists.*", "strings.case"], per_kind=2, difficulties=[3]):
        assert each == whole[each.task_id]
    assert all(each != whole[each.task_id] for each in generate(per_kind=3, seed=1))


def test_the_same_seed_gives_the_same_problems_in_every_version_of_python():
    rows = json.dumps([each.plain() for each in generate(per_kind=3)])
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == "848910c79b094c13"


def test_what_is_not_there_is_named():
    with pytest.raises(
        ConfigError, match=r"no kind 'list.sums'. Did you mean 'lists.sums'\? Kinds: arithmetic.polynomial, "
    ):
        generate(kinds=["list.sums"])
    with pytest.raises(ConfigError, match=r"difficulties: there is no 4; there are 1 to 3"):
        generate(difficulties=[1, 4])


# files


def test_a_file_is_read_as_it_was_written(tmp_path):
    problems = [
        *problems_of("handwritten"),
        *generate(per_kind=3),
        Problem(task_id="x", prompt="def f():\n", function="f", tests=[Case(expected={1})]),
    ]
    write_problems(tmp_path / "problems.jsonl", problems)
    assert read_problems(tmp_path / "problems.jsonl") == problems
    assert problems_of(str(tmp_path / "problems.jsonl")) == problems
    assert len((tmp_path / "problems.jsonl").read_text().splitlines()) == len(problems)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "it is no JSON (Expecting property name"),
        ("[1]", "problem: expected a table, got [1]"),
        ('{"task_id": NaN}', "it is no JSON (NaN is no number of JSON)"),
        ({"task_id": None}, "task_id: expected a text, got None"),
        ({"prompt": ...}, "prompt: is missing"),
        ({"prompt": "def g(x):\n"}, "prompt: it has no 'def f(', which it should begin"),
        ({"function": 3}, "function: expected a text, got 3"),
        ({"tests": ...}, "tests: expected a list of calls, at least one, got None"),
        ({"tests": [{"args": [1], "expected": 2}, {"args": [1]}]}, "tests[1].expected: is missing"),
        ({"tests": [{"args": [{"python": "x"}], "expected": 2}]}, "tests[0].args[0]: 'x' is no Python literal"),
        ({"difficulty": "hard"}, "difficulty: expected a whole number, got 'hard'"),
        ({"difficulty": True}, "difficulty: expected a whole number, got True"),
        ({"kind": 1}, "kind: expected a text, got 1"),
        ({"solution": ""}, "solution: expected a text, got ''"),
        ({"entry_point": "f"}, "entry_point: unknown field; there are difficulty, function, "),
        ({"task_id": "b"}, "task_id: 'b' is that of another line; give each its own"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_field(tmp_path, line, message):
    file = tmp_path / "problems.jsonl"
    row = (
        line
        if isinstance(line, str)
        else json.dumps({key: value for key, value in {**ROW, **line}.items() if value is not ...})
    )
    file.write_text(json.dumps({**ROW, "task_id": "b"}) + f"\n\n{row}\n")
    with pytest.raises(DataError) as found:
        read_problems(file)
    assert str(found.value).startswith(f"{file}, line 3: {message}")


def test_an_empty_or_missing_file_is_named(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"none.jsonl has no problems. Write one a line"):
        read_problems(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"cannot read .*other.jsonl: No such file"):
        read_problems(tmp_path / "other.jsonl")


# the dataset


def dataset(**options):
    return build("dataset", spec("code_problems", **options))


def kinds(problems):
    return {each.about["kind"] for each in problems}


def test_no_kind_is_on_both_sides():
    found = dataset(per_kind=3)
    train, held_out = ([*found.prompts(ByteTokenizer(), split)] for split in ("train", "validation"))
    assert kinds(train) | kinds(held_out) == {*KINDS}
    assert not kinds(train) & kinds(held_out)
    assert len(kinds(held_out)) == 6
    chosen = dataset(per_kind=3, held_out=["lists.*", "strings.case"])
    assert kinds(chosen.prompts(ByteTokenizer(), "validation")) == {
        each for each in KINDS if each.startswith("lists.")
    } | {"strings.case"}
    assert len([*chosen.prompts(ByteTokenizer(), "train")]) == 19 * 3


def test_prompts_have_what_the_reward_of_tests_needs():
    reward = build("reward", spec("code_tests", sandbox="process", minimum="process"))
    found = dataset(per_kind=3, held_out="strings.*")
    solutions = {each.task_id: each.solution for each in found.problems("validation")}
    prompts = [*found.prompts(ByteTokenizer(), "validation")]
    texts = [solutions[each.about["task_id"]] for each in prompts]
    answers = [json.loads(json.dumps(each.answer)) for each in prompts]
    assert reward.all([each.text for each in prompts], texts, answers) == [1.0] * 30
    assert all(decode(ByteTokenizer(), each.tokens.tolist()) == each.text for each in prompts)
    assert {each.about["difficulty"] for each in prompts} == {1, 2, 3}
    reward.close()


def test_solutions_are_learned_after_their_prompts():
    found = dataset(per_kind=1, difficulties=[2], held_out="lists.*", separator="\n#\n")
    problems = found.problems("train")
    for problem, each, document in zip(
        problems, found.encoded(ByteTokenizer(), "train"), found.documents("train"), strict=True
    ):
        text = decode(ByteTokenizer(), each.tokens.tolist())
        assert text == document == f"{problem.prompt}{problem.solution}\n#\n"
        assert decode(ByteTokenizer(), each.tokens[each.learn].tolist()) == f"{problem.solution}\n#\n"


class Chatting(ByteTokenizer):
    """A template that marks who speaks."""

    def apply_chat_template(self, messages, tools=None):
        return self.encode("".join(f"<{each['role']}>{each['content']}" for each in messages) + "<assistant>")

    def encode_chat(self, messages, tools=None):
        parts = [
            (each["role"] == "assistant", self.encode(f"<{each['role']}>"), self.encode(each["content"]))
            for each in messages
        ]
        tokens = [token for _, role, said in parts for token in (*role, *said)]
        return tokens, [learn for ours, role, said in parts for learn in (*[False] * len(role), *[ours] * len(said))]


def test_a_model_that_chats_is_asked_and_taught_in_its_template():
    found = dataset(per_kind=1, difficulties=[1], held_out="lists.*", chat=True, instruction="Do: ")
    problem, prompt = found.problems("train")[0], next(iter(found.prompts(Chatting(), "train")))
    asked = f"Do: ```python\n{problem.prompt}```"
    assert decode(Chatting(), prompt.tokens.tolist()) == f"<user>{asked}<assistant>"
    example = next(iter(found.encoded(Chatting(), "train")))
    learned = decode(Chatting(), example.tokens[example.learn].tolist())
    assert learned == f"```python\n{problem.prompt}{problem.solution}```"
    with pytest.raises(DataError, match=r"ByteTokenizer has none"):
        next(iter(found.prompts(ByteTokenizer(), "train")))


def test_files_are_read_and_chosen_from(tmp_path):
    write_problems(tmp_path / "a.jsonl", generate(kinds=["lists.*"], per_kind=3))
    write_problems(tmp_path / "b.jsonl", [Problem.read({**ROW, "solution": None})])
    paths = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "handwritten"]
    found = dataset(paths=paths, held_out="a")
    assert len(found.problems("train")) == 30 + 22
    assert [each.task_id for each in found.problems("validation")] == ["a/1"]
    with pytest.raises(DataError, match=r"none of the 1 problems of the validation split has a solution"):
        [*found.documents("validation")]
    some = dataset(paths=paths, kinds=["lists.*"], difficulties=[1, 3], held_out="lists.s*")
    assert {(each.difficulty, each.kind.partition(".")[0]) for each in some.problems("train")} == {
        (1, "lists"),
        (3, "lists"),
    }
    with pytest.raises(DataError, match=r"two problems have the task_id"):
        dataset(paths=[paths[0], paths[0]]).problems("train")
    with pytest.raises(DataError, match=r"no problem is of the kinds and difficulties"):
        dataset(paths=paths, difficulties=[9]).problems("train")
    with pytest.raises(DataError, match=r"are of 1 kinds \(a\), of which 1 are held out; both splits need one"):
        dataset(paths=[paths[1]]).problems("train")
    with pytest.raises(ConfigError, match=r"no kind 'b'"):
        dataset(paths=paths, held_out="b").problems("train")
    with pytest.raises(ConfigError, match=r"difficulties: there are none"):
        dataset(difficulties=[])
