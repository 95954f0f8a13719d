"""Right solutions of small problems, as sandboxes run them: none is the worse for it."""

import importlib.util
import inspect

import pytest

from lmx_core import build, spec
from lmx_rl.sandbox import Call, Program, equal

MONTY = pytest.mark.skipif(importlib.util.find_spec("pydantic_monty") is None, reason="no pydantic-monty")
PROBLEMS, REST = [], []
"""What both can run, and what needs more of Python than Monty has: function, calls, what they give."""


def solves(*cases, problems=PROBLEMS):
    """A solution, with pairs of arguments and what they give."""

    def keep(function):
        problems.append((function, [args for args, _ in cases], [value for _, value in cases]))
        return function

    return keep


@solves((("a b  c",), "c b a"), (("",), ""))
def reverse_words(s):
    return " ".join(s.split()[::-1])


@solves(((7,), True), ((9,), False), ((1,), False))
def is_prime(n):
    return n > 1 and all(n % i for i in range(2, int(n**0.5) + 1))


@solves(((10,), 55), ((100,), 354224848179261915075))
def fib(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


@solves((([1, 2],), 1.5), (([0.1, 0.2, 0.3],), 0.2))
def mean(numbers):
    return sum(numbers) / len(numbers)


@solves((("aab",), {"a": 2, "b": 1}), (("",), {}))
def letters(s):
    from collections import Counter

    return Counter(s)


@solves((([1, [2, [3, []]]],), [1, 2, 3]))
def flatten(x):
    return [z for y in x for z in (flatten(y) if isinstance(y, list) else [y])]


@solves((([("a", 1), ("b", 2), ("c", 2)],), [("b", 2), ("c", 2), ("a", 1)]))
def ranked(pairs):
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


@solves((("a@b.c, x.y@z.w",), ["a@b.c", "x.y@z.w"]))
def addresses(s):
    import re

    return re.findall(r"[\w.]+@[\w.]+", s)


@solves(((1, -3, 2), (1.0, 2.0)))
def roots(a, b, c):
    import math

    d = math.sqrt(b * b - 4 * a * c)
    return (-b - d) / (2 * a), (-b + d) / (2 * a)


@solves(((12, 18), (6, 36)))
def divisor_and_multiple(a, b):
    import math

    return math.gcd(a, b), a * b // math.gcd(a, b)


@solves((("xyz!", 3), "abc!"))
def caesar(s, k):
    return "".join(chr((ord(c) - 97 + k) % 26 + 97) if c.islower() else c for c in s)


@solves((([1, 2, 3], [2, 3, 4]), {2, 3}))
def common(x, y):
    return set(x) & set(y)


@solves((([[1, 2], [3, 4]],), [[1, 3], [2, 4]]))
def transpose(rows):
    return [list(row) for row in zip(*rows)]  # noqa: B905


@solves((("(())",), True), ((")(",), False))
def balanced(s):
    depth = 0
    for c in s:
        depth += (c == "(") - (c == ")")
        if depth < 0:
            return False
    return depth == 0


@solves(((["a", "bbb", "cc"],), "bbb"))
def longest(words):
    return max(words, key=len) if words else None


@solves((("é",), ("c3a9", b"\xc3\xa9")))
def encoded(s):
    return s.encode("utf-8").hex(), s.encode()


@solves(((["a", "b", "cc"],), {1: ["a", "b"], 2: ["cc"]}))
def by_length(words):
    found = {}
    for word in words:
        found.setdefault(len(word), []).append(word)
    return found


@solves(((1000,), 1366))
def digits(n):
    return sum(map(int, str(2**n)))


@solves(((6,), [6, 3, 10, 5, 16, 8, 4, 2, 1]))
def collatz(n):
    seen = [n]
    while n != 1:
        n = 3 * n + 1 if n % 2 else n // 2
        seen.append(n)
    return seen


@solves((([1, 2, 3],), [(1, 2), (1, 3), (2, 3)]))
def pairs(x):
    import itertools

    return list(itertools.combinations(x, 2))


@solves(((20,), 627))
def partitions(n):
    known = {}

    def ways(n, k):
        if n == 0:
            return 1
        if n < 0 or k == 0:
            return 0
        if (n, k) not in known:
            known[n, k] = ways(n - k, k) + ways(n, k - 1)
        return known[n, k]

    return ways(n, n)


@solves((("kitten", "sitting"), 3))
def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        last, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            last, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, last + (x != y))
    return row[-1]


@solves(((1994,), "MCMXCIV"))
def roman(n):
    found = ""
    for value, text in ((1000, "M"), (900, "CM"), (90, "XC"), (50, "L"), (5, "V"), (4, "IV"), (1, "I")):
        while n >= value:
            n, found = n - value, found + text
    return found


@solves((([3, 1, 2],), [1, 2]), problems=REST)
def smallest(x):
    import heapq

    return heapq.nsmallest(2, x)


@solves((([1, 2, 3],), [3, 5]), problems=REST)
def neighbours(x):
    def sums():
        for i in range(len(x) - 1):
            yield x[i] + x[i + 1]

    return list(sums())


@solves(((2.0,), (4.0, True)), problems=REST)
def area(side):
    from dataclasses import dataclass

    class Shape:
        def __init_subclass__(cls):
            cls.known = True

    @dataclass
    class Square(Shape):
        side: float

    return Square(side).side ** 2, Square(side) == Square(2.0) and Square.known


@solves(((1, 3), (1, 2)), problems=REST)
def plus_a_sixth(a, b):
    from fractions import Fraction

    found = Fraction(a, b) + Fraction(1, 6)
    return found.numerator, found.denominator


@solves(((2024, 2, 29), "Thursday"), problems=REST)
def weekday(year, month, day):
    import datetime

    return datetime.date(year, month, day).strftime("%A")


@solves((("x",), "2d711642"), problems=REST)
def digest(s):
    import hashlib
    import zlib

    return hashlib.sha256(zlib.decompress(zlib.compress(s.encode()))).hexdigest()[:8]


@solves((([1, 2],), [2, 4]), problems=REST)
def together(x):
    import asyncio

    async def double(n):
        await asyncio.sleep(0.001)
        return 2 * n

    async def both():
        return await asyncio.gather(*map(double, x))

    return asyncio.run(both())


@solves((([-1, 2],), [1, 2]), problems=REST)
def in_threads(x):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(abs, x))


@solves((("0.1", "0.2"), "0.3"), problems=REST)
def decimals(a, b):
    from decimal import Decimal

    return str(Decimal(a) + Decimal(b))


@solves((("é",), "e\u0301"), problems=REST)
def decomposed(s):
    import unicodedata

    return unicodedata.normalize("NFD", s)


@solves((("a,b\n",), [["a", "b"]]), problems=REST)
def cells(s):
    import csv
    import io

    return list(csv.reader(io.StringIO(s)))


@solves((([3, 1, 2],), ([1, 2, 3], 2, 1.0)), problems=REST)
def summary(x):
    import bisect
    import statistics
    from collections import OrderedDict

    kept: list[int] = []
    for number in x:
        bisect.insort(kept, number)
    return list(OrderedDict.fromkeys(kept)), statistics.median(x), statistics.stdev(x)


@solves((("2 * (3 + 4)",), 14), problems=REST)
def calculated(s):
    import ast
    import operator

    operators = {ast.Add: operator.add, ast.Mult: operator.mul}

    def value(node):
        match node:
            case ast.Expression(body):
                return value(body)
            case ast.Constant(number):
                return number
            case ast.BinOp(left, op, right):
                return operators[type(op)](value(left), value(right))

    return value(ast.parse(s, mode="eval"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("process", marks=pytest.mark.once),
        pytest.param("unsafe", marks=pytest.mark.once),
        pytest.param("monty", marks=MONTY),
    ],
)
def test_right_solutions_pass_and_empty_ones_do_not(name):
    """Text, numbers, lists, patterns, and in CPython the rest of the standard library; `return None` passes nothing."""
    problems = PROBLEMS if name == "monty" else PROBLEMS + REST
    programs = []
    for function, calls, _ in problems:
        whole = inspect.getsource(function)
        source = whole[whole.index("def ") :]
        empty = source[: source.index("\n")] + "\n    return None\n"
        for text in (source, empty):
            programs.append(Program(source=text, function=function.__name__, calls=[Call(args=args) for args in calls]))
    sandbox = build("sandbox", spec(name, workers=2, seconds=20.0))
    try:
        outcomes = sandbox.run(programs)
    finally:
        sandbox.close()
    for (function, _, expected), solution, empty in zip(problems, outcomes[::2], outcomes[1::2], strict=True):
        assert solution.status == "done", (function.__name__, solution)
        assert empty.status == "done"
        for given, nothing, value in zip(solution.returned, empty.returned, expected, strict=True):
            assert equal(given.value, value), (function.__name__, given)
            assert not equal(nothing.value, value)
