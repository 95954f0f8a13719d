"""How often a model solves problems."""

from lmx_rl.evaluation.estimates import interval as interval
from lmx_rl.evaluation.estimates import pass_at_k as pass_at_k
from lmx_rl.evaluation.estimates import pass_hat_k as pass_hat_k
from lmx_rl.evaluation.passk import evaluate_pass_at_k as evaluate_pass_at_k
from lmx_rl.evaluation.result import Estimate as Estimate
from lmx_rl.evaluation.result import Evaluation as Evaluation
from lmx_rl.evaluation.result import ProblemScore as ProblemScore
