"""The answer, as a formula."""

import contextlib
import json
import queue
import re
import subprocess
import sys
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
from attrs import validators

from lmx_core.config import exact_types
from lmx_core.errors import LmxError
from lmx_rl.rewards.extraction import ExtractionOptions

PROGRAM = Path(__file__).with_name("maths_program.py")
JOBS = 5000
"""After so many a process makes room for a new one: what is in it grows."""
MARKED = re.compile(r"(?<!\\)\$|\\\(|\\\[|\\(?:boxed|fbox)\b|\\begin\{(?:equation|align|math|displaymath)")
"""What says where in a text a formula stands."""
COMMAND = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
WORD = re.compile(r"(?!and\b)[^\W\d_]{3,}")
EXPONENT = re.compile(r"\s*([-+]?[\d.,]+)[eE]([-+]?\d+)\s*")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MathsOptions(ExtractionOptions):
    r"""Options of `reward="maths"`. Where they do not say which part of a completion is its answer, math-verify looks for it:
    a final answer, the last `\boxed{}`, the last formula, the last number.
    """

    time_limit: float = attrs.field(default=2.0, validator=validators.gt(0))
    """Seconds of computing that reading an answer may take, and as many for reading and comparing a completion."""
    workers: int = attrs.field(default=2, validator=validators.ge(1))
    """Processes, at most; they are started when they are needed."""


class Maths:
    r"""1 where the completion's formula is equal to the answer's: 1/2, 0.5, `\frac{1}{2}` and `\boxed{50\%}` are.

    What is equal math-verify says, by sympy, to six decimals. 0 where it does not find it so within the time limit, and where
    there is no formula. None where the answer is missing or cannot be read, or is in words, which would be read as products
    of their letters. What is not worked out is equal, too: 3 + 4 is 7, so that for sums `numeric` is the better one.

    It computes in processes of its own, so that no formula can hold up the one that asks.
    """

    Options = MathsOptions
    concurrent = True

    def __init__(self, options: MathsOptions) -> None:
        if find_spec("math_verify") is None:
            raise LmxError('reward "maths" needs a package more: pip install "lmx-rl[maths]"')
        self.options = options
        self.workers = [Worker() for _ in range(options.workers)]
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self.workers:
            self._idle.put(worker)

    def __call__(self, prompt: str, completion: str, answer: Any = None) -> float | None:
        right = "" if answer is None else as_formula(self.options.of_answer(str(answer)))
        if not right:
            return None
        given = self.options.of_completion(completion)
        if self.options.given:
            given = as_formula(given or "")
        worker = self._idle.get()
        try:
            return worker.judge(float(self.options.time_limit), right, given or "")
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.end()


def as_formula(text: str) -> str:
    """What stands alone, marked as math-verify looks for it; "" where it is no formula."""
    if MARKED.search(text):
        return text
    if WORD.search(COMMAND.sub(" ", text)):
        return ""
    if not text.strip():
        return ""
    number = EXPONENT.fullmatch(text)
    return rf"${number[1]}\cdot 10^{{{number[2]}}}$" if number else f"${text}$"


class Worker:
    """A process that judges, and its successors."""

    what = "math-verify"

    def _program(self) -> Path:
        return PROGRAM

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._jobs = 0

    def judge(self, limit: float, answer: str, completion: str) -> float | None:
        process = self._ready()
        try:
            self._send(process, [limit, answer, completion])
            readable = self._heard(process)
            return float(self._heard(process) is True) if readable else None
        except BaseException:
            self.end()  # what it still says is nobody's answer
            raise

    def end(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _ready(self) -> "subprocess.Popen[str]":
        """The process that there is, or, where it has ended or has done much, a new one."""
        if self._process is not None and (self._jobs >= JOBS or self._process.poll() is not None):
            self.end()
        if self._process is None:
            self._process, self._jobs = self._started(), 0
        self._jobs += 1
        return self._process

    def _started(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-P", str(self._program())]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        weakref.finalize(self, _end, process)
        if self._heard(process) is not True:
            _end(process)
            raise LmxError(f"{self.what} does not start. Try: {' '.join(command)}")
        return process

    def _send(self, process: "subprocess.Popen[str]", job: list[Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()

    def _heard(self, process: "subprocess.Popen[str]") -> bool | None:
        """What it says next; None where it has ended."""
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait()
            return None
        return json.loads(line)


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    with contextlib.suppress(OSError), process:  # what was not sent cannot be sent any more
        pass
