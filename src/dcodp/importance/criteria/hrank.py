"""HRank (Lin et al., CVPR 2020): the matrix rank of each map, averaged over images."""

from dcodp.importance.criterion import MapCriterion
from dcodp.importance.rank import map_ranks

CRITERION = MapCriterion(map_ranks)
