"""First-order Taylor expansion (Molchanov et al., CVPR 2019): the squared change of the loss when a filter goes."""

from dcodp.importance import weights
from dcodp.importance.criterion import GradientCriterion

CRITERION = GradientCriterion(weights.taylor)
