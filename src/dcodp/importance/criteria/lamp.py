"""LAMP (Lee et al., ICLR 2021) with filters in place of single weights."""

from dcodp.importance import weights
from dcodp.importance.criterion import WeightCriterion

CRITERION = WeightCriterion(lambda weight, _: weights.lamp(weight))
