"""Functions to be written, and the tests that decide on them."""

from lmx_rl.problems.curriculum import PassRate as PassRate
from lmx_rl.problems.curriculum import PassRateOptions as PassRateOptions
from lmx_rl.problems.dataset import CodeProblems as CodeProblems
from lmx_rl.problems.dataset import CodeProblemsOptions as CodeProblemsOptions
from lmx_rl.problems.files import problems_of as problems_of
from lmx_rl.problems.files import read_problems as read_problems
from lmx_rl.problems.files import write_problems as write_problems
from lmx_rl.problems.generator import generate as generate
from lmx_rl.problems.problem import Problem as Problem
from lmx_rl.rewards.code_task import Case as Case
from lmx_rl.rewards.code_task import CodeTask as CodeTask
