"""Network Slimming (Liu et al., ICCV 2017): |γ| of the batch norms, after training with train.sparsity > 0.

Groups without a trainable batch norm have no score and are left unpruned; frozen batch norms never were sparse.
"""

from dcodp.importance import weights
from dcodp.importance.criterion import ScaleCriterion

CRITERION = ScaleCriterion(weights.batchnorm_scale)
