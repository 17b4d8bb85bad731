"""Nuclear-norm coupling with re-scoring: one channel at a time, the rest scored again after each removal.

The score is the position in that order. Unlike the one-shot choice (Eq. 11) this never removes a channel together
with all its duplicates. It works on the Gram matrix over all images, so one dependency has to hold on all of them.
"""

from dcodp.calibration.maps import MapGrams
from dcodp.importance.criterion import Criterion, position_of_removal
from dcodp.importance.greedy import greedy_removal_order

CRITERION = Criterion(
    (MapGrams(),),
    lambda gram: position_of_removal(greedy_removal_order(gram)),
    scale="order",
    aggregates=("sum", "consumer"),  # the inner products of all layers, summed
)
