"""What goes to a sandbox and comes back, and when it is what was expected."""

import math
import random
from collections import Counter, OrderedDict, defaultdict

import pytest

from lmx_rl.sandbox import equal
from lmx_rl.sandbox.child import values
from lmx_rl.sandbox.transcript import Transcript

pytestmark = pytest.mark.once

PLAIN = [
    None, True, 0, -1, 2**53, 2**53 + 1, -(10**4000), 0.1, -0.0, 1e300, math.inf, -math.inf, "", "é\n\0", "\ud800",
    b"", b"\xff", [], [[]], (), (1, (2,)), set(), {1, "a", (2, b"")}, frozenset({1}), {}, {1: "a", (frozenset(),): [{}]},
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
def test_values_come_through(value):
    found = values.unpacked(values.read(values.framed(values.packed(value))[values.HEADER.size :]))
    assert equal(found, value)
    assert isinstance(value, set) or repr(found) == repr(value)


def test_tables_of_the_library_come_through_as_plain_ones():
    for table in (Counter("aab"), OrderedDict(a=2, b=1), defaultdict(int, a=2, b=1)):
        assert equal(values.unpacked(values.packed(table)), {"a": 2, "b": 1})


REFUSED = [1j, object(), range(2), type("S", (str,), {})("x"), [OSError], iter([]), 10**4300, {1: {2: ...}}]


@pytest.mark.parametrize("at", range(len(REFUSED)))
def test_other_values_do_not(at):
    with pytest.raises(TypeError):
        values.packed(REFUSED[at])


def test_deep_values_do_not():
    deep: list = []
    for _ in range(values.DEPTH):
        deep = [deep]
    with pytest.raises(TypeError, match="deep"):
        values.packed(deep)
    assert equal(values.unpacked(values.packed(deep[0])), deep[0])


VALID = [
    ["ready"],
    ["loaded"],
    ["value", {"t": [1, {"d": [["a", {"f": "nan"}]]}, {"s": [{"b": "ff"}]}]}],
    ["error", "E: x"],
]


def test_a_transcript_takes_anything():
    """Half-true frames, cut, mixed and changed at random, in pieces: an outcome or silence, and never an exception."""
    draw = random.Random(0)
    known = b"".join(map(values.framed, VALID))
    for _ in range(3000):
        frames = [*map(values.framed, draw.choices(VALID, k=4))] if draw.random() < 0.3 else [known]
        data = bytearray(b"".join(frames))
        for _ in range(draw.choice([0, 1, 1, 2, 5])):
            at = draw.randrange(len(data))
            data[at : at + draw.choice([0, 1, 1, 3])] = draw.choice([b"", b"[", b'"', b"9", b"\xff", b"\0\0", b"{}"])
        transcript = Transcript(2, 1000)
        while data:
            size = draw.randrange(1, 40)
            transcript.feed(bytes(data[:size]))
            del data[:size]
            assert len(transcript._bytes) < 20_000
        outcome = transcript.outcome
        assert outcome is None or outcome.status in ("done", "failed", "broken", "output")
        assert outcome is None or outcome.status != "done" or len(outcome.returned) == 2


def test_a_transcript_is_read_as_it_was_written():
    transcript = Transcript(2, 1000)
    for byte in b"".join(map(values.framed, VALID)) + b"more":
        transcript.feed(bytes([byte]))
    assert transcript.outcome.status == "done"
    first, second = transcript.outcome.returned
    assert equal(first.value, (1, {"a": math.nan}, {b"\xff"}))
    assert (second.value, second.error) == (None, "E: x")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ([["loaded"]], "broken"),
        ([["ready"], ["ready"]], "failed"),
        ([["ready"], ["value", 1]], "failed"),
        ([["ready"], ["failed", "\ud800" + "x" * 3000]], "failed"),
        ([["ready"], ["loaded"], ["failed", "x"]], "failed"),
        ([["ready"], ["loaded"], ["error", 1]], "failed"),
        ([["ready"], ["loaded"], ["memory"]], "memory"),
        ([["ready"], ["loaded"], ["value", "x" * 600], ["value", "x" * 600]], "output"),
        ([["ready"], ["loaded"], ["value", "x" * 20_000]], "output"),
    ],
)
def test_words_out_of_turn(said, status):
    transcript = Transcript(3, 1000)
    for data in said:
        transcript.feed(values.framed(data))
    assert transcript.outcome.status == status
    transcript.outcome.detail.encode()
    assert len(transcript.outcome.detail) <= 500


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        (1, 1, True), (1, True, False), (True, 1, False), (1, 1.0, False), (0, False, False), (None, False, False),
        (0.1 + 0.2, 0.3, True), (1.0, 1.0 + 1e-8, False), (1e-12, 0.0, False), (1e300, 1e300 * (1 + 1e-10), True),
        (math.nan, math.nan, True), (math.inf, math.inf, True), (math.inf, -math.inf, False), (math.nan, 0.0, False),
        ("a", "a", True), ("a", b"a", False), ([1], (1,), False), ([1, [2.0]], [1, [2.0 + 1e-12]], True),
        ([1], [1, 2], False),
        ([True], [1], False), ({1}, {1}, True), ({1}, {True}, False), ({1}, {1.0}, False), ({(1,)}, {(True,)}, False),
        ({1, 2}, {1}, False), ({1}, frozenset({1}), False), ({math.nan}, {float("nan")}, True),
        ({frozenset({1})}, {frozenset({True})}, False), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": True}, False), ({1: 1}, {True: 1}, False), ({"a": [0.1 + 0.2]}, {"a": [0.3]}, True),
        ({"a": 1}, {"b": 1}, False), ({"a": 1}, {}, False), (Counter("a"), {"a": 1}, False), (1j, 1j, False),
        (type("S", (str,), {"__eq__": lambda *_: True})("x"), "y", False), ("x", "y", False),
    ],
)  # fmt: skip
def test_equal(found, expected, same):
    assert equal(found, expected) is same
    assert equal(expected, found) is same


def test_equal_looks_no_deeper_than_values_may_lie():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    assert not equal(deep, deep)
