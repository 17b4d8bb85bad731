"""Norms over channels that can lose channels: LayerNorm, RMSNorm and GroupNorm of one group, whoever wrote them.

Mean and variance mix the channels, but those of the dense net with zeroed channels have a closed form on the kept ones,
if one knows how many there were. So a module that is such a norm over labelled channels is pruned and told the dense
number (`norms.py`). Whether a module is one is decided by trying: its result must be the formula's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from dcodp.graph.labels import is_zero, labels_of, other_dims, result
from dcodp.graph.modules import Following
from dcodp.graph.norms import KINDS, epsilon, normalise
from dcodp.graph.recording import Recorder
from dcodp.graph.sizes import without_origins

AGREE = 3e-6  # relative: some compute in float32 whatever they are given


def watch_norms(recorder: Recorder) -> None:
    """Let the norms of a (copied) model be recognised when they run."""
    for name, module in recorder.named_modules.items():
        if _may_be_norm(module):
            module.forward = _Watched(recorder, name, module, module.forward)  # type: ignore[method-assign]


def _may_be_norm(module: nn.Module) -> bool:
    """A leaf called a norm (or made from one), with one vector to scale by and maybe one to shift by."""
    vectors = [p for p in module._parameters.values() if p is not None]
    return (
        ("norm" in type(module).__name__.lower() or isinstance(module, nn.LayerNorm | nn.RMSNorm))
        and not any(True for _ in module.children())
        and not isinstance(module, nn.modules.batchnorm._NormBase)
        and (not isinstance(module, nn.GroupNorm) or module.num_groups == 1)
        and not any(b is not None for b in module._buffers.values())
        and len(vectors) <= 2
        and all(p.dim() == 1 for p in vectors)
    )


class _Watched:
    """The forward of a module that may be a norm."""

    def __init__(self, recorder: Recorder, name: str, module: nn.Module, forward: Callable[..., Any]):
        self.recorder, self.name, self.module, self.forward = recorder, name, module, forward
        self.computed: set[tuple[str, int] | None] = set()  # kind and dimension of each call; None: something else
        self.channels: list[Any] = []  # labels of what it normed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if len(args) == 1 and not kwargs else None
        if isinstance(x, Tensor) and is_zero(x):
            for dim, labels in enumerate(labels_of(x)):
                out = self._tried(x, dim) if labels is not None else None
                if out is not None:
                    return out
        out = self.forward(*args, **kwargs)
        self._note(None, None)
        return out

    def _note(self, computed: tuple[str, int] | None, labels: Any) -> None:
        """A module that is a norm at one time (in evaluation, say) and something else at another stays as it is."""
        self.computed.add(computed)
        self.channels.append(labels)
        if len(self.computed) > 1:
            for channel in self.channels:
                self.recorder.fix(channel, "a norm at one time and something else at another")

    def _tried(self, x: Tensor, dim: int) -> Tensor | None:
        """The norm's result with labels, if it is one over this dimension."""
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            weight, bias = (self.module._parameters.get(name) for name in ("weight", "bias"))
            if any(v is not None and v.size(0) != x.size(dim) for v in (weight, bias)):
                return None
            kind = self._kind(x, dim)
            if kind is None:
                return None
            out = self._plain(x)
            if out.shape != x.shape or out.dtype != x.dtype:
                return None
            self._label(x, dim, kind, weight, bias, out)
            return out

    def _plain(self, x: Tensor) -> Tensor:
        """The forward without observation."""
        own = vars(self.module)
        kept = dict(own)
        own.update({key: without_origins(value) for key, value in kept.items() if key != "forward"})
        try:
            return self.forward(x)
        finally:
            own.update(kept)

    def _dense(self, x: Tensor, dim: int) -> int:
        """How many channels there are, or were before an earlier pruning."""
        return int(getattr(self.module, "dense_channels", x.size(dim)))

    def _kind(self, x: Tensor, dim: int) -> str | None:
        """Which formula the module computes, tried in float64 and with parameters at random; None: none of them."""
        vectors = {name: p for name, p in self.module._parameters.items() if p is not None}
        kept = {name: p.data for name, p in vectors.items()}
        generator = torch.Generator().manual_seed(0)
        try:
            for p in vectors.values():
                p.data = (torch.rand(p.shape, generator=generator, dtype=torch.float64) + 0.5).to(p.device)
            out = self._plain(x.double())
            return next((kind for kind in KINDS if self._agrees(kind, x, dim, out)), None)
        except Exception:  # it wants other numbers: then it is left to the label rules
            return None
        finally:
            for name, p in vectors.items():
                p.data = kept[name]

    def _agrees(self, kind: str, x: Tensor, dim: int, out: Any) -> bool:
        if not isinstance(out, Tensor) or out.shape != x.shape:
            return False
        if kind == "group" and (dim != 1 or any(a is not None for a in labels_of(x)[2:])):
            return False
        weight, bias = (self.module._parameters.get(name) for name in ("weight", "bias"))
        eps, back = epsilon(self.module, torch.float64), dim - x.dim()
        formula = normalise(x.double(), kind, back, self._dense(x, dim), eps, weight, bias)
        scale = float(out.abs().max())
        return bool((formula - out).abs().max() <= AGREE * scale) if scale > 0 else False

    def _label(self, x: Tensor, dim: int, kind: str, weight: Tensor | None, bias: Tensor | None, out: Tensor) -> None:
        recorder, channel = self.recorder, labels_of(x)[dim]
        assert channel is not None
        self._note((kind, dim - x.dim()), channel)
        recorder.used.update(recorder.owner[id(t)] for t in (x,) if id(t) in recorder.owner)
        for vector in (weight, bias):
            if vector is not None:
                recorder.meet(channel, labels_of(vector)[0])
                recorder.used.add(recorder.owner[id(vector)])
        axes = list(labels_of(x))
        zero = kind == "rms" or weight is not None
        result(out, axes, zero and (bias is None or not other_dims(axes, dim)))
        recorder.operations.record([x], [out], ())
        recorder.seen.append(weakref.ref(out))
        constants = {
            "dense_channels": self._dense(x, dim),
            "normalised_dim": dim - x.dim(),
            "normalised_by": list(KINDS).index(kind),
        }
        recorder.followings += [Following(self.name, key, channel, 0, 1, plus=n) for key, n in constants.items()]
        shape = getattr(self.module, "normalized_shape", None)
        if isinstance(shape, tuple | list) and len(shape) == 1:
            recorder.followings.append(Following(self.name, "normalized_shape", channel, position=0))
