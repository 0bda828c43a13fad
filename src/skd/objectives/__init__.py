"""What is learned from a response: token losses, their weights, and the chunked sum over a batch."""

from skd.objectives.chunked import DEFAULT_BUDGET_BYTES, chunked_loss
from skd.objectives.divergences import JSD, NLL, ForwardKL, ReverseKL, TokenLoss, log_probs
from skd.objectives.objective import Objective, Reduction

__all__ = [
    "DEFAULT_BUDGET_BYTES",
    "JSD",
    "NLL",
    "ForwardKL",
    "Objective",
    "Reduction",
    "ReverseKL",
    "TokenLoss",
    "chunked_loss",
    "log_probs",
]
