"""What sandboxes promise to those who have programs run."""

import importlib.util
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmx_core import build, spec
from lmx_core.errors import ConfigError, LmxError
from lmx_core.testing import conformance
from lmx_rl.sandbox import Call, Isolation, Outcome, Program, Sandbox, open_sandbox

MONTY = importlib.util.find_spec("pydantic_monty") is not None
NAMES = [
    pytest.param("process", marks=pytest.mark.once),
    pytest.param("unsafe", marks=pytest.mark.once),
    pytest.param("monty", marks=pytest.mark.skipif(not MONTY, reason="no pydantic-monty")),
]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.once
@conformance("sandbox.lmx-rl/process", options={"workers": 2})
def test_process_keeps_the_promises_of_a_component(check):
    check()


@conformance("sandbox.lmx-rl/monty", options={"recursion": 50})
def test_monty_keeps_them(check):
    check()


@pytest.mark.once
@conformance("sandbox.lmx-rl/unsafe", options={"seconds": 1.5})
def test_unsafe_keeps_them(check):
    check()


@pytest.fixture
def sandbox(request):
    made = build("sandbox", spec(request.param, workers=2, seconds=5.0))
    yield made
    made.close()


def every(names=NAMES):
    return pytest.mark.parametrize("sandbox", names, indirect=True)


def program(source, *calls, function="f"):
    return Program(source=textwrap.dedent(source), function=function, calls=[Call(args=args) for args in calls])


def one(sandbox, source, *calls, **options):
    (outcome,) = sandbox.run([program(source, *(calls or [()]), **options)])
    return outcome


@every()
def test_a_sandbox_is_one(sandbox):
    """It follows the protocol, runs what there is to run, in order, and again after it was closed."""
    assert isinstance(sandbox, Sandbox)
    assert sandbox.isolation in Isolation
    assert sandbox.run([]) == []
    for _ in range(2):
        programs = [program(f"def f():\n    return {n}", ()) for n in range(20)]
        assert [outcome.returned[0].value for outcome in sandbox.run(programs)] == list(range(20))
        sandbox.close()
        sandbox.close()


@every()
def test_several_threads_may_run_programs(sandbox):
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: one(sandbox, f"def f():\n    return {n}").returned[0].value, range(40)))
    assert found == list(range(40))


@every()
def test_calls_are_made_in_order_and_do_not_share_arguments(sandbox):
    """The module is loaded once; what a call does to its arguments, the next does not see."""
    shared = [1]
    (outcome,) = sandbox.run(
        [
            Program(
                source="seen = []\ndef f(x, *, more=()):\n    x.append(2)\n    seen.append(len(x))\n"
                "    return [seen, x, more]",
                function="f",
                calls=[Call(args=[shared]), Call(args=[shared], kwargs={"more": {"a": (shared, {1})}})],
            )
        ]
    )
    assert [given.value for given in outcome.returned] == [[[2], [1, 2], ()], [[2, 2], [1, 2], {"a": ([1], {1})}]]
    assert shared == [1]


@every()
def test_a_program_without_calls_is_only_loaded(sandbox):
    assert sandbox.run([program("def f():\n    pass"), program("1 / 0\ndef f():\n    pass")]) == [
        Outcome(status="done"),
        Outcome(status="failed", detail="ZeroDivisionError: division by zero"),
    ]


@every()
def test_what_came_before_the_end_is_known(sandbox):
    """Of three calls the second does not return: the first one's value is there."""
    source = (
        "def f(n):\n    while n == 1:\n        pass\n    if n == 0:\n        raise ValueError('zero')\n    return n"
    )
    hasty = build("sandbox", spec(type(sandbox).__name__.lower(), seconds=0.5, workers=1))
    outcome = one(hasty, source, (2,), (0,), (1,), (3,))
    hasty.close()
    assert outcome.status == "time"
    assert [(given.value, given.error) for given in outcome.returned] == [(2, None), (None, "ValueError: zero")]


@every()
def test_chance_is_the_same_each_time(sandbox):
    """Sets, hashes and random numbers: a program's worth does not depend on the worker, or on the day."""
    source = "import random\ndef f():\n    return [random.random(), list({'a', 'b', 'c', 'd', 'e'})]"
    if sandbox.isolation is Isolation.NONE:
        source = source.replace("list({'a', 'b', 'c', 'd', 'e'})", "0")
    first = one(sandbox, source)
    sandbox.close()
    assert first == one(sandbox, source)
    assert first.status == "done"


@every()
def test_a_builtin_is_no_solution(sandbox):
    """A program that does not define `sum` has not solved it."""
    assert one(sandbox, "x = 1", ([1],), function="sum").status == "failed"
    assert one(sandbox, "def sum(x):\n    return 7", ([1],), function="sum").returned[0].value == 7
    assert one(sandbox, "def f():\n    return 1", function="1 + 1").status == "failed"


@every()
def test_arguments_are_plain(sandbox):
    with pytest.raises(
        LmxError, match="an argument for 'f' cannot be handed to a sandbox: a complex is no plain value"
    ):
        one(sandbox, "def f(x):\n    return 1", ([1j],))


@pytest.mark.skipif(not MONTY, reason="no pydantic-monty")
@pytest.mark.parametrize(
    "source",
    [
        "import heapq\ndef f():\n    return 1",
        "from collections import OrderedDict\ndef f():\n    return 1",
        "def f():\n    import subprocess\n    return 1",
        "def f():\n    yield 1",
        "class A:\n    pass\nclass B(A):\n    pass\ndef f():\n    return 1",
        "def f():\n    return vars()",
        "def f():\n    return (1.5).hex()",
        "import os\ndef f():\n    return os.getpid()",
        "def f():\n    return next((x for x in [1]), None)",
        "def f():\n    return pow(3, -1, 7)",
        "def f():\n    return {1}.union([2], [3])",
        "import re\ndef f():\n    return re.sub('a', lambda m: 'b', 'a')",
        "from dataclasses import dataclass\n@dataclass(order=True)\nclass A:\n    x: int\ndef f():\n    return A(1) < A(2)",
        "class A:\n    def __len__(self):\n        return 1\ndef f():\n    return len(A())",
        "class A:\n    def __lt__(self, other):\n        return True\ndef f():\n    return A() < A()",
    ],
)
def test_what_monty_lacks_is_no_fault(source):
    sandbox = build("sandbox", "monty")
    assert one(sandbox, source).status == "unsupported"
    assert not one(sandbox, source).known
    sandbox.close()


@every()
def test_faults_of_its_own_are_known(sandbox):
    """Names and modules that no Python has, and errors like those of a sandbox that it raises itself."""
    for source in ("import no_such_module\ndef f():\n    return 1", "def g():\n    return 1", "f = no_such_name"):
        assert one(sandbox, source).status == "failed"
    assert (
        one(sandbox, "def f():\n    return 1 < 'a'").status
        == one(sandbox, "def f():\n    return len(None)").status
        == "done"
    )
    for error in ("NotImplementedError", "TimeoutError('limit')", "AttributeError('x')", "NameError"):
        outcome = one(sandbox, f"def f():\n    raise {error}")
        assert outcome.status == "done"
        assert outcome.returned[0].error.startswith(error.partition("(")[0])


@pytest.mark.once
def test_a_sandbox_below_the_minimum_is_refused():
    with pytest.raises(
        ConfigError, match='sandbox "unsafe" obtains isolation none on this machine, less than the minimum'
    ):
        open_sandbox("unsafe")
    opened = open_sandbox(spec("unsafe", seconds=1.0), Isolation.NONE)
    assert one(opened, "def f():\n    return 1").returned[0].value == 1
    opened.close()


def test_the_default_is_monty_where_it_is_installed(monkeypatch):
    opened = open_sandbox(None, Isolation.PROCESS)
    opened.close()
    assert type(opened).__name__ == ("Monty" if MONTY else "Process")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    opened = open_sandbox(None, Isolation.PROCESS)
    opened.close()
    assert type(opened).__name__ == "Process"


@pytest.mark.once
def test_monty_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    with pytest.raises(ConfigError, match=r'pip install "lmx-rl\[sandbox\]"'):
        build("sandbox", "monty").run([program("def f():\n    return 1", ())])


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.0}, "seconds: must be > 0"),
        ({"workers": -1}, "workers: must be >= 0"),
        ({"memory": 1}, "unknown"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        build("sandbox", spec("process", **options))
