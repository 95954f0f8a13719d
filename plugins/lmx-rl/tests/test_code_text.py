"""What of a completion is code."""

import time

import pytest

from lmx_core import build, spec
from lmx_rl.rewards.code_text import program_text

pytestmark = pytest.mark.once

PREAMBLE = "from math import pi\n\n\n"
PROMPT = f'{PREAMBLE}def f(x: int) -> int:\n    """Next.\n\n    >>> f(1)\n    2\n    """\n'


def run(completion, prompt=PROMPT, function="f"):
    """What f(1) is in the program that a completion makes."""
    found = {}
    exec(program_text(prompt, completion, function), found)
    return found[function](1)


WHOLE = "def f(x):\n    return x + 1\n"
COMPLETIONS = {
    "the body": "    return x + 1\n",
    "the body after a line": "\n    return x + 1",
    "the body without its last line break": "    return x + 1",
    "the whole function": WHOLE,
    "a fence": f"Here it is:\n\n```python\n{WHOLE}```\nDone.",
    "a fence without a language": f"```\n{WHOLE}```",
    "a fence that was cut off": f"```python\n{WHOLE}",
    "the body in a fence": "```python\n    return x + 1\n```",
    "a fence that is indented": "1. It is\n   ```python\n   def f(x):\n       return x + 1\n   ```\n",
    "the last fence that has the function": f"```\ndef f(x):\n    return x\n```\nNo:\n```py\n{WHOLE}```\n```\nf(1)\n```",
    "a body that ends with a fence": "    return x + 1\n```\n\nThat was f.\n```python\ndef f(x): return 0\n```",
    "helpers after it": "    return g(x)\n\n\ndef g(x):\n    return h(x) + K\n\n\nh = lambda x: x\nK: int = 1\n",
    "helpers before it": f"K = 1\ndef g(x):\n    return x + K\n{WHOLE.replace('x + 1', 'g(x)')}",
    "an import after it": "    return ceil(x + 0.5)\n\nfrom math import ceil\n",
    "a constant used in a formatted string": "    return int(f'{K}')\n\nK = 2\n",
    "what runs after it": "    return x + 1\n\nprint(f(1))\nassert f(1) == 3\nraise SystemExit\n",
    "another problem after it": "    return x + 1\n\n\ndef g(y):\n    return (y +",
    "another answer after it": "    return x + 1\n\n\ndef f(x):\n    return 7\n",
    "a string without an end after it": '    return x + 1\n\n"""What',
    "a string without an end after no empty line": '    return x + 1\n"""What',
    "prose after it": "    return x + 1\n\nThis isn't hard.\n",
    "text at the left margin in a string": "    s = '''\nabc\n'''\n    return x + 1 if 'abc' in s else 0\n",
    "an if at the left margin": "if True:\n    K = 1\nelse:\n    K = 2\n" + WHOLE.replace("1", "K"),
    "decorated": f"from functools import cache\n\n\n@cache\n{WHOLE}",
    "what must come first": f"from __future__ import annotations\n\n{WHOLE}",
    "what the prompt has before it": WHOLE.replace("x + 1", "x + round(pi) - 2"),
    "lines that end otherwise": WHOLE.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("which", COMPLETIONS)
def test_the_function_is_found_in(which):
    assert run(COMPLETIONS[which]) == 2


BROKEN = {
    "nothing": "",
    "prose": "I cannot do that.",
    "another function": "def g(x):\n    return x + 1\n",
    "a statement that is cut off": "    return (x + 1",
    "a string that is cut off": '    s = """abc\n    return x + 1\n',
    "a null byte": "    return x + 1\x00\n",
    "half a character": "    return x + 1 \ud800\n",
    "deeply nested": "    return " + "(" * 100_000,
    "signs without end": "    return " + "-" * 100_000 + "x",
    "no indentation": "return x + 1\n",
    "two indentations": "        a = 1\n      return x + 1\n",
}


def test_what_is_no_function_makes_no_error_here_and_passes_no_test():
    """A sandbox runs it, which is still there for what comes after."""
    texts = [*BROKEN.values(), WHOLE]
    answer = {"prompt": PROMPT, "function": "f", "tests": [{"args": [1], "expected": 2}]}
    reward = build("reward", spec("code_tests", sandbox="process", minimum="process"))
    assert reward.all([PROMPT] * len(texts), texts, [answer] * len(texts)) == [0.0] * len(BROKEN) + [1.0]
    reward.close()


def test_a_prompt_with_helpers_keeps_them():
    prompt = 'def g(x):\n    return x + 1\n\n\ndef f(x):\n    """As g."""\n'
    assert run("    return g(x)\n", prompt) == run("```\ndef f(x):\n    return g(x)\n```", prompt) == 2


def test_of_two_functions_the_named_one_is_completed():
    """A name that begins alike is another one."""
    assert run("def f2(x):\n    return 3\n\ndef f(x):\n    return x + 1\n") == 2
    assert "f2" not in program_text(PROMPT, "    return x + 1\n\ndef f2(x):\n    return 3\n", "f")


LONG = 100_000
TEDIOUS = {
    "spaces": " " * LONG,
    "decorators": "@a\n" * (LONG // 3),
    "helpers that use one another": f"{WHOLE}h = g0\n".replace("1", "h()")
    + "".join(f"def g{i}():\n    return g{i + 1}()\n" for i in range(LONG // 30)),
    "a subscript without end": f"{WHOLE}a[{' ' * LONG}\n".replace("1", "a"),
}


@pytest.mark.parametrize("which", TEDIOUS)
def test_a_long_text_takes_time_in_proportion_to_its_length(which):
    """Milliseconds, and minutes where it grows as the square."""
    began = time.process_time()
    program_text(PROMPT, TEDIOUS[which], "f")
    assert time.process_time() - began < 3
