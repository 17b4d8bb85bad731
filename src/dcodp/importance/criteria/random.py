"""Uniform random scores, one draw for a group: the baseline that every criterion has to beat."""

from dcodp.calibration.weights import Draws
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion(
    (Draws(),),
    weights.random,
    scale="net",
    aggregates=("sum",),  # one draw for a group, whatever its layers
)
