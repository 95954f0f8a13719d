"""Verifiable rewards: what a completion is worth, computed from its text."""

from lmx_rl.exact_match import ExactMatch as ExactMatch
from lmx_rl.exact_match import ExactMatchOptions as ExactMatchOptions
from lmx_rl.length import Length as Length
from lmx_rl.length import LengthOptions as LengthOptions
from lmx_rl.numeric import Numeric as Numeric
from lmx_rl.numeric import NumericOptions as NumericOptions
from lmx_rl.protocol import Reward as Reward
from lmx_rl.regex import Regex as Regex
from lmx_rl.regex import RegexOptions as RegexOptions
