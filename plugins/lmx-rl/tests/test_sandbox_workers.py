"""What the processes of a sandbox are held to, and that nothing is left of them."""

import ctypes
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from lmx_core import build, spec
from lmx_rl.sandbox import Call, Isolation, Program, darwin, equal, waiting, worker
from lmx_rl.sandbox.child import seccomp

pytestmark = pytest.mark.once

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def one(sandbox, source, *calls):
    (outcome,) = sandbox.run([Program(source=source, function="f", calls=[Call(args=args) for args in calls or [()]])])
    return outcome


@LINUX
def test_process_obtains_what_this_kernel_has():
    """Where the kernel has Landlock and seccomp, it is kept from the system; and the same trial finds it out if not."""
    sandbox, open_ = build("sandbox", spec("process", workers=1)), build("sandbox", spec("process", workers=1))
    libc = ctypes.CDLL(None)
    has = libc.syscall(444, None, 0, 1) > 0 and seccomp.compiled(libc) is not None
    assert sandbox.isolation is (Isolation.SYSTEM if has else Isolation.PROCESS)
    with unlocked():
        assert open_.isolation is Isolation.PROCESS
    sandbox.close()
    open_.close()


@contextmanager
def unlocked():
    """Within it, workers are started as on a kernel without Landlock and seccomp."""
    disarm = "sys.modules['child.landlock'].restrict = sys.modules['child.seccomp'].compiled = lambda *_: None; "
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "BOOT", worker.BOOT.replace("template.main()", disarm + "template.main()"))
        yield


@LINUX
def test_without_locks_programs_run_and_files_are_not_made_here():
    """The limits hold on any kernel."""
    with unlocked():
        sandbox = build("sandbox", spec("process", workers=1, memory_mb=64, seconds=2.0))
        assert one(sandbox, "import os\ndef f():\n    return os.listdir('.')").returned[0].value == []
        assert one(sandbox, "def f():\n    open('made', 'w')").returned[0].error.startswith("FileNotFoundError")
        assert one(sandbox, "def f():\n    return len([0] * 10 ** 9)").status == "memory"
        assert one(sandbox, "import os\ndef f():\n    os._exit(3)").detail == "it left with status 3"
        sandbox.close()


@LINUX
@pytest.mark.parametrize(
    ("attempt", "reached"),
    [
        ("return open(folder + '/secret').read()", "secret"),
        ("open(folder + '/made', 'w').write('x')\n    return 1", 1),
        ("import os\n    return os.environ['LMX_SECRET']", "secret"),
        ("import socket\n    return bool(socket.create_server(('127.0.0.1', 0)))", True),
        ("import os\n    os.kill(pid, 0)\n    return 1", 1),
        ("import subprocess\n    return subprocess.run(['true']).returncode", 0),
        ("import attrs\n    return 1", 1),
    ],
)
def test_unsafe_shows_that_the_attempts_are_real(attempt, reached, tmp_path, monkeypatch):
    """What `process` keeps from a program is there for one that nothing keeps it from."""
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setenv("LMX_SECRET", "secret")
    call = (str(tmp_path), os.getpid())
    for name in ("unsafe", "process"):
        sandbox = build("sandbox", spec(name, workers=1))
        if name == "process" and sandbox.isolation < Isolation.SYSTEM:
            pytest.skip("this kernel has not both Landlock and seccomp")
        (given,) = one(sandbox, f"def f(folder, pid):\n    {attempt}", call).returned
        assert equal(given.value, reached) == (name == "unsafe")
        assert (given.error is None) == (name == "unsafe")
        sandbox.close()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(*pids):
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(alive, pids))


PARENT = "import os\ndef f():\n    return os.getppid()"


@LINUX
def test_workers_are_recycled():
    sandbox = build("sandbox", spec("process", workers=1, recycle=3))
    parents = [one(sandbox, PARENT).returned[0].value for _ in range(7)]
    assert [n for _, n in sorted(Counter(parents).items(), key=lambda item: parents.index(item[0]))] == [3, 3, 1]
    sandbox.close()
    assert gone(*parents)


@LINUX
@pytest.mark.parametrize("name", ["process", "unsafe"])
def test_a_worker_that_is_lost_is_replaced(name):
    """The program that it ran is not judged; the next one runs."""
    sandbox = build("sandbox", spec(name, workers=1))
    parent = one(sandbox, PARENT).returned[0].value
    os.kill(parent, signal.SIGKILL)
    assert gone(parent)
    assert one(sandbox, PARENT).status == "broken"
    assert alive(one(sandbox, PARENT).returned[0].value)
    sandbox.close()


@LINUX
def test_orphans_end_with_the_program(tmp_path):
    """Where a program may fork, what it leaves is killed: a child in a session of its own, and that one's children."""
    source = """
import os, time
def f(file):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
            with open(file, "a") as log:
                print(os.getpid(), file=log, flush=True)
            time.sleep(60)
    while len(open(file).read().split()) < 6:
        time.sleep(0.01)
    open("left", "w").write("x")
    return os.getcwd()
"""
    sandbox = build("sandbox", spec("unsafe", workers=1, seconds=20.0))
    (tmp_path / "pids").touch()
    folder = one(sandbox, source, (str(tmp_path / "pids"),)).returned[0].value
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 6
    assert gone(*pids)
    assert os.listdir(folder) == []
    sandbox.close()
    assert not os.path.exists(folder)


@LINUX
@pytest.mark.parametrize("name", ["process", "unsafe"])
def test_nothing_is_left_of_a_parent_that_was_killed(name, tmp_path):
    """Even a program that loops is ended when there is no one to wait for it."""
    loop = "import os\ndef f():\n    print(os.getppid(), os.getpid(), flush=True)\n    while True:\n        pass"
    script = f"""
from lmx_core import build, spec
from lmx_rl.sandbox import Call, Program, watch
told = watch.Watch.listen
def listen(self, channel, printed):
    print(self._pid, flush=True)
    told(self, channel, printed)
watch.Watch.listen = listen
build("sandbox", spec({name!r}, seconds=60.0)).run([Program(source={loop!r}, function="f", calls=[Call()])])
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/", env=environment) as process:
        try:
            child = int(process.stdout.readline())
            template = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            assert alive(child)
            assert alive(template)
        finally:
            process.kill()
    assert gone(child, template)
    assert list(tmp_path.iterdir()) == []


@LINUX
def test_time_in_the_queue_of_a_processor_is_not_counted():
    """A process that does nothing waits for none; one of several that share a processor does."""
    code = (
        "import os, time\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nend = time.monotonic() + 20\n"
        "while time.monotonic() < end: pass"
    )
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    idle = subprocess.Popen(["sleep", "60"])
    try:
        time.sleep(1.5)
        assert max(waiting.waited(process.pid, process.pid) for process in busy) > 0.3
        assert waiting.all_waited(idle.pid) < 0.2
        assert waiting.all_waited(2**22 + 1) == 0
    finally:
        for process in (*busy, idle):
            process.kill()
            process.wait()


def answer(code, number, architecture, arguments=()):
    """What a filter says of a call, by an interpreter of its few instructions."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *[*arguments, *[0] * 6][:6])
    at, word = 0, 0
    while True:
        operation, equal_, other, value = code[at]
        at += 1
        if operation == seccomp.LOAD:
            word = struct.unpack_from("=I", data, value)[0]
        elif operation == seccomp.EQUAL:
            at += equal_ if word == value else other
        else:
            return value & 0xFFFF if value & 0xFFFF0000 == seccomp.REFUSE else value


@pytest.mark.parametrize("machine", seccomp.CALLS)
def test_the_filter_says_what_its_table_does(machine):
    """Every call of the table is let through, some by their arguments; all others, and all of other machines, are not."""
    code, own = [*struct.iter_unpack("=HBBI", seccomp.assembled(machine))], seccomp.ARCHITECTURES[machine]
    table = dict(entry.split("=") for entry in seccomp.CALLS[machine].split())
    table = {name: int(number) for name, number in table.items()}
    assert len(set(table.values())) == len(table)
    for number in range(600):
        held = [name for name, known in table.items() if known == number]
        if not held:
            assert answer(code, number, own) == 1
        elif held[0] not in seccomp.HELD:
            assert answer(code, number, own) == seccomp.ALLOW
        assert answer(code, number, 0x40000003) == 1
        assert answer(code, number | 0x40000000, own) == 1
    for name, arguments, allowed in [
        ("clone", (0x3D0F00,), True), ("clone", (17,), False), ("clone", (0x3D0F00 | 0x20000000,), False),
        ("clone3", (0,), False), ("fcntl", (0, 3), True), ("fcntl", (0, 8), False), ("ioctl", (0, 0x5421), True),
        ("ioctl", (0, 0x5412), False), ("prlimit64", (0, 7, 0), True), ("prlimit64", (0, 7, 1), False),
        ("prlimit64", (0, 7, 1 << 32), False), ("sendto", (0, 0, 0, 0, 0), True), ("sendto", (0, 0, 0, 0, 1 << 40), False),
        ("socketpair", (1, 1), True), ("socketpair", (1, 2), False), ("socketpair", (2, 1), False),
    ]:  # fmt: skip
        assert (answer(code, table[name], own, arguments) == seccomp.ALLOW) == allowed, (name, arguments)
    assert answer(code, table["clone3"], own) == 38
    assert answer(code, table["ioctl"], own, (0, 1)) == 25


def test_the_profile_of_macos_is_well_formed():
    text = darwin.profile('/opt/a "b"/bin/python', "/opt/py")
    assert text.count("(") == text.count(")")
    assert text.splitlines()[:2] == ["(version 1)", "(deny default)"]
    assert '(literal "/opt/a \\"b\\"/bin/python")' in text
    assert "network-outbound" not in text


@pytest.mark.parametrize("name", ["process", "unsafe", "monty"])
def test_an_interrupt_ends_what_runs(name):
    """Ctrl-C does not wait for programs that have a minute yet, and the sandbox can be used again."""
    # A shell that runs this in its background has it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    if name == "monty":
        pytest.importorskip("pydantic_monty")
    sandbox = build("sandbox", spec(name, workers=2, seconds=60.0))
    endless, good = (Program(source=f"def f():\n    {body}", function="f", calls=[Call()]) for body in LOOP_AND_GOOD)
    assert [each.status for each in sandbox.run([good] * 2)] == ["done"] * 2  # the workers are there
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sandbox.run([endless] * 4)
    assert time.monotonic() - began < 20
    assert [each.status for each in sandbox.run([good] * 2)] == ["done"] * 2
    sandbox.close()
    signal.signal(signal.SIGINT, before)


LOOP_AND_GOOD = ("while True: pass", "return 1")


@LINUX
def test_a_program_may_have_some_threads():
    """Within the memory that it has by default."""
    sandbox = build("sandbox", spec("process", workers=1))
    source = "def f():\n    with ThreadPoolExecutor(16) as pool:\n"
    source = "from concurrent.futures import ThreadPoolExecutor\nfrom threading import Barrier\n" + source
    source += "        return list(pool.map(lambda i, b=Barrier(16): bool(b.wait(2) + 1), range(16)))"
    assert one(sandbox, source).returned[0].value == [True] * 16
    sandbox.close()
