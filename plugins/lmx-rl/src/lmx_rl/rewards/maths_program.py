"""The program that says whether formulas are equal; `maths.py` starts it, and nothing imports it.

Lines of JSON come in and go out, answered in order: `[limit, answer, completion]`, then `true` or `false` whether the
answer could be read, and, if so, whether the completion is equal to it. The system ends the process when `limit` seconds of
computing are over, in whatever it is then.
"""

import contextlib
import json
import logging
import resource
import signal
import sys
from typing import Any

MEMORY = 2 << 30
"""Bytes of address space, where the system can limit it: 10^10^10 would have them all."""
PATIENCE = 10
"""So many times the limit may pass on the clock, on a machine that has other things to do."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; whoever started this ends it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    say(equal(parsed(r"$\frac{1}{2}$"), parsed("0.5")))  # imported by now, and as slow as it is at first
    for line in sys.stdin:
        answer_to(*json.loads(line))


def answer_to(limit: float, answer: str, completion: str) -> None:
    within(limit)
    right = tried(parsed, answer)
    say(bool(right))
    if right:
        within(limit)
        given = tried(parsed, completion)
        say(bool(given) and tried(equal, right, given) is True)


def within(limit: float) -> None:
    """With 0 time no longer counts."""
    signal.setitimer(signal.ITIMER_PROF, limit)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * limit)


def tried(function: Any, *args: Any) -> Any:
    """None where it raises; a library that reads whatever a model wrote raises anything."""
    try:
        return function(*args)
    except Exception:
        return None


def parsed(text: str) -> Any:
    import math_verify

    parse: Any = math_verify.parse  # whose timeout may be None, which its annotation does not say
    return parse(text, parsing_timeout=None, extraction_mode="first_match")


def equal(right: Any, given: Any) -> Any:
    from math_verify import verify

    return verify(right, given, timeout_seconds=None)


def say(what: bool) -> None:
    within(0)  # what is said counts
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
