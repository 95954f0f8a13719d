"""Programs that are out for a reward that they have not earned, or for the machine."""

import importlib.util
import os
import secrets
import socket
import sys
import tempfile
from pathlib import Path

import attrs
import pytest

from lmx_core import build, spec
from lmx_rl.sandbox import Call, Isolation, Program, equal

EXPECTED = "token-" + secrets.token_hex(16)
"""What each program is to return: it is not told."""
SECRET = "LMX_SANDBOX_SECRET"
LIMIT = 0.3 + os.getpid() * 1e-9
"""Seconds, and what the processes of these tests are known by."""
TRACES = ["/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), "/"]
UNSUPPORTED, FAILED, MEMORY, TIME, OUTPUT = "unsupported", "failed", "memory", "time", "output"


def raised(*names):
    """The call was made and ended with one of these errors."""
    return {"error": names}


def gave(value):
    """The call was made and gave this value, which is not what was expected."""
    return {"value": value}


DENIED = raised("PermissionError")
REFUSED = raised("PermissionError", "FileNotFoundError")
NO_VALUE = raised("TypeError: a ")


@attrs.frozen
class Hostile:
    """A program, and what it comes to in a process and in Monty; None where the latter has no such thing."""

    name: str
    source: str
    process: object
    monty: object = UNSUPPORTED


def calls(body):
    """A source whose function `f(folder, pid)` has this body."""
    return "def f(folder, pid):\n" + "\n".join("    " + line for line in body.strip().splitlines())


def tries(*lines):
    """A source whose function tries each line, and returns those that did not raise."""
    tried = "\n".join(
        f"try:\n    {line}\n    done.append({line!r})\nexcept (OSError, ValueError):\n    pass" for line in lines
    )
    return "import os, signal, resource, socket, subprocess, sys, tempfile\n" + calls(
        "done = []\n" + tried + "\nreturn done"
    )


LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.syscall.restype = ctypes.c_long\n"
PROGRAMS = [
    # processes
    Hostile("fork bomb", "import os\n" + calls("while True:\n    os.fork()"), DENIED),
    Hostile(
        "patient fork bomb",
        "import os\n" + calls("while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"),
        TIME,
    ),
    Hostile(
        "double fork into a session of its own",
        "import os, time\n"
        + calls("if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(60)\n    os._exit(0)"),
        DENIED,
    ),
    Hostile("session of its own", "import os\n" + calls("os.setsid()"), DENIED),
    Hostile("vfork by hand", LIBC + calls("return libc.syscall(58), libc.fork()"), gave((-1, -1))),
    Hostile("background child", "import subprocess\n" + calls("subprocess.Popen(['sleep', '60'])\nreturn 1"), DENIED),
    Hostile("another binary", "import os\n" + calls("os.execv('/bin/sh', ['sh', '-c', 'true'])"), DENIED),
    Hostile("the same binary", "import os, sys\n" + calls("os.execv(sys.executable, ['python'])"), DENIED),
    Hostile("a shell", "import os\n" + calls("return os.system('true') == 0"), gave(False)),
    Hostile("posix_spawn", "import os\n" + calls("os.posix_spawn('/bin/true', ['true'], {})"), DENIED),
    Hostile(
        "multiprocessing",
        "import multiprocessing\n" + calls("p = multiprocessing.Process(target=print)\np.start()\np.join()"),
        raised("PermissionError", "OSError"),
    ),
    Hostile(
        "threads without end",
        "import threading, time\n" + calls("while True:\n    threading.Thread(target=time.sleep, args=(60,)).start()"),
        raised("RuntimeError: can't start new thread"),
    ),
    Hostile(
        "a thread left running",
        "import threading, time\n" + calls("threading.Thread(target=time.sleep, args=(60,)).start()\nreturn 1"),
        gave(1),
    ),
    Hostile(
        "a daemon that prints on",
        "import threading\n"
        + calls(
            "def on():\n    while True:\n        print('x')\nthreading.Thread(target=on, daemon=True).start()\nreturn 1"
        ),
        gave(1),
    ),
    # memory, time, output
    Hostile("memory by and by", calls("x = []\nwhile True:\n    x.append([0] * 1000)"), MEMORY, MEMORY),
    Hostile("memory at once", calls("return len([0] * 10 ** 10)"), MEMORY, MEMORY),
    Hostile("memory as it is loaded", "x = 'a' * 10 ** 11", MEMORY, MEMORY),
    Hostile(
        "mapped memory",
        "import mmap\n" + calls("return len(mmap.mmap(-1, 10 ** 10))"),
        raised("OSError: [Errno 12]", "MemoryError"),
    ),
    Hostile("a list without end", calls("return list(iter(int, 1))"), (MEMORY, TIME), (MEMORY, TIME)),
    Hostile("an endless loop", calls("while True:\n    pass"), TIME, TIME),
    Hostile("an endless loop as it is loaded", "while True:\n    pass", TIME, TIME),
    Hostile(
        "a loop that will not hear",
        "import signal\nfor number in range(1, 32):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except OSError:\n        pass\n" + calls("while True:\n    pass"),
        TIME,
    ),
    Hostile(
        "a loop that catches everything",
        calls("while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"),
        TIME,
        TIME,
    ),
    Hostile("sleep", "import time\n" + calls("time.sleep(60)"), TIME, TIME),
    Hostile("a long pattern", "import re\n" + calls("re.match('(a+)+$', 'a' * 40 + 'b')"), TIME, gave(None)),
    Hostile("a long product", calls("x = 7 ** 30_000_000\nreturn 1"), TIME, (TIME, MEMORY)),
    Hostile("endless output", calls("while True:\n    print('passed' * 100)"), OUTPUT, OUTPUT),
    Hostile("endless errors", "import os\n" + calls("while True:\n    os.write(2, b'x' * 1000)"), OUTPUT),
    Hostile("output as it is loaded", "while True:\n    print('x' * 1000)", OUTPUT, OUTPUT),
    # what it may not see
    Hostile("a file outside", calls("return open(folder + '/secret').read()"), DENIED, DENIED),
    Hostile("a file by a way around", calls("return open('/usr/..' + folder + '/secret').read()"), DENIED, DENIED),
    Hostile("writing outside", calls("open(folder + '/made', 'w').write('x')"), DENIED, DENIED),
    Hostile(
        "changing what is there",
        tries(
            "os.remove(folder + '/secret')",
            "os.rename(folder + '/secret', folder + '/made')",
            "os.truncate(folder + '/secret', 0)",
            "os.chmod(folder + '/secret', 0)",
            "os.utime(folder + '/secret', (0, 0))",
            "os.mkdir(folder + '/made')",
            "os.rmdir(folder)",
            "os.mkfifo(folder + '/made')",
            "os.setxattr(folder + '/secret', 'user.x', b'x')" if sys.platform == "linux" else "os.listdir('/')",
        ),
        gave([]),
    ),
    Hostile(
        "links",
        tries(
            "os.symlink('/etc/passwd', 'made')",
            "os.symlink('/etc/passwd', folder + '/made')",
            "os.link(folder + '/secret', folder + '/made')",
            "os.link(folder + '/secret', 'made')",
        ),
        gave([]),
    ),
    Hostile(
        "files in every place",
        tries(
            *(f"open({place!r} + '/lmx-hostile', 'w').write('x')" for place in TRACES), "open('made', 'w').write('x')"
        ),
        gave([]),
    ),
    Hostile("a temporary file", "import tempfile\n" + calls("tempfile.mkstemp()"), REFUSED),
    Hostile(
        "shared memory",
        "from multiprocessing import shared_memory\n"
        + calls("shared_memory.SharedMemory('lmx-hostile', True, 10)\nreturn 1"),
        raised("PermissionError", "OSError"),
    ),
    Hostile(
        "looking around",
        tries(
            *(f"os.listdir({place!r})" for place in ("/", "/home", "/proc", "/tmp", ".")),
            "os.listdir(folder)",
            "open('/etc/passwd').read()",
            "open('/proc/self/environ').read()",
            "open('/proc/self/mem', 'r+b')",
            "open('/proc/1/cmdline').read()",
            "open(f'/proc/{pid}/environ').read()",
            "open(f'/proc/{pid}/maps').read()",
            "open('/dev/null').read()",
        ),
        gave([]),
    ),
    Hostile("the environment", "import os\n" + calls("return dict(os.environ)"), gave({})),
    Hostile(
        "the environment as C sees it",
        LIBC + "libc.getenv.restype = ctypes.c_char_p\n" + calls(f"return libc.getenv(b'{SECRET}')"),
        gave(None),
    ),
    Hostile(
        "the packages of those who judge",
        calls(
            """
found = []
for name in ("lmx_rl", "lmx_core", "mlx", "numpy", "attrs"):
    try:
        __import__(name)
        found.append(name)
    except ImportError:
        pass
return found
"""
        ),
        gave([]),
    ),
    Hostile("standard input", calls("return input()"), raised("EOFError")),
    # the network
    Hostile(
        "the network",
        tries(
            "socket.create_connection(('127.0.0.1', 80), 1)",
            "socket.socket().bind(('127.0.0.1', 0))",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
            "socket.socket(socket.AF_INET6)",
            "socket.socket(socket.AF_UNIX).connect(folder + '/socket')",
            "socket.socket(socket.AF_UNIX).bind('\\0lmx-hostile')",
            "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', folder + '/datagrams')",
            "socket.getaddrinfo('localhost', 80)",
        ),
        gave([]),
    ),
    # other processes
    Hostile(
        "signals to those above it",
        tries(
            "os.kill(pid, signal.SIGTERM)",
            "os.kill(os.getppid(), signal.SIGKILL)",
            "os.kill(-1, signal.SIGKILL)",
            "os.killpg(0, signal.SIGKILL)",
            "os.kill(1, 0)",
            "os.kill(os.getpid(), signal.SIGSTOP)",
            "signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL)"
            if sys.platform == "linux"
            else "os.kill(1, 0)",
        ),
        gave([]),
    ),
    Hostile(
        "a signal by way of a file",
        "import fcntl, os\n" + calls("a, b = os.pipe()\nfcntl.fcntl(a, fcntl.F_SETOWN, pid)"),
        DENIED,
    ),
    Hostile(
        "the memory of those above it",
        LIBC
        + "import os\n"
        + calls(
            """
room = (ctypes.c_char * 64)()
part = (ctypes.c_uint64 * 2)(ctypes.addressof(room), 64)
return [libc.ptrace(16, who, 0, 0) for who in (pid, os.getppid())] + [
    libc.process_vm_readv(who, part, 1, part, 1, 0) for who in (pid, os.getppid())
]
"""
        ),
        gave([-1] * 4),
    ),
    Hostile(
        "rarer system calls",
        LIBC
        + calls(
            """
unshare, mount, memfd, bpf, perf, keys, ring, userfault, shm, reboot, module, setns = (
    272, 165, 319, 321, 298, 250, 425, 323, 29, 169, 175, 308)
return [libc.syscall(n, 0, 0, 0, 0, 0) for n in (
    unshare, mount, memfd, bpf, perf, keys, ring, userfault, shm, reboot, module, setns, 512 + 59, 0x40000000)]
"""
        ),
        gave([-1] * 14),
    ),
    Hostile(
        "lifting its limits",
        tries(
            *(
                f"resource.setrlimit(resource.RLIMIT_{name}, (resource.RLIM_INFINITY,) * 2)"
                for name in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC")
            ),
            "resource.prlimit(pid, resource.RLIMIT_CPU, (0, 0))" if sys.platform == "linux" else "os.listdir('/')",
            "os.nice(-10)",
            "os.setuid(1)",
            "os.chroot('/')",
        ),
        gave([]),
    ),
    # leaving
    Hostile("sys.exit as it is loaded", "import sys\nsys.exit(0)", FAILED),
    Hostile("SystemExit", calls("raise SystemExit(0)"), raised("SystemExit: 0"), (UNSUPPORTED, "done")),
    Hostile("os._exit as it is loaded", "import os\nos._exit(0)", FAILED),
    Hostile("os._exit", "import os\n" + calls("os._exit(0)"), FAILED),
    Hostile(
        "atexit",
        "import atexit, os, sys\natexit.register(os.write, 1, b'passed')\natexit.register(input)\n"
        + calls("sys.exit(0)"),
        raised("SystemExit"),
    ),
    Hostile("abort", "import os\n" + calls("os.abort()"), FAILED),
    Hostile("a crash", "import ctypes\n" + calls("ctypes.string_at(0)"), FAILED),
    Hostile("a crash as it is loaded", "import ctypes\nctypes.memset(8, 1, 1000)", FAILED),
    Hostile("deep recursion", calls("return f(folder, pid)"), raised("RecursionError"), raised("RecursionError")),
    Hostile(
        "deeper recursion",
        "import sys\nsys.setrecursionlimit(10 ** 9)\n" + calls("return [f(folder, pid)]"),
        (MEMORY, FAILED, TIME, raised("SystemError")),  # as far as it comes in its time
    ),
    Hostile(
        "recursion in C",
        "import sys\nsys.setrecursionlimit(10 ** 9)\n"
        + calls("x = []\nfor _ in range(10 ** 5):\n    x = [x]\nreturn len(repr(x))"),
        (MEMORY, FAILED, TIME),
    ),
    Hostile("no such function", "def g(folder, pid):\n    return 1", FAILED, FAILED),
    Hostile("no function", "f = 'passed'", raised("TypeError"), raised("TypeError")),
    Hostile("no Python", "def f(:", FAILED, FAILED),
    Hostile("many brackets", "x = " + "(" * 10_000 + ")" * 10_000, FAILED, (FAILED, "broken")),
    Hostile("a null", "def f(a, b):\n    return 1\n\0", FAILED, FAILED),
    Hostile("half a character", "def f(a, b):\n    return '\ud800'\n", FAILED, (FAILED, "done")),
    # the judge
    Hostile("print", calls("print('passed')\nprint('[\"value\", \"passed\"]')"), gave(None), gave(None)),
    Hostile(
        "overwritten builtins",
        "import builtins\nfor name in ('isinstance', 'type', 'len', 'repr', 'all', 'hash'):\n"
        "    setattr(builtins, name, lambda *args: True)\n" + calls("return 'x'"),
        (FAILED, "done"),
        (UNSUPPORTED, "done"),
    ),
    Hostile(
        "overwritten harness",
        "import json, os, sys\nyes = lambda *args, **kwargs: 'passed'\njson.dumps = json.loads = yes\n"
        "for name in ('packed', 'framed', 'unpacked'):\n    setattr(sys.modules['child.harness'], name, yes)\n"
        + calls("return 'x'"),
        (FAILED,),
    ),
    Hostile(
        "overwritten write", "import os\nos.write = lambda file, data: len(data)\n" + calls("return 1"), (FAILED, TIME)
    ),
    Hostile(
        "searching frames",
        "import sys\n"
        + calls(
            """
frame, found = sys._getframe(), []
while frame:
    for name, value in [*frame.f_locals.items(), *frame.f_globals.items()]:
        if name != "found" and "token-" + "" in repr(value).replace("'token-'", ""):
            found.append(name)
    frame = frame.f_back
return [name for name in found if name not in ("source", "request", "frame", "value")]
"""
        ),
        gave([]),
    ),
    Hostile(
        "searching all objects",
        "import gc, re\n"
        + calls(
            """
token = re.compile("token-" + "[0-9a-f]{32}")
seen = [x for x in gc.get_objects() if isinstance(x, (dict, list, tuple))]
return sorted({found for x in seen for y in (x.values() if isinstance(x, dict) else x) if isinstance(y, str)
               for found in token.findall(y)})
"""
        ),
        gave([]),
    ),
    Hostile(
        "tracing the harness",
        "import sys\ndef trace(frame, event, argument):\n    frame.f_trace_opcodes = True\n    return trace\n"
        "sys.settrace(trace)\nsys.setprofile(lambda *args: None)\nframe = sys._getframe()\n"
        "while frame:\n    frame.f_trace = trace\n    frame = frame.f_back\n" + calls("return 1"),
        (gave(1), FAILED, TIME),
    ),
    Hostile(
        "leaving by tracing",
        "import os, sys\ndef trace(frame, event, argument):\n    os._exit(0)\nsys.setprofile(trace)\n"
        + calls("return 1"),
        FAILED,
    ),
    Hostile(
        "import hooks",
        "import sys, types\nclass Finder:\n    def find_spec(self, *args):\n        raise SystemExit(0)\n"
        "sys.meta_path.insert(0, Finder())\nfor name in list(sys.modules):\n    sys.modules[name] = types.ModuleType(name)\n"
        + calls("import json\nreturn json.dumps(1)"),
        raised("AttributeError"),
    ),
    Hostile(
        "writing to every file",
        "import os\n"
        + calls(
            "for file in range(64):\n    try:\n        os.write(file, b'passed' * 100)\n    except OSError:\n        pass"
        ),
        (FAILED, OUTPUT),
    ),
    Hostile(
        "a length without end",
        "import os\n"
        + calls(
            "for file in range(3, 64):\n    try:\n        os.write(file, b'\\xff' * 4)\n    except OSError:\n        pass"
        ),
        OUTPUT,
    ),
    Hostile(
        "half a frame",
        "import os, time\n"
        + calls(
            "for file in range(3, 64):\n    try:\n        os.write(file, b'\\0\\0\\0\\x50[')\n    except OSError:\n"
            "        pass\ntime.sleep(60)"
        ),
        TIME,
    ),
    Hostile(
        "frames of its own",
        "import os, struct\n"
        + calls(
            """
for file in range(3, 64):
    for text in (b'["value","passed"]', b'["value","passed"]', b'["done"]'):
        try:
            os.write(file, struct.pack("!I", len(text)) + text)
        except OSError:
            pass
"""
        ),
        gave("passed"),
    ),
    *(
        Hostile(
            f"a frame of {name}",
            "import os, struct\n"
            + calls(
                f"text = {text}\nfor file in range(3, 64):\n    try:\n"
                "        os.write(file, struct.pack('!I', len(text)) + text)\n    except OSError:\n        pass"
            ),
            FAILED,
        )
        for name, text in {
            "no JSON": "b'passed'",
            "no words": "b'{}'",
            "an unknown word": "b'[\"done\"]'",
            "too many words": "b'[\"value\",1,2]'",
            "brackets": "b'[\"value\",' + b'[' * 50_000 + b']' * 50_000 + b']'",
            "digits": "b'[\"value\",' + b'9' * 100_000 + b']'",
            "infinity": "b'[\"value\",Infinity]'",
            "no such tag": 'b\'["value",{"x":1}]\'',
            "a set of lists": 'b\'["value",{"s":[[]]}]\'',
            "bytes": "b'\\xff\\xfe'",
            "one hash": 'b\'["value",{"s":[\' + b\',\'.join(b\'{"i":"%x"}\' % (i * (2**61 - 1)) for i in range(3000))'
            " + b']}]'",
        }.items()
    ),
    Hostile("closing every file", "import os\n" + calls("os.closerange(0, 64)"), FAILED),
    Hostile(
        "closing every file and staying",
        "import os\n" + calls("os.closerange(0, 64)\nwhile True:\n    pass"),
        FAILED,
    ),
    # what it returns
    *(
        Hostile(
            f"a {kind} equal to everything",
            f"class Yes({kind}):\n    __eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\n"
            "    __hash__ = lambda self: 0\n    __class__ = property(lambda self: str)\n" + calls("return Yes()"),
            NO_VALUE,
        )
        for kind in ("str", "int", "float", "list", "dict", "tuple", "bytes")
    ),
    Hostile(
        "an object equal to everything",
        "class Yes:\n    def __eq__(self, other):\n        return True\n" + calls("return Yes()"),
        NO_VALUE,
        NO_VALUE,
    ),
    Hostile(
        "a value with a trick in it",
        "class Yes(str):\n    pass\n" + calls("return {'a': [1, (Yes(),)]}"),
        NO_VALUE,
    ),
    Hostile(
        "a pickle",
        "import os\nclass Run:\n    def __reduce__(self):\n        return os.system, ('true',)\n"
        + calls("return Run()"),
        NO_VALUE,
        (NO_VALUE, UNSUPPORTED),
    ),
    Hostile(
        "a class with a name of its own",
        "class Meta(type):\n    __name__ = property(lambda self: 1 / 0)\nclass A(metaclass=Meta):\n    pass\n"
        + calls("return A()"),
        raised("ZeroDivisionError"),
    ),
    Hostile("a generator", calls("return (x for x in 'passed')"), NO_VALUE, gave([*"passed"])),
    Hostile("a function", calls("return f"), NO_VALUE, NO_VALUE),
    Hostile("a coroutine", "async def g():\n    return 1\n" + calls("return g"), NO_VALUE, NO_VALUE),
    Hostile("much text", calls("return 'x' * 10 ** 6"), OUTPUT, OUTPUT),
    Hostile(
        "more than there is", calls("return ['x' * 10 ** 6] * 10 ** 6"), (MEMORY, TIME, OUTPUT), (MEMORY, TIME, OUTPUT)
    ),
    Hostile("a list of itself", calls("x = []\nx.append(x)\nreturn x"), raised("TypeError"), raised("TypeError")),
    Hostile(
        "a list of the same",
        calls("x = [1]\nfor _ in range(60):\n    x = [x, x]\nreturn x"),
        (TIME, MEMORY),
        (TIME, MEMORY),
    ),
    Hostile(
        "a deep list",
        calls("x = []\nfor _ in range(10 ** 4):\n    x = [x]\nreturn x"),
        raised("TypeError"),
        raised("TypeError"),
    ),
    Hostile("a long integer", calls("return 1 << 10 ** 7"), raised("TypeError"), raised("TypeError")),
    Hostile("half a pair", calls("return '\\ud800'"), gave("\ud800"), gave("\ufffd")),
    Hostile("keys of one hash", calls("return {i * (2 ** 61 - 1) for i in range(1000)}"), FAILED, FAILED),
    # what it raises
    Hostile("a long error", calls("raise ValueError('x' * 10 ** 6)"), raised("ValueError"), raised("ValueError")),
    Hostile("a long error as it is loaded", "raise ValueError('\\ud800' * 10 ** 6)", FAILED, FAILED),
    Hostile(
        "an error that cannot be told",
        "class E(Exception):\n    def __str__(self):\n        raise E\n" + calls("raise E"),
        raised("an error that cannot be told"),
    ),
    Hostile(
        "an error without end",
        "class E(BaseException):\n    def __str__(self):\n        while True:\n            pass\n" + calls("raise E"),
        TIME,
    ),
    Hostile("an interrupt", calls("raise KeyboardInterrupt"), raised("KeyboardInterrupt"), (UNSUPPORTED, "done")),
]
SANDBOXES = ["process", "monty"]
CASES = [
    pytest.param(name, hostile, id=f"{name}-{hostile.name}", marks=pytest.mark.once if name == "process" else [])
    for name in SANDBOXES
    for hostile in PROGRAMS
    if hostile.monty is not None or name == "process"
]


@pytest.fixture(scope="module")
def sandboxes():
    """One of each that can be had here, with short limits and one worker."""
    os.environ[SECRET] = EXPECTED
    names = [name for name in SANDBOXES if name == "process" or importlib.util.find_spec("pydantic_monty")]
    options = {"seconds": LIMIT, "memory_mb": 64, "output_kb": 200, "workers": 1}
    made = {name: build("sandbox", spec(name, **options)) for name in names}
    yield made
    for sandbox in made.values():
        sandbox.close()
    del os.environ[SECRET]
    assert not templates()


def templates():
    """Processes of the sandbox here, and what was forked of them."""
    if sys.platform != "linux":
        return set()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if repr(LIMIT).encode() in command:
            found.add(int(folder.name))
    return found


def good(sandbox):
    program = Program(source=calls("return [len(folder), pid + 1]"), function="f", calls=[Call(args=["four", 4])])
    (outcome,) = sandbox.run([program])
    return outcome.status == "done" and outcome.returned[0].value == [4, 5]


def fits(outcome, expected):
    if isinstance(expected, tuple):
        return any(fits(outcome, one) for one in expected)
    if isinstance(expected, str):
        return outcome.status == expected
    if outcome.status != "done":
        return False
    (returned,) = outcome.returned
    if "error" in expected:
        return returned.error is not None and returned.error.startswith(expected["error"])
    return returned.error is None and equal(returned.value, expected["value"])


@pytest.mark.parametrize(("name", "hostile"), CASES)
def test_a_hostile_program_gets_nothing_and_leaves_nothing(name, hostile, sandboxes, tmp_path):
    """It ends as it is said to, without the value that was expected; nothing is changed, and the next program runs."""
    if name not in sandboxes:
        pytest.skip("pydantic-monty is not installed")
    sandbox = sandboxes[name]
    if name == "process" and sandbox.isolation < Isolation.SYSTEM:
        pytest.skip("this kernel has not both Landlock and seccomp, or this machine no Seatbelt")
    (tmp_path / "secret").write_text(EXPECTED)
    stamp = (tmp_path / "secret").stat()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        here = os.open(tmp_path, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket" if sys.platform == "linux" else str(tmp_path / "socket"))
        datagrams.bind(f"/proc/self/fd/{here}/datagrams" if sys.platform == "linux" else str(tmp_path / "datagrams"))
        os.close(here)
        listener.listen()
        datagrams.setblocking(False)
        assert good(sandbox)
        before = templates()
        program = Program(source=hostile.source, function="f", calls=[Call(args=[str(tmp_path), os.getpid()])])
        (outcome,) = sandbox.run([program])
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)

    assert fits(outcome, getattr(hostile, name)), outcome
    assert EXPECTED not in repr(outcome)
    assert outcome.known == (outcome.status not in ("unsupported", "broken"))
    assert not any(equal(given.value, EXPECTED) for given in outcome.returned)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datagrams", "secret", "socket"]
    now = (tmp_path / "secret").stat()
    assert (now.st_mtime_ns, now.st_mode, now.st_size) == (stamp.st_mtime_ns, stamp.st_mode, stamp.st_size)
    assert not [trace for place in {*TRACES, tempfile.gettempdir()} for trace in Path(place).glob("lmx-hostile*")]
    assert templates() == before
    assert good(sandbox)


@pytest.mark.once
@pytest.mark.parametrize("search", ["searching frames", "searching all objects"])
def test_what_is_told_is_found(search, sandboxes):
    """The programs that search for what is expected would find it, had they been told."""
    source = next(hostile.source for hostile in PROGRAMS if hostile.name == search)
    program = Program(source=source, function="f", calls=[Call(args=["token-" + 32 * "a", 0])])
    (outcome,) = sandboxes["process"].run([program])
    assert outcome.returned[0].value


@pytest.mark.once
def test_there_are_programs_enough():
    assert len({hostile.name for hostile in PROGRAMS}) == len(PROGRAMS) >= 40
