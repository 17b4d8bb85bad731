"""HRank (Lin et al., CVPR 2020): the matrix rank of each map, averaged over images (its authors took 640).

Linear layers and one-pixel maps have no rank to speak of and no score. Maps after SiLU nearly always have full rank:
results/calibration.md counts how few channels of a YOLO differ in score.
"""

from dcodp.calibration.maps import MapScores
from dcodp.importance.criterion import Criterion
from dcodp.importance.rank import map_ranks

CRITERION = Criterion((MapScores(per_image=map_ranks, planar=True),))
