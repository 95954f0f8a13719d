"""Learning from comparisons: which of two completions is better, or whether one is good."""

from lmx_rl.preference.cpo import CPO as CPO
from lmx_rl.preference.cpo import CPOOptions as CPOOptions
from lmx_rl.preference.dpo import DPO as DPO
from lmx_rl.preference.dpo import DPOOptions as DPOOptions
from lmx_rl.preference.kto import KTO as KTO
from lmx_rl.preference.kto import KTOOptions as KTOOptions
from lmx_rl.preference.losses import LOSSES as LOSSES
from lmx_rl.preference.losses import LossOptions as LossOptions
from lmx_rl.preference.losses import Pairs as Pairs
from lmx_rl.preference.material import Comparisons as Comparisons
from lmx_rl.preference.material import judged_of as judged_of
from lmx_rl.preference.material import pairs_of as pairs_of
from lmx_rl.preference.material import taken_apart as taken_apart
from lmx_rl.preference.orpo import ORPO as ORPO
from lmx_rl.preference.orpo import ORPOOptions as ORPOOptions
from lmx_rl.preference.simpo import SimPO as SimPO
from lmx_rl.preference.simpo import SimPOOptions as SimPOOptions
