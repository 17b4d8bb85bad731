"""Nuclear-norm coupling (the paper's Eq. 10): how much of a layer's nuclear norm goes with a channel.

Small where the map is nearly a linear combination of the layer's other maps. Computed per image, averaged, and used
one-shot: the m smallest go (Eq. 11).
"""

from dcodp.calibration.maps import MapScores
from dcodp.importance.criterion import Criterion
from dcodp.importance.nuclear import nuclear_coupling

CRITERION = Criterion((MapScores(per_image=nuclear_coupling),))
