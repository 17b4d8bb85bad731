"""Watch a network run: hand over every layer's feature map, after its normalisation and activation, one at a time.

Works on any module without hooks: a dispatch mode recognises layers by the identity of their weights and follows each
result through batch norm and activation functions until something else reads it. At that moment the map is complete
and goes to `sink`; nothing is stored, so memory is bounded by what the forward pass itself holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

Sink = Callable[[str, Tensor], None]

CONTRACTIONS = ("convolution", "mm", "addmm", "bmm", "deform_conv2d")
VIEWS = ("view", "_unsafe_view", "reshape", "detach", "alias", "contiguous", "clone", "_to_copy", "t")
NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_group_norm")


class LayerMaps(TorchDispatchMode):
    """`sink(layer, maps)` for every application of one of `layers`; maps are [B, C, H, W].

    A linear layer's rows count as positions of one image: [N, C] becomes [1, C, N, 1].
    """

    def __init__(self, network: nn.Module, layers: Collection[str], sink: Sink):
        super().__init__()
        modules = dict(network.named_modules())
        self.layer_of = {id(modules[name].weight): name for name in layers}
        self.sink = sink
        self.pending: dict[int, tuple[str, Tensor]] = {}  # id of a tensor → its layer and the tensor itself

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        followed = [self.pending[id(t)] for t in tensors if id(t) in self.pending]
        name = func._schema.name.split("::")[1]
        continues = len(followed) == 1 and self._continues(func, name, followed[0][1], tensors)
        if not continues:
            for layer, tensor in followed:
                self._finish(layer, tensor)
        out = func(*args, **(kwargs or {}))
        first = next((t for t in tree_flatten(out)[0] if isinstance(t, Tensor)), None)
        if first is not None:
            self._follow(name, tensors, first, followed[0] if continues else None)
        return out

    def _continues(self, func: Any, name: str, map_: Tensor, tensors: list[Tensor]) -> bool:
        """Whether the operation only normalises, activates or reshapes: all its other operands are per-channel."""
        if name in VIEWS and map_.dim() == 4:
            return name not in ("view", "_unsafe_view", "reshape", "t")
        if name in VIEWS or name in NORMS:
            return True
        per_channel = all(t is map_ or t.numel() <= map_.size(1 if map_.dim() == 4 else -1) for t in tensors)
        return per_channel and (torch.Tag.pointwise in func.tags or name in ("hardswish_", "_prelu_kernel"))

    def _follow(self, name: str, tensors: list[Tensor], out: Tensor, followed: tuple[str, Tensor] | None) -> None:
        if followed is not None:
            layer, before = followed
            self.pending.pop(id(before), None)
            self.pending[id(out)] = (layer, out)
            return
        layers = [layer for t in tensors if (layer := self._weight_layer(t)) is not None]
        if layers and name == "t":
            out._dcodp_layer = layers[0]  # type: ignore[attr-defined]
        elif layers and name in CONTRACTIONS:
            self.pending[id(out)] = (layers[0], out)

    def _weight_layer(self, tensor: Tensor) -> str | None:
        return self.layer_of.get(id(tensor)) or getattr(tensor, "_dcodp_layer", None)

    def _finish(self, layer: str, tensor: Tensor) -> None:
        self.pending.pop(id(tensor), None)
        maps = tensor if tensor.dim() == 4 else tensor.reshape(-1, tensor.size(-1)).t()[None, :, :, None]
        self.sink(layer, maps)

    def flush(self) -> None:
        """Hand over what nothing read: call after the forward pass, outside the mode."""
        for layer, tensor in list(self.pending.values()):
            self._finish(layer, tensor)
