"""CHIP (Sui et al., NeurIPS 2021): channel independence, the very score that the paper's Eq. 10 takes over.

Its authors prune layer by layer, which is this criterion with interlayer=false, and average over 640 images.
"""

from dcodp.calibration.maps import MapScores
from dcodp.importance.criterion import Criterion
from dcodp.importance.nuclear import nuclear_coupling

CRITERION = Criterion((MapScores(per_image=nuclear_coupling),))
