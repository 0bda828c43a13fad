"""Scores with intervals: running a model over a task, and the statistics of the outcome."""
