"""L1 norm of the filters (Li et al., ICLR 2017)."""

from dcodp.importance import weights
from dcodp.importance.criterion import WeightCriterion

CRITERION = WeightCriterion(weights.l1)
