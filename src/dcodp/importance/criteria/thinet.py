"""ThiNet (Luo et al., ICCV 2017): greedily the channels whose removal changes the next layer's outputs least.

The score is the position in the order of removal. `rescale` then fits the next layer's weights by least squares. Its
authors sample 10 positions in 10 images per class; here importance.locations in each of importance.images.
"""

from dcodp.calibration.contributions import Contributions
from dcodp.importance.criterion import Criterion, position_of_removal
from dcodp.importance.thinet import thinet_order_from_gram

CRITERION = Criterion(
    (Contributions(),),
    lambda gram: position_of_removal(thinet_order_from_gram(gram)),
    scale="order",
    aggregates=("sum",),  # of what the consumers lose; the producing layers do not count
    repair="rescale",
)
