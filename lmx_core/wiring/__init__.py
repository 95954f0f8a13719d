"""How the parts of a model follow each other: what a layout does, seen by calling it, and how that looks."""

from lmx_core.wiring.group import Group as Group
from lmx_core.wiring.group import around as around
from lmx_core.wiring.group import groups as groups
from lmx_core.wiring.steps import Join as Join
from lmx_core.wiring.steps import Step as Step
from lmx_core.wiring.steps import wiring as wiring
from lmx_core.wiring.symbols import Box as Box
from lmx_core.wiring.text import drawn as drawn
