"""Interleaved sampling: noise, warps, gates, the cursor cache and the loop."""

from skd.sampling.execution import Compiled, Eager
from skd.sampling.gate import Drafted, Gate, Verdict, teacher_draw
from skd.sampling.gates import AcceptAll, AcceptNone, Interpolated, MinProb, SwitchOnce, TopK, TopP
from skd.sampling.interleave import interleave
from skd.sampling.noise import Purpose, uniform
from skd.sampling.prompts import PromptCache
from skd.sampling.warp import Warp, draw

__all__ = [
    "AcceptAll",
    "AcceptNone",
    "Compiled",
    "Drafted",
    "Eager",
    "Gate",
    "Interpolated",
    "MinProb",
    "PromptCache",
    "Purpose",
    "SwitchOnce",
    "TopK",
    "TopP",
    "Verdict",
    "Warp",
    "draw",
    "interleave",
    "teacher_draw",
    "uniform",
]
