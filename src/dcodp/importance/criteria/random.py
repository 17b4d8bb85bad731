"""Uniform random scores, drawn anew for every layer: the baseline that every criterion has to beat."""

from dcodp.importance import weights
from dcodp.importance.criterion import WeightCriterion

CRITERION = WeightCriterion(lambda weight, generator: weights.random(len(weight), generator))
