"""The code in what a model wrote: in a block between fences, as a whole function, or going on with the prompt."""

import io
import re
import textwrap
import token as kinds
import tokenize
from collections.abc import Sequence

import attrs

FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
BODY = re.compile(r"\A(?:[ \t]*\n)*(?:\t|  )[ \t]*[^\s`]")
"""What goes on inside a function begins indented."""
DEFINITION = re.compile(r"^(?:async[ \t]+def|def|class)[ \t]+(\w+)", re.MULTILINE)
ASSIGNMENT = re.compile(r"^(\w+)(?:[\[.:][^=\n]*|[ \t]*(?:[-+*/|&^%@]|//|\*\*|<<|>>)?)=(?!=)")
IMPORT = re.compile(r"^(?:import|from)\b")
GOES_ON = {"elif", "else", "except", "finally"}
"""What begins no statement at the left margin, but goes on with one."""


def program_text(prompt: str, completion: str, function: str) -> str:
    """A source that defines the function, of a prompt that begins it and of a completion.

    A completion that begins indented goes on with the prompt, up to a fence. Otherwise the last block between fences that
    defines the function is taken, else the last block, and without a block all of it; what does not define the function goes
    on with the prompt, what does has before it what the prompt has before the function. Of what follows the function, which a
    model that does not know where to stop writes, only what the function uses is kept.
    """
    if BODY.match(completion):
        return _needed(prompt + re.split(r"^[ \t]*```", completion, maxsplit=1, flags=re.MULTILINE)[0], function)
    code = _code(completion, function)
    start = _definition(code, function)
    if start is None:
        return _needed(prompt + code, function)
    before = _definition(prompt, function)
    return _needed(f"{prompt[: before or 0]}{code}", function)


def _code(completion: str, function: str) -> str:
    found: list[str] = FENCED.findall(completion)
    whole = [code for code in map(textwrap.dedent, found) if _definition(code, function) is not None]
    return (whole or found or [completion])[-1]


def _definition(code: str, function: str) -> int | None:
    """Where at the left margin the function begins, its decorators included."""
    begins = re.search(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(function)}\b", code, re.MULTILINE)
    if begins is None:
        return None
    start = begins.start()  # back line by line: a pattern would take the square of their number
    while start and code[before := code.rfind("\n", 0, start - 1) + 1] == "@":
        start = before
    return start


@attrs.define
class _Statement:
    """A statement at the left margin, with all that is indented below it."""

    line: int
    """The first, from 0 on."""
    uses: set[str] = attrs.field(factory=set[str])
    """Names that occur in it, in strings only where these are formatted."""
    text: str = ""

    def defines(self) -> set[str]:
        if defined := DEFINITION.search(self.text):
            return {defined[1]}
        if IMPORT.match(self.text):
            return set(re.findall(r"\w+|\*", self.text))
        assigned = ASSIGNMENT.match(self.text)
        return {assigned[1]} if assigned else set()

    def is_function(self, name: str) -> bool:
        return _definition(self.text, name) == 0


def _needed(source: str, function: str) -> str:
    statements = _statements(source)
    last = next((i for i, each in enumerate(statements) if each.is_function(function)), None)
    if last is None:
        return source
    kept, rest = statements[: last + 1], [each for each in statements[last + 1 :] if not each.is_function(function)]
    kept += _used(rest, kept)
    kept.sort(key=lambda each: (not each.text.startswith("from __future__"), each.line))
    return "".join(each.text if each.text.endswith("\n") else f"{each.text}\n" for each in kept)


def _used(rest: Sequence[_Statement], kept: Sequence[_Statement]) -> list[_Statement]:
    """Those of the rest that define what the kept ones use, and what these use in turn."""
    defined: dict[str, list[_Statement]] = {}
    for each in rest:
        for name in each.defines():
            defined.setdefault(name, []).append(each)
    found: dict[int, _Statement] = {}
    names = {"*"}.union(*(each.uses for each in kept))
    while names:
        new = [each for name in names for each in defined.pop(name, ()) if each.line not in found]
        found |= {each.line: each for each in new}
        names = set[str]().union(*(each.uses for each in new))
    return [*found.values()]


def _statements(source: str) -> list[_Statement]:
    """Those at the left margin, as far as the source can be read; what cannot be read belongs to the last of them.

    By its tokens alone: Python's parser may end the process over a source that is nested deeply.
    """
    lines = list(io.StringIO(source))
    found = [_Statement(0)]
    complete, fresh, level, decorated = 0, True, 0, False
    try:
        for each in tokenize.generate_tokens(io.StringIO(source).readline):
            if each.type in (kinds.INDENT, kinds.DEDENT):
                level += 1 if each.type == kinds.INDENT else -1
            elif each.type == kinds.NEWLINE:
                complete, fresh = each.end[0], True
            elif each.type not in (kinds.NL, kinds.COMMENT, kinds.ENDMARKER):
                if fresh and level == 0 and each.string not in GOES_ON:
                    if not decorated:
                        found.append(_Statement(each.start[0] - 1))
                    decorated = each.string == "@"
                fresh = False
                found[-1].uses |= _names(each)
    except (tokenize.TokenError, SyntaxError, ValueError):
        at = next((i for i in range(complete, len(lines)) if lines[i].strip()), len(lines))
        if at < len(lines) and not lines[at][0].isspace() and at != found[-1].line:
            found.append(_Statement(at))
    for each, end in zip(found, [*(later.line for later in found[1:]), len(lines)], strict=True):
        each.text = "".join(lines[each.line : end])
    return [each for each in found if each.text]


def _names(token: tokenize.TokenInfo) -> set[str]:
    if token.type == kinds.NAME:
        return {token.string}
    if token.type == kinds.STRING and "f" in re.split("['\"]", token.string, maxsplit=1)[0].lower():
        return set(re.findall(r"\w+", token.string))  # before Python 3.12 one token
    return set()
