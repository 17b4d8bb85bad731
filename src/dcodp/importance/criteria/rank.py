"""Rank coupling (the paper's Eq. 7): 1 in an image where dropping the channel lowers the rank of the layer's maps."""

from dcodp.importance.criterion import MapCriterion
from dcodp.importance.rank import rank_coupling

CRITERION = MapCriterion(rank_coupling)
