"""What a judge of several rewards promises."""

import asyncio
import gc
import threading
import time
import warnings
from fractions import Fraction

import mlx.core as mx
import numpy as np
import pytest

from lmx_core import spec
from lmx_core.errors import ConfigError, LmxError
from lmx_core.registry import registry
from lmx_core.serialize import structure
from lmx_rl import Completion, Judge, RewardSpec

pytestmark = pytest.mark.once

COMPLETIONS = [Completion(prompt=f"p{i}", text=f"c{i}", answer=i) for i in range(6)]
NAN = float("nan")


@pytest.fixture
def offered():
    """Offers a class, or a function as one whose objects call it, under a name for the length of a test."""
    names = []

    def offer(name, reward):
        made = (
            reward if isinstance(reward, type) else type("Reward", (), {"__call__": lambda self, *args: reward(*args)})
        )
        registry("reward").register(name)(made)
        names.append(name)
        return name

    yield offer
    for name in names:
        registry("reward").unregister(name)


def judged(*rewards, completions=COMPLETIONS, **how):
    specs = [each if isinstance(each, RewardSpec) else RewardSpec(reward=each) for each in rewards]
    judge = Judge(specs, **how)
    try:
        return judge.judge(completions)
    finally:
        judge.close()


def table(**values):
    """A reward that gives what the table says of the answer."""
    return lambda prompt, completion, answer: values[f"of_{answer}"]


def same(found, expected):
    np.testing.assert_array_equal(found, np.array(expected, np.float64))


def test_rewards_are_told_prompt_completion_and_answer_and_are_kept_apart(offered):
    seen = []
    offered("first", lambda *args: seen.append(args) or args[2])
    offered("second", lambda *args: 10 * args[2])
    found = judged("first", RewardSpec(reward="second", weight=0.5, name="other"))
    assert seen == [(f"p{i}", f"c{i}", i) for i in range(6)]
    assert list(found.each) == ["first", "other"]
    same(found.each["first"], range(6))
    same(found.each["other"], [0, 10, 20, 30, 40, 50])
    same(found.total, [0, 6, 12, 18, 24, 30])
    assert found.failed == {}
    assert found.total.dtype == np.float64 == found.each["first"].dtype


def test_what_cannot_be_judged_is_left_out_of_the_sum(offered):
    """None is NaN, the others are summed; where none with a weight could judge, there is no sum. That is no failure."""
    offered("a", table(of_0=1, of_1=None, of_2=2, of_3=None, of_4=0, of_5=-1))
    offered("b", table(of_0=1, of_1=4, of_2=None, of_3=None, of_4=0, of_5=1))
    found = judged(RewardSpec(reward="a", weight=2.0), RewardSpec(reward="b", weight=-3.0))
    same(found.each["a"], [1, NAN, 2, NAN, 0, -1])
    same(found.each["b"], [1, 4, NAN, NAN, 0, 1])
    same(found.total, [-1, -12, 4, NAN, 0, -5])
    assert found.failed == {}


def test_a_reward_without_weight_is_only_logged(offered):
    """Also where it alone could judge."""
    offered("counts", table(of_0=1, of_1=None, of_2=2, of_3=3, of_4=4, of_5=5))
    offered("shows", lambda *_: 7)
    found = judged("counts", RewardSpec(reward="shows", weight=0.0))
    same(found.each["shows"], [7] * 6)
    same(found.total, [1, NAN, 2, 3, 4, 5])


@pytest.mark.parametrize("value", [True, np.float32(1), np.int64(1), np.bool_(True), np.array(1.0), mx.array(1.0)])
def test_numbers_of_all_sorts(offered, value):
    offered("sort", lambda *_: value)
    found = judged("sort")
    same(found.total, [1] * 6)
    assert found.failed == {}


def test_a_fraction_and_false_are_numbers(offered):
    offered("sort", table(of_0=Fraction(1, 4), of_1=False, of_2=0, of_3=mx.array(True), of_4=-0.5, of_5=10**300))
    same(judged("sort").total, [0.25, 0, 0, 1, -0.5, 1e300])


class Hostile:
    ndim = 0

    def __float__(self):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize("how", ["in turn", "threads", "async", "all", "async all"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (NAN, "returned nan"),
        (float("inf"), "returned inf"),
        (mx.array(NAN), "returned nan"),
        (np.float64("-inf"), "returned -inf"),
        ("1", "returned '1', no number"),
        (b"1", "returned b'1', no number"),
        ([1], "returned [1], no number"),
        ({}, "returned {}, no number"),
        (1j, "returned 1j, no number"),
        (10**400, "no number"),
        (np.array([1.0]), "returned array([1.]), no number"),
        (Hostile(), "raised RuntimeError: no"),
        (ValueError("what it was"), "raised ValueError: what it was"),
    ],
)
def test_what_goes_wrong_is_named_and_has_no_total(offered, how, value, message):
    """Whatever way it is called, and the other completions are judged as ever."""

    def bad(answer):
        if answer == 2 and isinstance(value, Exception):
            raise value
        return value if answer == 2 else 1.0

    offered("bad", called_by(how, bad))
    offered("good", lambda *_: 1)
    found = judged("good", RewardSpec(reward="bad", name="worse"))
    together = "all" in how and message.startswith("raised")  # who raises for many has said nothing of any
    numbers = range(6) if together else [2]
    assert [*found.failed] == [*numbers]
    assert all(found.failed[i].startswith("reward 'worse' ") and message in found.failed[i] for i in numbers)
    same(found.total, [NAN if i in numbers else 2 for i in range(6)])
    same(found.each["worse"], [NAN if i in numbers else 1 for i in range(6)])
    same(found.each["good"], [1] * 6)


def called_by(how, judge):
    """A class of rewards that give `judge(answer)`."""

    async def one(self, prompt, completion, answer=None):
        return judge(answer)

    async def many(self, prompts, completions, answers):
        return [judge(answer) for answer in answers]

    def plain(self, prompt, completion, answer=None):
        return judge(answer)

    parts = {
        "in turn": {"__call__": plain},
        "threads": {"__call__": plain, "concurrent": True},
        "async": {"__call__": one},
        "all": {"__call__": None, "all": lambda self, p, c, answers: [judge(answer) for answer in answers]},
        "async all": {"__call__": None, "all": many},
    }
    return type("Reward", (), parts[how])


def test_a_call_that_cancels_itself_is_named(offered):
    def cancelled(answer):
        if answer == 2:
            raise asyncio.CancelledError("itself")
        return 1

    offered("cancelled", called_by("async", cancelled))
    assert judged("cancelled").failed == {2: "reward 'cancelled' raised CancelledError: itself"}


def test_all_that_went_wrong_with_one_completion_is_told(offered):
    offered("a", table(of_0=NAN, of_1=1, of_2=1, of_3=1, of_4=1, of_5=1))
    offered("b", table(of_0="x", of_1=NAN, of_2=1, of_3=1, of_4=1, of_5=1))
    assert judged("a", "b").failed == {
        0: "reward 'a' returned nan; reward 'b' returned 'x', no number",
        1: "reward 'b' returned nan",
    }


def test_a_coroutine_by_mistake_is_named(offered):
    async def later():
        return 1.0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        offered("late", lambda *_: later())
        found = judged("late")
        gc.collect()
    assert found.failed[0] == "reward 'late' returned a coroutine; a reward that is awaited has an async def __call__"


@pytest.mark.parametrize("values", [[1.0] * 5, [1.0] * 7, [], iter([1.0])])
def test_values_for_other_completions_are_refused(offered, values):
    offered("many", type("Many", (), {"__call__": None, "all": lambda *_: values}))
    found = judged("many")
    assert [*found.failed] == [*range(6)]
    assert "values for 6 completions" in found.failed[0]
    assert np.isnan(found.total).all()


@pytest.mark.parametrize("wrap", [list, tuple, iter, np.array, mx.array])
def test_one_call_judges_many(offered, wrap):
    calls = []

    class Many:
        def __call__(self, prompt, completion, answer=None):
            raise AssertionError("one by one")

        def all(self, prompts, completions, answers):
            calls.append((prompts, completions, answers))
            return wrap([float(answer) for answer in answers])

    offered("many", Many)
    same(judged("many").total, range(6))
    assert calls == [([f"p{i}" for i in range(6)], [f"c{i}" for i in range(6)], [*range(6)])]


@pytest.mark.parametrize("how", ["in turn", "threads", "async", "all", "async all"])
def test_no_completions_are_judged_at_once(offered, how):
    offered("any", called_by(how, lambda answer: 1 / 0))
    found = judged("any", completions=[])
    assert found.total.shape == found.each["any"].shape == (0,)
    assert found.failed == {}


def test_awaited_calls_run_together_up_to_the_limit_and_in_order(offered):
    """What is done last is in its place all the same."""
    under_way, most, threads = set(), [], set()

    class Slow:
        async def __call__(self, prompt, completion, answer=None):
            under_way.add(answer)
            most.append(len(under_way))
            threads.add(threading.current_thread())
            await asyncio.sleep(0.01 * (6 - answer))
            under_way.discard(answer)
            return answer

    offered("slow", Slow)
    same(judged("slow").total, range(6))
    assert max(most) == 6
    assert len(threads) == 1
    assert threads != {threading.current_thread()}
    most.clear()
    same(judged("slow", concurrency=2).total, range(6))
    assert max(most) == 2


def test_threads_run_together_up_to_the_limit_and_in_order(offered):
    lock, most, under_way = threading.Lock(), [], set()

    class Threaded:
        concurrent = True

        def __call__(self, prompt, completion, answer=None):
            with lock:
                under_way.add(answer)
                most.append(len(under_way))
            time.sleep(0.01 * (6 - answer))
            with lock:
                under_way.discard(answer)
            return answer

    offered("threaded", Threaded)
    same(judged("threaded").total, range(6))
    assert max(most) > 1
    most.clear()
    same(judged("threaded", concurrency=1).total, range(6))
    assert max(most) == 1


def test_others_are_called_one_by_one_here(offered):
    threads = []
    offered("plain", lambda *_: threads.append(threading.current_thread()) or 1)
    judged("plain", concurrency=8)
    assert threads == [threading.current_thread()] * 6


def test_kinds_of_calls_are_under_way_at_once(offered):
    """One that is waited for ends when one in turn, which comes after it, lets it."""
    free = threading.Event()
    ends = []

    class Waits:
        concurrent = True

        def __call__(self, prompt, completion, answer=None):
            ends.append(free.wait(10))
            return 1

    offered("waits", Waits)
    offered("frees", lambda *_: free.set() or 1)
    same(judged("waits", "frees").total, [2] * 6)
    assert ends == [True] * 6


def test_an_awaited_call_that_takes_too_long_is_named(offered):
    class Endless:
        async def __call__(self, prompt, completion, answer=None):
            await asyncio.sleep(60 if answer == 3 else 0)
            if answer == 4:
                raise TimeoutError("of its own")
            return 1

    offered("endless", Endless)
    begun = time.perf_counter()
    found = judged("endless", time_limit=0.2)
    assert time.perf_counter() - begun < 10
    assert found.failed == {
        3: "reward 'endless' took more than 0.2 s",
        4: "reward 'endless' raised TimeoutError: of its own",
    }


def test_waiting_for_its_turn_is_not_taking_long(offered):
    class Slow:
        async def __call__(self, prompt, completion, answer=None):
            await asyncio.sleep(0.1)
            return 1

    offered("slow", Slow)
    assert judged("slow", concurrency=1, time_limit=0.5).failed == {}


@pytest.mark.parametrize("how", ["in turn", "threads", "async", "all", "async all"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_goes_through(offered, how, error):
    def ends(answer):
        if answer == 3:
            raise error
        return 1

    offered("ends", called_by(how, ends))
    with pytest.raises(error):
        judged("ends")


def test_what_others_wait_for_is_given_up_when_one_ends_the_program(offered):
    given_up = threading.Event()

    class Endless:
        async def __call__(self, prompt, completion, answer=None):
            try:
                await asyncio.sleep(60)
            finally:
                given_up.set()

    def ends(*_):
        time.sleep(0.1)
        raise KeyboardInterrupt

    offered("endless", Endless)
    offered("ends", ends)
    judge = Judge([RewardSpec(reward="endless"), RewardSpec(reward="ends")])
    with pytest.raises(KeyboardInterrupt):
        judge.judge(COMPLETIONS)
    assert given_up.wait(10)
    judge.close()


def test_a_judge_works_within_a_running_loop_and_again(offered):
    """Its loop is one for all calls, so that a client which an async reward keeps outlives them; closed, it starts anew."""
    loops, closed = [], []

    class Client:
        async def __call__(self, prompt, completion, answer=None):
            loops.append(asyncio.get_running_loop())
            return 1

        def close(self):
            closed.append(self)

    offered("client", Client)
    offered("threaded", called_by("threads", lambda answer: 0))
    judge = Judge([RewardSpec(reward="client"), RewardSpec(reward="threaded")])

    async def notebook():
        return [judge.judge(COMPLETIONS), judge.judge(COMPLETIONS)]

    for found in asyncio.run(notebook()):
        same(found.total, [1] * 6)
    assert len({*loops}) == 1
    judge.close()
    assert len(closed) == 1
    assert loops[0].is_closed()
    same(judge.judge(COMPLETIONS).total, [1] * 6)
    judge.close()
    judge.close()


def test_a_judge_that_is_forgotten_leaves_no_thread(offered):
    offered("awaited", called_by("async", lambda answer: 1))
    judge = Judge([RewardSpec(reward="awaited")])
    judge.judge(COMPLETIONS)
    thread = next(each for each in threading.enumerate() if each.name == "lmx-rewards")
    del judge
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_two_of_one_name_are_told_apart():
    twice = [RewardSpec(reward=spec("regex", pattern=pattern)) for pattern in ("a", "b")]
    with pytest.raises(
        ConfigError, match="two rewards are called 'regex'. Give one of them a name of its own: name = "
    ):
        Judge(twice)
    found = judged(twice[0], RewardSpec(reward=spec("regex", pattern="c3"), name="other"))
    same(found.each["other"], [0, 0, 0, 1, 0, 0])
    same(found.each["regex"], [0] * 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Judge([]), "no reward has a weight, so that nothing is learned .there are no rewards.."),
        (lambda: Judge([RewardSpec(reward="numeric", weight=0)]), "no reward has a weight.* .numeric 0.."),
        (lambda: RewardSpec(reward="numeric", weight=NAN), "weight: expected a finite number, got nan"),
        (lambda: RewardSpec(reward="numeric", weight=-float("inf")), "weight: expected a finite number"),
        (lambda: RewardSpec(reward="numeric", weight="1"), "weight: expected float, got '1'"),
        (lambda: RewardSpec(reward="numeric", name=""), "name: "),
        (lambda: Judge([RewardSpec(reward="numerc")]), "no reward named 'numerc'. Did you mean 'numeric'"),
        (lambda: Judge([RewardSpec(reward=spec("numeric", tolerance=-1))]), "tolerance: must be >= 0"),
        (lambda: Judge([RewardSpec(reward="numeric")], concurrency=0), "concurrency=0: at least one call"),
        (lambda: Judge([RewardSpec(reward="numeric")], time_limit=0.0), "time_limit=0.0: a call takes some seconds"),
        (
            lambda: Judge([RewardSpec(reward="numeric")], time_limit=2.0),
            "a time limit of 2 s is for rewards with an async",
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(make, message):
    with pytest.raises(LmxError, match=message):
        make()


def test_a_reward_reads_as_in_a_file():
    """Its options are held to the component's, with the path in the report."""
    table = {"reward": {"name": "numeric", "tolerance": 0.1}, "weight": 2}
    assert structure(table, RewardSpec, "a file") == RewardSpec(reward=spec("numeric", tolerance=0.1), weight=2)
    assert structure({"reward": "numeric"}, RewardSpec, "a file").title == "numeric"
    with pytest.raises(ConfigError, match="reward.tolerance: must be >= 0, got -1"):
        structure({"reward": {"name": "numeric", "tolerance": -1}}, RewardSpec, "a file", installed=True)
