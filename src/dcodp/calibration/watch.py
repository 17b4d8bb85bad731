"""Watch a network run: every layer's feature map after normalisation and activation, and every layer's input.

Works on any module without hooks: a dispatch mode recognises layers by the identity of their weights, and follows
each result through batch norm and activation functions until something else reads it. At that moment the map is
complete and is handed over; an input is handed over when the layer reads it. Nothing is stored, so memory is bounded
by what the forward pass itself holds.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from dcodp.graph.making import Makings

CONTRACTIONS = ("convolution", "mm", "addmm", "bmm", "deform_conv2d")
VIEWS = ("view", "_unsafe_view", "reshape", "detach", "alias", "contiguous", "clone", "_to_copy", "t")
UNTAGGED = ("hardswish", "hardswish_", "mish_", "_prelu_kernel")  # pointwise, though torch does not say so
NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_group_norm")


@dataclass(frozen=True)
class Geometry:
    """Which input positions a convolution reads for an output position; (vertical, horizontal)."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    transposed: bool = False


@dataclass(frozen=True, eq=False)
class Read:
    """A convolution or linear layer applied to its input.

    A linear layer is a 1×1 convolution of one-pixel images, one per row. `geometry` is None where an output is not a
    sum over fixed positions (deformable) or not two-dimensional.
    """

    name: str  # of the weight in the state dict
    x: Tensor  # [B, C, H, W]
    weight: Tensor  # [F, C, kh, kw], the same way round for a transposed convolution
    out: tuple[int, int]  # height and width of the output
    geometry: Geometry | None
    images: int  # what x holds comes from so many, as far as known: B unless it is rows, regions of images or the like
    linear: bool = False
    groups: int = 1  # of the convolution
    transposed: bool = False
    batch: int = 0  # the number of the calibration batch
    use: int = 1  # the how manyeth application of this weight in the batch
    remade: bool = False  # `weight` was computed from the parameter `name` (and maybe others) on the way

    @property
    def maps(self) -> Tensor:
        """[B, C, H, W]; a linear layer's rows as the positions of one image [1, C, N, 1]."""
        return self.x.flatten(1).t()[None, :, :, None] if self.linear else self.x


MapSink = Callable[[str, Tensor], None]
ReadSink = Callable[[Read], None]


@dataclass(frozen=True, eq=False)
class _Following:
    """A layer's result on its way through normalisation and activation."""

    name: str
    tensor: Tensor
    convolved: bool  # channels are dimension 1, else the last
    before: tuple[ref[Tensor], ...] = ()  # what it was on the way, as far as x · sigmoid(x) can read it again


class Watch(TorchDispatchMode):
    """`on_map(weight name, maps)` for every application of the layers `produced`, maps [B, C, H, W] as in `Read.maps`;
    `on_read(Read)` for every application of the layers `read`. Layers go by their weights' state-dict names.

    Call `flush` after the forward pass, outside the mode.
    """

    def __init__(
        self,
        network: nn.Module,
        produced: Collection[str] = (),
        on_map: MapSink = lambda name, maps: None,
        read: Collection[str] = (),
        on_read: ReadSink = lambda read: None,
        batch: int = 0,
    ):
        super().__init__()
        self.batch, self.uses = batch, Counter[str]()
        self.produced, self.on_map, self.read, self.on_read = set(produced), on_map, set(read), on_read
        wanted = self.produced | self.read
        self.names = {id(t): name for name, t in network.named_parameters() if name in wanted}
        self.sizes = {name: t.numel() for name, t in network.named_parameters()}
        own = {id(t) for t in [*network.parameters(), *network.buffers()]}
        self.makings = Makings(self.names, own)
        self.pending: dict[int, _Following] = {}  # by the id of the tensor, which the entry keeps alive
        self.images: int | None = None  # the leading dimension of the first convolution's input

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        followed = [self.pending[id(t)] for t in tensors if id(t) in self.pending]
        name = func._schema.name.split("::")[1]
        continues = len(followed) == 1 and _continues(func, name, followed[0], tensors)
        if not continues:
            for following in followed:
                self._finish(following)
        out = func(*args, **kwargs)
        results = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
        if not results:
            return out
        self.makings.record(tensors, results, name in CONTRACTIONS, func._schema.is_mutable)
        first = results[0]
        if continues and _merges_channels(name, followed[0], first):
            self._finish(followed[0])
        elif continues:
            past = self.pending.pop(id(followed[0].tensor))
            self.pending[id(first)] = _Following(past.name, first, past.convolved, (*past.before, ref(past.tensor)))
        self._apply(name, args, tensors, first)
        return out

    def _apply(self, operation: str, args: tuple[Any, ...], tensors: list[Tensor], out: Tensor) -> None:
        """Where the operation applies a layer's weight: hand over its input, follow its result."""
        if operation == "convolution" and self.images is None:
            self.images = len(args[0])
        contracts = operation in CONTRACTIONS
        weight = next((t for t in tensors if self._name(t) is not None), None)
        remade = weight is None and contracts
        if remade:
            weight = self._put_together(operation, args)
        if weight is None:
            return
        name = self._largest(weight) if remade else self._name(weight)
        if operation == "t":
            out._dcodp_weight = name  # type: ignore[attr-defined]
        elif contracts and name is not None:
            self._hand_over(name, operation, args, out, remade)

    def _hand_over(self, name: str, operation: str, args: tuple[Any, ...], out: Tensor, remade: bool) -> None:
        read = _read(name, operation, args, out, self.images, remade) if name in self.read else None
        if read is not None and read.x.numel():
            self.uses[name] += 1
            self.on_read(dataclasses.replace(read, batch=self.batch, use=self.uses[name], remade=remade))
        if name in self.produced:
            convolved = operation in ("convolution", "deform_conv2d")
            self.pending[id(out)] = _Following(name, out, convolved)

    def _name(self, tensor: Tensor) -> str | None:
        return self.names.get(id(tensor)) or getattr(tensor, "_dcodp_weight", None)

    def _put_together(self, operation: str, args: tuple[Any, ...]) -> Tensor | None:
        """The operand that takes a weight's place and is computed from layers' weights; of a product the right one."""
        convolves = operation in ("convolution", "deform_conv2d")
        weight = args[1] if convolves or operation != "addmm" else args[2]
        making = self.makings.of(weight) if weight.dim() > 1 else None
        if making is None or not making.names or not (convolves or making.pure):
            return None
        other = None if convolves else self.makings.of(args[0] if operation != "addmm" else args[1])
        return None if other is not None and other.pure else weight

    def _largest(self, weight: Tensor) -> str | None:
        making = self.makings.of(weight)
        names = () if making is None else making.names
        return max(names, key=lambda name: self.sizes[name], default=None)

    def _finish(self, following: _Following) -> None:
        self.pending.pop(id(following.tensor), None)
        tensor = following.tensor
        if not tensor.numel():  # a head of regions where no region was found
            return
        if following.convolved:
            self.on_map(following.name, _as_maps(tensor))
        else:
            self.on_map(following.name, tensor.reshape(-1, tensor.size(-1)).t()[None, :, :, None])

    def flush(self) -> None:
        """Hand over what nothing read."""
        for following in list(self.pending.values()):
            self._finish(following)


def _continues(func: Any, name: str, following: _Following, tensors: list[Tensor]) -> bool:
    """Whether the operation only normalises, activates or reshapes: its other operands are per-channel, or what the
    result was on its way."""
    if name in VIEWS:
        return not following.convolved or name not in ("view", "_unsafe_view", "reshape", "t")
    if name in NORMS:
        return True
    channels = following.tensor.size(1 if following.convolved else -1)
    own = {id(following.tensor), *(id(t) for past in following.before if (t := past()) is not None)}
    per_channel = all(id(t) in own or t.numel() <= channels for t in tensors)
    return per_channel and (torch.Tag.pointwise in func.tags or name in UNTAGGED)


def _merges_channels(name: str, following: _Following, out: Tensor) -> bool:
    """Whether a view of a linear layer's result mixes its last dimension with others, or splits it."""
    return name in VIEWS and not following.convolved and out.shape[-1:] != following.tensor.shape[-1:]


def _as_maps(tensor: Tensor) -> Tensor:
    """The result or input of a convolution in one, two or three dimensions → [B, C, H, W]."""
    return tensor[..., None] if tensor.dim() == 3 else tensor.flatten(3)


def _read(
    name: str, operation: str, args: tuple[Any, ...], out: Tensor, images: int | None, remade: bool
) -> Read | None:
    """The `Read` of one operation; None where the weight does not take the place of a layer's weight."""
    if operation in ("mm", "addmm"):
        x, weight = args[-2:] if operation == "mm" else args[1:3]
        if x.dim() != 2 or not (remade or hasattr(weight, "_dcodp_weight")):  # F.linear transposes its weight
            return None
        rows = x[:, :, None, None]
        return Read(name, rows, weight.t()[:, :, None, None], (1, 1), Geometry(), images or len(x), linear=True)
    if operation == "deform_conv2d":
        return Read(name, args[0], args[1], (out.size(2), out.size(3)), None, images or len(args[0]))
    if operation != "convolution" or args[0].dim() != args[1].dim():
        return None
    x, weight, _, stride, padding, dilation, transposed, _, groups = args
    weight = weight.transpose(0, 1) if transposed else weight
    flat = x.dim() < 5 and groups == 1
    geometry = Geometry(_pair(stride, 1), _pair(padding, 0), _pair(dilation, 1), transposed) if flat else None
    maps = _as_maps(out)
    size = (maps.size(2), maps.size(3))
    read = Read(name, _as_maps(x), _as_maps(weight), size, geometry, images or len(x))
    return dataclasses.replace(read, groups=groups, transposed=transposed)


def _pair(values: list[int], fill: int) -> tuple[int, int]:
    """A convolution's setting, given once per dimension (or once for all), for height and width."""
    height, width = (*values, fill)[:2]
    return (height, width)
