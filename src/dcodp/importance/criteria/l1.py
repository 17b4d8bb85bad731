"""L1 norm of the filters (Li et al., ICLR 2017)."""

from dcodp.calibration.weights import Weights
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion((Weights(),), weights.l1)
