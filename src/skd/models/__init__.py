"""Loading, aligning and exporting the pair of models."""

from skd.models.adapters import Adapters
from skd.models.export import export_student
from skd.models.head import body, head_of, layers_of
from skd.models.own_teacher import AdapterOff, CurrentStudent, MovingAverage, OwnTeacher
from skd.models.pair import Pair, load_pair
from skd.models.score import padded_sequences, predicting, score

__all__ = [
    "AdapterOff",
    "Adapters",
    "CurrentStudent",
    "MovingAverage",
    "OwnTeacher",
    "Pair",
    "body",
    "export_student",
    "head_of",
    "layers_of",
    "load_pair",
    "padded_sequences",
    "predicting",
    "score",
]
