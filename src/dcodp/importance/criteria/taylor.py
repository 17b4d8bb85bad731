"""First-order Taylor expansion (Molchanov et al., CVPR 2019): the squared change of the loss when a filter goes."""

from dcodp.calibration.gradients import GradientScores
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion((GradientScores(per_batch=weights.taylor),))
