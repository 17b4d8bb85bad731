"""The level of Python: the model's calls as it wrote them, before PyTorch takes them apart.

Here `x.view(b, self.heads, -1)` still shows where its sizes came from, and here it shows when something is read that no
label rule can follow: a number of elements, strides, memory.
"""

from dcodp.graph.calls.mode import CallMode

__all__ = ["CallMode"]
