"""The quickstart: a real pair, four methods from one starting student, one table and one page."""

from skd.quickstart.story import run

__all__ = ["run"]
