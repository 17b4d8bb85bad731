"""The architectures that pruning is proven on, and the proof for one of them: `check(name)`.

Nets of packages that are not installed are passed over (`Architecture.missing`).
"""

from zoo.entry import Architecture
from zoo.nets import ARCHITECTURES
from zoo.proof import RATIOS, VISIBLE, check

__all__ = ["ARCHITECTURES", "RATIOS", "VISIBLE", "Architecture", "check"]
