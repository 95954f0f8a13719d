"""The program that looks for a pattern; `regex.py` starts it, and nothing imports it.

It is spoken to as `maths_program.py`: `[limit, pattern, text]` comes in, `true` goes out, and then whether it is found. The
system ends the process when `limit` seconds of computing are over.
"""

import json
import re
import signal
import sys


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; whoever started this ends it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    say(True)
    for line in sys.stdin:
        limit, pattern, text = json.loads(line)
        expression = re.compile(pattern)
        say(True)
        signal.setitimer(signal.ITIMER_PROF, limit)
        found = expression.search(text) is not None
        signal.setitimer(signal.ITIMER_PROF, 0)
        say(found)


def say(what: bool) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
