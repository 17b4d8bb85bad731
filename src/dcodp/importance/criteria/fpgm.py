"""FPGM (He et al., CVPR 2019): filters near the geometric median of their layer go first."""

from dcodp.calibration.weights import Weights
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion((Weights(),), weights.fpgm)
