"""GraSP (Wang et al., ICLR 2020) for filters: those go first without which most gradient flow is left."""

from dcodp.calibration.gradients import GradientScores
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion((GradientScores(per_batch=weights.gradient_flow, of="flow"),))
