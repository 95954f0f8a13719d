"""Datasets of prompts, answers and comparisons."""

from lmx_rl.data.addition import Addition as Addition
from lmx_rl.data.addition import AdditionOptions as AdditionOptions
from lmx_rl.data.jsonl import JSONLines as JSONLines
from lmx_rl.data.jsonl import JSONLinesOptions as JSONLinesOptions
