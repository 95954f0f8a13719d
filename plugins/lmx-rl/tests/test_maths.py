"""What the reward for formulas promises."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest

from lmx_core import build, spec
from lmx_core.errors import LmxError
from lmx_core.testing import conformance
from lmx_rl.rewards import maths
from lmx_rl.rewards.maths import MathsOptions, as_formula

needs_library = pytest.mark.skipif(find_spec("math_verify") is None, reason='needs pip install "lmx-rl[maths]"')


@conformance("reward.lmx-rl/maths", options={"time_limit": 1.0, "boxed": True})
def test_maths_keeps_the_promises_of_a_component(check):
    check()


@pytest.fixture(scope="module")
def reward():
    found = build("reward", spec("maths", workers=2))
    yield found
    found.close()


@needs_library
@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("The answer is 72.", "72", 1),
        ("The answer is 72.", 72, 1),
        ("The answer is 27.", "72", 0),
        (r"\boxed{0.5}", "1/2", 1),
        (r"\boxed{\frac{1}{2}}", "0.5", 1),
        (r"\boxed{50\%}", r"\frac{1}{2}", 1),
        (r"\boxed{\frac{2}{1}}", r"\frac{1}{2}", 0),
        ("$(x+1)^2$", "x^2 + 2x + 1", 1),
        ("$(x-1)^2$", "x^2 + 2x + 1", 0),
        (r"\boxed{2^{10}}", "1024", 1),
        ("1024", "2^{10}", 1),
        ("2", "2^{10}", 0),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", 1),
        (r"\boxed{2.83}", r"2\sqrt{2}", 0),
        ("0.333333", r"\frac13", 1),
        ("0.33", r"\frac13", 0),
        ("1500", "1.5e3", 1),
        ("1500", 1.5e3, 1),
        ("0.00000015", 1.5e-07, 1),
        (r"\boxed{\{2, 1\}}", r"\{1, 2\}", 1),
        (r"\boxed{(2, 1)}", "(1, 2)", 0),
        (r"\boxed{\{1, 3\}}", r"\{1, 2\}", 0),
        ("$3 < x$", "x > 3", 1),
        (r"$x \geq 3$", "x > 3", 0),
        ("1,000", "1000", 1),
        ("$18", r"\$18", 1),
        ("18", "$18$", 1),
        (r"\boxed{\text{even}}", r"\text{even}", 1),
        (r"\boxed{\text{odd}}", r"\text{even}", 0),
        (r"\boxed{7} or \boxed{8}", "7", 0),
        (r"\boxed{7 \text{ or } 8}", "7", 0),
        (r"\boxed{\frac{0}{0}}", "0", 0),
        (r"\boxed{}", "7", 0),
        (r"\boxed{7", "7", 0),
        (r"$7$, no, $\sqrt{$", "7", 0),
        ("I do not know.", "7", 0),
        ("", "7", 0),
        ("\ud800 \x00 7", "7", 1),
        ("7", r"It is $6 + 1$, so \boxed{7}", 1),
        ("6", r"It is $6 + 1$, so \boxed{7}", 0),
        ("7", None, None),
        ("7", "", None),
        ("7", "  ", None),
        (r"\boxed{Pairs}", "Paris", None),
        ("18", "18 dollars", None),
        ("1", r"\boxed{}", None),
        (r"\boxed{∞}", "∞", 1),
        (r"\boxed{1}", "∞", 0),
    ],
)
def test_maths(reward, completion, answer, expected):
    assert reward("prompt", completion, answer) == expected


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("x+1", "$x+1$"),
        ("$x$ is 1", "$x$ is 1"),
        (r"\boxed{7} it is", r"\boxed{7} it is"),
        (r"\(x\) it is", r"\(x\) it is"),
        (r"\$18", r"$\$18$"),
        ("2e-7", r"$2\cdot 10^{-7}$"),
        (" 1.5E+3 ", r"$1.5\cdot 10^{+3}$"),
        ("2e", "$2e$"),
        (r"\frac{1}{2}\text{ metres}", r"$\frac{1}{2}\text{ metres}$"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"$\begin{pmatrix}1\\2\end{pmatrix}$"),
        ("1 and 2", "$1 and 2$"),
        ("ab", "$ab$"),
        ("abc", ""),
        ("sin(x)", ""),
        ("Straße", ""),
        ("", ""),
        ("\n", ""),
    ],
)
def test_an_answer_that_stands_alone_is_a_formula(text, formula):
    assert as_formula(text) == formula


@needs_library
def test_an_answer_is_looked_for_where_it_stands(reward, monkeypatch):
    monkeypatch.setattr(reward, "options", MathsOptions(boxed=True))
    assert reward("", r"6, \boxed{\sqrt{4}+5}, 8", "7") == 1
    assert reward("", r"7, \boxed{8}", "7") == 0
    assert reward("", "7", "7") == 0
    assert reward("", r"\boxed{7} \boxed{8}", "8") == 1


@needs_library
def test_no_formula_holds_up_the_training(reward, monkeypatch):
    """Not in the main thread nor in another one; the next completion is judged as ever."""
    monkeypatch.setattr(reward, "options", MathsOptions(time_limit=0.5))
    begun = time.perf_counter()
    assert reward("", "9**9**9**9", "7") == 0
    assert reward("", "7", "7") == 1
    assert reward("", "7", "(" * 1000 + "7" + ")" * 1000) is None
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(reward, "", r"\boxed{9^{9^{9^9}}}", "7").result() == 0
        assert pool.submit(reward, "", "7", "7").result() == 1
    assert time.perf_counter() - begun < 120  # a few processes begin, on a machine that may be busy


@needs_library
def test_threads_share_the_processes(reward, monkeypatch):
    """Each is used by one at a time, no more are begun than may be, and a verdict belongs to its completion."""
    started = []
    begin = maths.Worker._started
    monkeypatch.setattr(maths.Worker, "_started", lambda self: started.append(self) or begin(self))
    running = sum(each._process is not None for each in reward.workers)
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda i: reward("", f"${i % 7}$", "3"), range(200))]
    assert found == [float(i % 7 == 3) for i in range(200)]
    assert running + len(started) <= 2


@pytest.fixture
def worker(reward):
    return reward.workers[0]


@needs_library
def test_a_process_makes_room_for_a_new_one(worker, monkeypatch):
    assert worker.judge(5.0, "$7$", "7") == 1
    first = worker._process
    monkeypatch.setattr(maths, "JOBS", worker._jobs + 1)
    assert worker.judge(5.0, "$7$", "8") == 0
    assert worker._process is first
    assert worker.judge(5.0, "$7$", "7") == 1
    assert worker._process is not first
    assert first.returncode is not None
    assert worker._jobs == 1


@needs_library
def test_a_process_that_somebody_ends_is_replaced(worker):
    assert worker.judge(5.0, "$7$", "7") == 1
    first = worker._process
    first.kill()
    first.wait()
    assert worker.judge(5.0, "$7$", "7") == 1
    assert worker._process is not first


@needs_library
def test_a_terminal_does_not_end_the_process(worker):
    """Control-C goes to all that run in a terminal; who asks decides."""
    assert worker.judge(5.0, "$7$", "7") == 1
    process = worker._process
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.2)
    assert worker.judge(5.0, "$7$", "8") == 0
    assert worker._process is process


@needs_library
def test_a_process_may_wait_for_work(worker):
    """Neither clock runs between two jobs."""
    assert worker.judge(5.0, "$7$", "7") == 1
    process = worker._process
    assert worker.judge(0.2, "$7$", "8") == 0
    time.sleep(2.5)
    assert process.poll() is None
    assert worker.judge(5.0, "$7$", "7") == 1
    assert worker._process is process


@needs_library
def test_who_is_interrupted_hears_nobody_elses_verdict(worker, monkeypatch):
    assert worker.judge(5.0, "$7$", "7") == 1
    with monkeypatch.context() as patch:
        patch.setattr(maths.Worker, "_heard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.judge(5.0, "$7$", "7")
    assert worker.judge(5.0, "$7$", "8") == 0


def interrupted(*_):
    raise KeyboardInterrupt


@needs_library
def test_a_worker_that_is_forgotten_leaves_no_process():
    worker = maths.Worker()
    process = worker._ready()
    del worker
    assert process.wait(10) is not None


@needs_library
def test_processes_end_with_the_program():
    """Also one that is killed, while a process computes."""
    code = (
        "from lmx_rl.rewards.maths import Worker\n"
        "worker = Worker(); worker.judge(9.0, '$7$', '7')\n"
        "print(worker._process.pid, flush=True)\n"
        "worker.judge(2.0, '$7$', '9**9**9**9')"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with program:
        number = int(program.stdout.readline())
        time.sleep(0.2)
        program.kill()
    deadline = time.monotonic() + 60
    while running(number) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running(number)


def running(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


@needs_library
def test_a_library_that_does_not_work_is_said(monkeypatch, tmp_path):
    broken = tmp_path / "program.py"
    broken.write_text("raise SystemExit(1)")
    monkeypatch.setattr(maths, "PROGRAM", broken)
    with pytest.raises(LmxError, match=r"math-verify does not start. Try: .*program.py"):
        maths.Worker().judge(1.0, "$7$", "7")


@pytest.mark.once
def test_a_library_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(maths, "find_spec", lambda name: None)
    with pytest.raises(LmxError, match=r'pip install "lmx-rl\[maths\]"'):
        build("reward", spec("maths"))


@pytest.mark.once
@pytest.mark.parametrize("options", [{"time_limit": 0}, {"workers": 0}, {"time_limit": -1.0}])
def test_what_is_wrong_with_options_is_said(options):
    with pytest.raises(LmxError, match="must be >"):
        build("reward", spec("maths", **options))


@needs_library
def test_nothing_is_begun_before_it_is_needed():
    before = threading.active_count()
    reward = build("reward", spec("maths", workers=4))
    assert reward("", "7", None) is None
    assert all(worker._process is None for worker in reward.workers)
    assert threading.active_count() == before
