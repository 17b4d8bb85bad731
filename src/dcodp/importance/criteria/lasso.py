"""Channel pruning by LASSO (He, Zhang and Sun, ICCV 2017): the penalty λ at which a channel joins the solution.

The target is what all channels of the group contribute together to the next layer's outputs, hence c = G 1.
`rescale` then refits the next layer, one factor per channel where the authors refit every kernel.
"""

from dcodp.calibration.contributions import Contributions
from dcodp.importance.criterion import Criterion
from dcodp.importance.lasso import lasso_scores

CRITERION = Criterion(
    (Contributions(),),
    lambda gram: lasso_scores(gram, gram.sum(1)),
    aggregates=("sum",),  # of what the consumers lose; the producing layers do not count
    repair="rescale",
)
