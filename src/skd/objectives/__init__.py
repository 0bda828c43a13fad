"""Objectives: what is learned from a response, as target x token loss x token weights.

Pure functions over log-probabilities; nothing here knows a model class.
"""

from skd.objectives.chunked import chunked_loss
from skd.objectives.cut import DEFAULT_BUDGET_BYTES, Cut
from skd.objectives.divergences import JSD, NLL, ForwardKL, ReverseKL, SkewKL, SkewReverseKL, TotalVariation, kl
from skd.objectives.objective import Objective, Reduction
from skd.objectives.sampled import PolicyGradient, SampledReverseKL
from skd.objectives.streams import PerAuthor
from skd.objectives.targets import Plain, Taid, Target, Veto
from skd.objectives.teacher import HiddenStates, TeacherView, TopLogProbs, fewer_ids, top_evidence
from skd.objectives.tokens import ResponseTokens, TokenLoss, Tokens, log_probs
from skd.objectives.weights import ByAuthor, TeacherTopK, TokenWeights

__all__ = [
    "DEFAULT_BUDGET_BYTES",
    "JSD",
    "NLL",
    "ByAuthor",
    "Cut",
    "ForwardKL",
    "HiddenStates",
    "Objective",
    "PerAuthor",
    "Plain",
    "PolicyGradient",
    "Reduction",
    "ResponseTokens",
    "ReverseKL",
    "SampledReverseKL",
    "SkewKL",
    "SkewReverseKL",
    "Taid",
    "Target",
    "TeacherTopK",
    "TeacherView",
    "TokenLoss",
    "TokenWeights",
    "Tokens",
    "TopLogProbs",
    "TotalVariation",
    "Veto",
    "chunked_loss",
    "fewer_ids",
    "kl",
    "log_probs",
    "top_evidence",
]
