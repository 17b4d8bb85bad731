"""Which label rule an ATen operation follows.

Four kinds cover nearly everything, and PyTorch's own tags tell them apart: pointwise operations join their operands'
labels (`arithmetic.py`); contractions join the contracted dimensions and pass the others on (`contractions.py`);
reductions and normalisations fix what they mix; data movement is run a second time on the labels themselves
(`movement.py`). An operation that is not known fixes every channel it touches.
"""

from dcodp.graph.rules.table import LAYER_RULES, TABLE, blind_to_sizes, operands_of, rule_for

__all__ = ["LAYER_RULES", "TABLE", "blind_to_sizes", "operands_of", "rule_for"]
