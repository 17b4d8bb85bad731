"""HRank (Lin et al., CVPR 2020): the matrix rank of each map, averaged over images (its authors took 640).

Linear layers and one-pixel maps have no rank to speak of and no score. Maps after SiLU nearly always have full rank:
results/calibration.md counts how few channels of a YOLO differ in score.
"""

from dcodp.importance.criterion import MapCriterion
from dcodp.importance.rank import map_ranks

CRITERION = MapCriterion(map_ranks, planar=True)
