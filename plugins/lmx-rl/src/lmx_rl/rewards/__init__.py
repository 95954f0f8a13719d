"""What a completion is worth: rewards, and the judge that asks several of them."""

from lmx_rl.rewards.exact_match import ExactMatch as ExactMatch
from lmx_rl.rewards.exact_match import ExactMatchOptions as ExactMatchOptions
from lmx_rl.rewards.format import Format as Format
from lmx_rl.rewards.format import FormatOptions as FormatOptions
from lmx_rl.rewards.judge import Completion as Completion
from lmx_rl.rewards.judge import Judge as Judge
from lmx_rl.rewards.judge import RewardSpec as RewardSpec
from lmx_rl.rewards.judge import Verdicts as Verdicts
from lmx_rl.rewards.length import Length as Length
from lmx_rl.rewards.length import LengthOptions as LengthOptions
from lmx_rl.rewards.likelihood import Likelihood as Likelihood
from lmx_rl.rewards.likelihood import LikelihoodOptions as LikelihoodOptions
from lmx_rl.rewards.maths import Maths as Maths
from lmx_rl.rewards.maths import MathsOptions as MathsOptions
from lmx_rl.rewards.model import RewardModel as RewardModel
from lmx_rl.rewards.model import RewardModelOptions as RewardModelOptions
from lmx_rl.rewards.numeric import Numeric as Numeric
from lmx_rl.rewards.numeric import NumericOptions as NumericOptions
from lmx_rl.rewards.protocol import Reward as Reward
from lmx_rl.rewards.regex import Regex as Regex
from lmx_rl.rewards.regex import RegexOptions as RegexOptions
from lmx_rl.rewards.repetition import Repetition as Repetition
from lmx_rl.rewards.repetition import RepetitionOptions as RepetitionOptions
from lmx_rl.rewards.verdict import Verdict as Verdict
from lmx_rl.rewards.verdict import VerdictOptions as VerdictOptions
