"""Training: the loop, its step, and everything that makes a run resumable."""

from skd.train.loop import TrainResult, train

__all__ = ["TrainResult", "train"]
