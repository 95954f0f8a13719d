"""The kinds of problems that are generated, each with levels of difficulty and a solution of its own."""

from lmx_rl.problems.kinds import arithmetic, lists, strings
from lmx_rl.problems.kinds.draft import KINDS as KINDS
from lmx_rl.problems.kinds.draft import LEVELS as LEVELS
from lmx_rl.problems.kinds.draft import Draft as Draft

AREAS = (arithmetic, strings, lists)
