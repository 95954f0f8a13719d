"""Problems of text."""

from typing import Any


def roman(n: int) -> str:
    """Return a number from 1 to 3999 in Roman numerals.

    >>> roman(14)
    'XIV'
    >>> roman(1999)
    'MCMXCIX'
    """
    numerals = {
        1000: "M",
        900: "CM",
        500: "D",
        400: "CD",
        100: "C",
        90: "XC",
        50: "L",
        40: "XL",
        10: "X",
        9: "IX",
        5: "V",
    }
    text = ""
    for value, numeral in {**numerals, 4: "IV", 1: "I"}.items():
        text += numeral * (n // value)
        n %= value
    return text


def depth(text: str) -> int:
    """Return how deep the round brackets of a text are nested, or -1 if they do not match.

    >>> depth("a(b(c)d)")
    2
    >>> depth(")(")
    -1
    """
    now = deepest = 0
    for character in text:
        if character == "(":
            now += 1
            deepest = max(deepest, now)
        elif character == ")":
            now -= 1
            if now < 0:
                return -1
    return deepest if now == 0 else -1


def same_letters(a: str, b: str) -> bool:
    """Return whether two texts are made of the same letters, each as often, whatever their case, order and spaces.

    >>> same_letters("Dirty room", "dormitory")
    True
    >>> same_letters("aab", "abb")
    False
    """
    return sorted(a.lower().replace(" ", "")) == sorted(b.lower().replace(" ", ""))


def slug(title: str) -> str:
    """Return the words of a title in small letters with one "-" between; what is neither letter nor digit parts words.

    >>> slug("Hello, World!")
    'hello-world'
    >>> slug("  2 + 2 = 4 ")
    '2-2-4'
    """
    spaced = "".join(c.lower() if c.isalnum() else " " for c in title)
    return "-".join(spaced.split())


def common_start(words: list[str]) -> str:
    """Return the longest text with which all the words begin; the empty one for no words.

    >>> common_start(["flower", "flow", "flight"])
    'fl'
    >>> common_start(["dog", "car"])
    ''
    """
    if not words:
        return ""
    shortest = min(words, key=len)
    for i, character in enumerate(shortest):
        if any(word[i] != character for word in words):
            return shortest[:i]
    return shortest


def seconds(duration: str) -> int:
    """Return the seconds of a duration as "1h30m5s": hours, minutes and seconds, each of which may be left out.

    >>> seconds("2m10s")
    130
    >>> seconds("1h")
    3600
    """
    total = number = 0
    for character in duration:
        if character.isdigit():
            number = number * 10 + int(character)
        else:
            total += number * {"h": 3600, "m": 60, "s": 1}[character]
            number = 0
    return total


def wrapped(text: str, width: int) -> list[str]:
    """Return the words of a text in lines of no more than so many characters, each line as long as it can be.

    Words have a space between; one that is longer than a line has a line of its own.
    >>> wrapped("the quick brown fox", 10)
    ['the quick', 'brown fox']
    >>> wrapped("a extraordinary b", 5)
    ['a', 'extraordinary', 'b']
    """
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


CASES: dict[str, tuple[int, list[tuple[tuple[Any, ...], Any]]]] = {
    "roman": (
        2,
        [
            ((1,), "I"),
            ((3,), "III"),
            ((4,), "IV"),
            ((9,), "IX"),
            ((40,), "XL"),
            ((58,), "LVIII"),
            ((444,), "CDXLIV"),
            ((3999,), "MMMCMXCIX"),
        ],
    ),
    "depth": (
        2,
        [
            (("",), 0),
            (("abc",), 0),
            (("()()",), 1),
            (("(()())",), 2),
            (("((())",), -1),
            (("())(()",), -1),
            (("((()))()",), 3),
        ],
    ),
    "same_letters": (
        1,
        [
            (("listen", "Silent"), True),
            (("", " "), True),
            (("abc", "abcd"), False),
            (("The eyes", "they see"), True),
            (("ab", "ba c"), False),
            (("aa", "a"), False),
        ],
    ),
    "slug": (
        1,
        [
            (("A",), "a"),
            (("",), ""),
            (("Don't stop",), "don-t-stop"),
            (("--x--Y--",), "x-y"),
            (("Part 10: The End",), "part-10-the-end"),
        ],
    ),
    "common_start": (
        2,
        [
            (([],), ""),
            ((["one"],), "one"),
            ((["inter", "internet", "interval"],), "inter"),
            ((["ab", "a"],), "a"),
            ((["", "b"],), ""),
            ((["abc", "abd", "abe"],), "ab"),
        ],
    ),
    "seconds": (
        2,
        [
            (("0s",), 0),
            (("59s",), 59),
            (("1h1m1s",), 3661),
            (("10m",), 600),
            (("12h30s",), 43230),
            (("",), 0),
            (("1h30m5s",), 5405),
        ],
    ),
    "wrapped": (
        3,
        [
            (("", 5), []),
            (("one", 3), ["one"]),
            (("a b c d", 3), ["a b", "c d"]),
            (("aa bb cc", 8), ["aa bb cc"]),
            (("aa bb cc", 7), ["aa bb", "cc"]),
            (("to be or not to be", 6), ["to be", "or not", "to be"]),
        ],
    ),
}
