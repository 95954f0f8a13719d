"""Problems of text."""

from random import Random

from lmx_rl.problems.kinds.draft import Draft, kind, sentence, sentence_of, word, word_of


@kind("strings.repeat")
def repeat(draw: Random, level: int) -> Draft:
    n, mark = draw.randint(2, 4), draw.choice("-+.:_")
    signature, says, body = [
        ("repeated(text: str) -> str", f"Return the text {n} times over.", f"return text * {n}"),
        (
            "joined(text: str) -> str",
            f"Return the text {n} times over with {mark!r} between.",
            f"return {mark!r}.join([text] * {n})",
        ),
        (
            "growing(text: str) -> str",
            f"Return each character repeated, the first {n} times and each further one once more than the one before.",
            f'return "".join(c * (i + {n}) for i, c in enumerate(text))',
        ),
    ][level - 1]
    return Draft(signature, says, body, word_of(longest=5), [("",), ("a",)])


@kind("strings.reverse")
def reverse(draw: Random, level: int) -> Draft:
    n = draw.randint(2, 4)
    signature, says, body = [
        (
            "backwards(text: str) -> str",
            f"Return the text without its first {n} characters, backwards.",
            f"return text[{n}:][::-1]",
        ),
        (
            "words_backwards(text: str) -> str",
            f"Return the first {n + 1} words of the text in reverse order, with a space between.",
            f'return " ".join(text.split()[:{n + 1}][::-1])',
        ),
        (
            "each_backwards(text: str) -> str",
            f"Return the text with each word that is longer than {n + 2} characters written backwards. Words have one space "
            "between.",
            f'return " ".join(w[::-1] if len(w) > {n + 2} else w for w in text.split())',
        ),
    ][level - 1]
    return Draft(signature, says, body, sentence_of(), [("",), ("ice",), ("moon tree",)])


@kind("strings.count")
def count(draw: Random, level: int) -> Draft:
    letter = draw.choice("aeort")
    signature, says, body = [
        (
            "count_letter(text: str) -> int",
            f"Return how often {letter!r} occurs in the text.",
            f"return text.count({letter!r})",
        ),
        (
            "count_others(text: str) -> int",
            f"Return how many characters of the text are neither a space nor {letter!r}.",
            f'return sum(c not in " {letter}" for c in text)',
        ),
        (
            "count_words(text: str) -> int",
            f"Return how many words of the text have {letter!r} in them, but not as their first letter.",
            f"return sum({letter!r} in w[1:] and w[0] != {letter!r} for w in text.split())",
        ),
    ][level - 1]
    return Draft(signature, says, body, sentence_of(), [("",), (letter,), (letter * 3,)])


@kind("strings.ends")
def ends(draw: Random, level: int) -> Draft:
    n, letter = draw.randint(2, 3), draw.choice("abc")
    signature, says, body = [
        ("shortened(text: str) -> str", f"Return all but the last {n} characters of the text.", f"return text[:-{n}]"),
        (
            "ends_only(text: str) -> str",
            f"Return the first {n} and the last {n} characters of the text; all of it where it has no more than {2 * n}.",
            f"return text if len(text) <= {2 * n} else text[:{n}] + text[-{n}:]",
        ),
        (
            "without_ends(text: str) -> str",
            f"Return the text without every {letter!r} at its beginning, and without one {letter!r} at its end if it then "
            "has one.",
            f"text = text.lstrip({letter!r})\nreturn text[:-1] if text.endswith({letter!r}) else text",
        ),
    ][level - 1]
    return Draft(signature, says, body, word_of("abc", 9), [("",), (letter,), (f"{letter}x{letter}{letter}",)])


@kind("strings.case")
def case(draw: Random, level: int) -> Draft:
    n = draw.randint(2, 4)
    signature, says, body = [
        (
            "upper_start(text: str) -> str",
            f"Return the text with its first {n} characters as capital letters.",
            f"return text[:{n}].upper() + text[{n}:]",
        ),
        (
            "upper_ends(text: str) -> str",
            f"Return the text with the last letter of each word that has more than {n + 2} letters as a capital one. Words "
            "have one space between.",
            f'return " ".join(w[:-1] + w[-1].upper() if len(w) > {n + 2} else w for w in text.split())',
        ),
        (
            "every_upper(text: str) -> str",
            f"Return the text with the last of each {n + 1} characters, spaces counted too, as a capital letter.",
            f'return "".join(c.upper() if i % {n + 1} == {n} else c for i, c in enumerate(text))',
        ),
    ][level - 1]
    return Draft(signature, says, body, sentence_of(3), [("",), ("zero",), ("river",)])


@kind("strings.replace")
def replace(draw: Random, level: int) -> Draft:
    a, b = draw.sample("aeiou", 2)
    signature, says, body = [
        (
            "replaced(text: str) -> str",
            f"Return the text with each {a!r} replaced by {b!r}.",
            f"return text.replace({a!r}, {b!r})",
        ),
        (
            "swapped(text: str) -> str",
            f"Return the text with each {a!r} replaced by {b!r} and each {b!r} by {a!r}.",
            f'return "".join({{"{a}": "{b}", "{b}": "{a}"}}.get(c, c) for c in text)',
        ),
        (
            "replaced_after(text: str) -> str",
            f"Return the text with each {a!r} but the first one replaced by {b!r}.",
            f"head, found, tail = text.partition({a!r})\nreturn head + found + tail.replace({a!r}, {b!r})",
        ),
    ][level - 1]
    return Draft(signature, says, body, word_of("aeioux", 9), [("",), (a + b,), (a + a + b,)])


@kind("strings.shift")
def shift(draw: Random, level: int) -> Draft:
    n = draw.randint(1, 9)
    code = f"(ord(c) - 97 + {n}) % 26 + 97"
    signature, says, body = [
        (
            "next_codes(text: str) -> list[int]",
            f"Return the code point of each character, plus {n}.",
            f"return [ord(c) + {n} for c in text]",
        ),
        (
            "shifted(text: str) -> str",
            f"Return the text of small letters with each one moved {n} places on in the alphabet; after z comes a.",
            f'return "".join(chr({code}) for c in text)',
        ),
        (
            "shifted_some(text: str) -> str",
            f"Return the text with each small letter at an even place, counted from 0, moved {n} places on in the alphabet; "
            "after z comes a. The others stay.",
            f'return "".join(chr({code}) if i % 2 == 0 else c for i, c in enumerate(text))',
        ),
    ][level - 1]
    return Draft(signature, says, body, word_of("abmnxyz", 6), [("",), ("z",), ("az",)])


@kind("strings.palindromes")
def palindromes(draw: Random, level: int) -> Draft:
    n = draw.randint(2, 4)

    def text(draw: Random) -> tuple[str]:
        half = word(draw, "ab", 3)
        return (draw.choice([half + half[::-1], half + "c" + half[::-1], half + word(draw, "ab", 3)]) + "c" * n,)

    signature, says, body = [
        (
            "mirrored(text: str) -> bool",
            f"Return whether the text without its last {n} characters is the same backwards.",
            f"text = text[:-{n}]\nreturn text == text[::-1]",
        ),
        (
            "mismatches(text: str) -> int",
            f"Return how many characters differ from the one at the same place in the text backwards, plus {n}.",
            f"return sum(a != b for a, b in zip(text, text[::-1])) + {n}",
        ),
        (
            "longest_mirrored(text: str) -> int",
            f"Return the length of the longest beginning of the text that is the same backwards, times {n}.",
            f"return {n} * max(i for i in range(len(text) + 1) if text[:i] == text[:i][::-1])",
        ),
    ][level - 1]
    return Draft(signature, says, body, text, [("",), ("ab",), ("aabaa",)])


@kind("strings.runs")
def runs(draw: Random, level: int) -> Draft:
    mark = draw.choice("-+*/")
    signature, says, body = [
        (
            "squeezed(text: str) -> str",
            f"Return the text with one character for each run of equal ones, and {mark!r} at the end.",
            f'return "".join(c for i, c in enumerate(text) if i == 0 or text[i - 1] != c) + {mark!r}',
        ),
        (
            "marked(text: str) -> str",
            f"Return the text with {mark!r} between neighbours that are equal.",
            f'return "".join(c + {mark!r} * (text[i + 1 : i + 2] == c) for i, c in enumerate(text))',
        ),
        (
            "encoded(text: str) -> str",
            f"Return each run of equal characters as the character and the length of the run, with {mark!r} between.",
            "parts = []\nfor c in text:\n    if parts and parts[-1][0] == c:\n        parts[-1][1] += 1\n    else:\n"
            f'        parts.append([c, 1])\nreturn {mark!r}.join(f"{{c}}{{n}}" for c, n in parts)',
        ),
    ][level - 1]
    return Draft(signature, says, body, word_of("ab", 9), [("",), ("a",), ("aab",), ("aaa",)])


@kind("strings.words")
def words(draw: Random, level: int) -> Draft:
    n = draw.randint(3, 5)
    signature, says, body = [
        (
            "count_long(text: str) -> int",
            f"Return how many words of the text have at least {n} letters.",
            f"return sum(len(w) >= {n} for w in text.split())",
        ),
        (
            "first_letters(text: str) -> str",
            f"Return the first letters of the words that have at least {n} letters, as one word.",
            f'return "".join(w[0] for w in text.split() if len(w) >= {n})',
        ),
        (
            "longest_word(text: str) -> str",
            f"Return the longest of the first {n} words, the last one of those that are equally long; the empty text if "
            "there are no words.",
            f'return max(text.split()[:{n}][::-1], key=len, default="")',
        ),
    ][level - 1]
    return Draft(signature, says, body, lambda draw: (sentence(draw, 7),), [("",), ("ice",), ("kite moon",)])
