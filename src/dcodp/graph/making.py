"""What a tensor is made of: a layer's weight may be re-assembled (standardised, masked, summed) before it is applied.

While a net runs, every result is known to be of parameters, of constants or of data, through any operation and through
writes into a buffer. A convolution whose weight is made of parameters is an application of the layer that owns them.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Making:
    """`names`: of the parameters in it. `pure`: nothing but parameters and constants; else also (smaller) data, as in
    dynamic convolutions."""

    names: tuple[str, ...] = ()
    pure: bool = True


CONSTANT = Making()


class Makings:
    """What every tensor of a running net is made of; `of(tensor)` is None for data.

    `named`: id of a parameter → its name; `own`: ids of all parameters and buffers. Their tensors are not touched.
    """

    def __init__(self, named: Mapping[int, str], own: set[int]):
        self.named, self.own = named, own
        self.known: dict[int, tuple[weakref.ref[Tensor], Making | None]] = {}

    def of(self, tensor: Tensor) -> Making | None:
        reference, making = self.known.get(id(tensor), (None, None))
        if reference is not None and reference() is tensor:
            return making
        name = self.named.get(id(tensor)) or getattr(tensor, "_dcodp_weight", None)
        if name is not None:
            return Making((name,)) if tensor.dim() > 1 else CONSTANT
        return CONSTANT if id(tensor) in self.own else None

    def record(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], contracts: bool, writes: bool) -> None:
        """`contracts`: the operation applies a weight to something; `writes`: into its first operand."""
        making = _combined(inputs, [self.of(tensor) for tensor in inputs], contracts)
        for tensor in outputs:
            for target in (tensor, tensor._base) if writes else (tensor,):
                if target is not None and id(target) not in self.own:
                    self.known[id(target)] = (weakref.ref(target), making)


def _combined(inputs: Sequence[Tensor], makings: Sequence[Making | None], contracts: bool) -> Making | None:
    names = tuple(dict.fromkeys(name for making in makings if making is not None for name in making.names))
    if all(making is not None and making.pure for making in makings):
        return Making(names)
    if contracts or not names:
        return None
    known = max(t.numel() for t, making in zip(inputs, makings, strict=True) if making is not None and making.names)
    data = (t.numel() for t, making in zip(inputs, makings, strict=True) if making is None)
    return Making(names, pure=False) if all(size <= known for size in data) else None
