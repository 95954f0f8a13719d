"""Reinforcement learning with verifiable rewards: GRPO and what came after it."""

from lmx_rl.policy.advantages import advantages as advantages
from lmx_rl.policy.losses import PolicyLossOptions as PolicyLossOptions
from lmx_rl.policy.losses import importance_weights as importance_weights
from lmx_rl.policy.losses import token_losses as token_losses
from lmx_rl.policy.objective import PolicyGradient as PolicyGradient
from lmx_rl.policy.options import GRPOOptions as GRPOOptions
from lmx_rl.policy.recipe import GRPO as GRPO
from lmx_rl.policy.source import Rollouts as Rollouts
