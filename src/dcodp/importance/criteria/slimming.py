"""Network Slimming (Liu et al., ICCV 2017): |γ| of the batch norms, after training with train.sparsity > 0.

Groups without a batch norm have no score and are left unpruned (torchvision's FrozenBatchNorm2d, which never can
have been sparse, does not count), and of a group's layers only those with a batch norm count. The authors' threshold
over all layers is allocation=global with aggregate=mean, which compares |γ| as they are; allocation=uniform takes the
same share of every group, as the paper does.
"""

from dcodp.calibration.weights import Scales
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion(
    (Scales(),),
    weights.batchnorm_scale,
    scale="net",
    aggregates=("sum", "mean", "max"),  # consumers have no scale of the channel
    trained_with="sparsity",
)
