"""Methods x seeds x settings from one starting student: cells that can be resumed, paired tests, one page."""

from skd.compare.command import compare, show_states
from skd.compare.plan import Plan, load_plan

__all__ = ["Plan", "compare", "load_plan", "show_states"]
