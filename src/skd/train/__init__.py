"""Training: the loop, its step, and everything that makes a run resumable.

The module can be called: ``skd.train(config)`` is ``skd.train.train(config)``, although importing this package binds it
to the name ``skd.train``.
"""

import sys
from types import ModuleType

from skd.train.loop import TrainResult, train

__all__ = ["TrainResult", "train"]


class _CallableModule(ModuleType):
    __call__ = staticmethod(train)


sys.modules[__name__].__class__ = _CallableModule
