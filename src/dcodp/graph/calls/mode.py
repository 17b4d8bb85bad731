"""Watches torch functions as the model calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dcodp.graph.calls import attention, cuts, readings, views
from dcodp.graph.calls.shapes import SHAPE_GETTER, traced_shape, traced_size
from dcodp.graph.recording import Recorder
from dcodp.graph.sizes import traced_in, without_origins

Handler = Callable[[Recorder, Any, Any, Any], None]

F = nn.functional
NOISE = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
         torch.feature_dropout, torch.alpha_dropout)  # fmt: skip
# Functions that are told a number of groups, which the label rules look after.
GROUPED = (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.group_norm)
# What PyTorch's operators are called without Python around them (torch.ops.aten.view).
OPERATORS = {"aten::scaled_dot_product_attention": F.scaled_dot_product_attention}


class CallMode(TorchFunctionMode):
    """Turns sizes that a call is given into rules, and shapes that it reads into numbers that remember."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == SHAPE_GETTER:
            return traced_shape(args[0], func(*args), self.recorder.uses)
        if func is torch.Tensor.size:
            return traced_size(args[0], args, without_origins(kwargs), self.recorder.uses)
        if func in readings.COUNTS:
            return readings.count(self.recorder, args)
        if func in NOISE:  # does the same to all channels, or nothing
            return args[0] if args else kwargs["input"]
        out = self._run(func, args, kwargs)
        handler = HANDLERS.get(_known_as(func))
        if handler is not None:
            handler(self.recorder, args, kwargs, out)
        readings.check_observed(self.recorder, func, args, kwargs, out)
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The call itself, with plain ints; what the label rules need to know of the others is kept meanwhile."""
        traced = [*traced_in(args), *traced_in(kwargs)]
        for value in traced:
            value.note_read() if _sizes_understood(func) else value.note_value()
        self.recorder.hint, self.recorder.sizes_seen = views.sizes_hinted(func, args, kwargs), func in HANDLERS
        self.recorder.groups = _groups_given(func, args, kwargs) if func in GROUPED else None
        try:
            return func(*without_origins(args), **without_origins(kwargs)) if traced else func(*args, **kwargs)
        finally:
            self.recorder.hint, self.recorder.sizes_seen, self.recorder.groups = None, False, None


def _known_as(func: Any) -> Any:
    """The function of torch that an operator (torch.ops.aten.…) is, where there is a handler for it."""
    schema = getattr(func, "_schema", None)
    name = schema.name if schema is not None else getattr(func, "_qualified_op_name", None)
    return OPERATORS.get(name, func) if name is not None else func


def _sizes_understood(func: Any) -> bool:
    """Whether handlers or label rules look after the integers that a function is given."""
    return func in HANDLERS or func in GROUPED or getattr(func, "__name__", "").startswith("deform_conv2d")


def _groups_given(func: Any, args: Any, kwargs: Any) -> Any:
    """The number of groups as the model wrote it; None where it is left out."""
    position = 1 if func is F.group_norm else 7 if "transpose" in func.__name__ else 6
    name = "num_groups" if func is F.group_norm else "groups"
    return args[position] if len(args) > position else kwargs.get(name)


def _handlers() -> dict[Any, Handler]:
    tensor = torch.Tensor
    groups: dict[Handler, tuple[Any, ...]] = {
        views.view: views.VIEWS,
        views.unflatten: views.UNFLATTENS,
        views.expand: (tensor.expand,),
        views.like_other: (tensor.view_as, tensor.reshape_as, tensor.expand_as),
        views.repeat: (tensor.repeat, tensor.tile, torch.tile),
        views.make: (torch.zeros,),
        views.make_filled: (torch.ones, torch.full, torch.empty),
        views.make_alike: (tensor.new_ones, tensor.new_full, tensor.new_empty),
        views.make_zeros_alike: (tensor.new_zeros,),
        cuts.split: (torch.split, tensor.split, tensor.split_with_sizes, torch.split_with_sizes),
        cuts.chunk: (torch.chunk, tensor.chunk, torch.tensor_split, tensor.tensor_split),
        cuts.narrow: (torch.narrow, tensor.narrow),
        cuts.getitem: (tensor.__getitem__, tensor.__setitem__),
        attention.scaled_attention: (F.scaled_dot_product_attention,),
        attention.multi_head_attention: (F.multi_head_attention_forward,),
    }
    return {function: handler for handler, functions in groups.items() for function in functions}


HANDLERS = _handlers()
