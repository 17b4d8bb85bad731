"""Rank coupling (the paper's Eq. 7): 1 in an image where dropping the channel lowers the rank of the layer's maps.

As good as no choice: maps with more channels than pixels give all channels 0, others nearly all channels 1, and of
equal scores the earlier channel stays. The record says in how many groups. Eq. 10 is the paper's way out.
"""

from dcodp.calibration.maps import MapScores
from dcodp.importance.criterion import Criterion
from dcodp.importance.rank import rank_coupling

CRITERION = Criterion((MapScores(per_image=rank_coupling),))
