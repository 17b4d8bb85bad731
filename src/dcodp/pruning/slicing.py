"""Apply a prune plan: slice tensors and set the numbers that modules keep about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dcodp.copying import copied
from dcodp.errors import InputError
from dcodp.graph.norms import become_pruned
from dcodp.pruning.plan import PrunePlan
from dcodp.pruning.wrappers import wrapper_of


def prune(network: nn.Module, plan: PrunePlan) -> nn.Module:
    """A new model without the channels that the plan leaves out; same state-dict names, device, dtype and mode.

    The dense model is left untouched. Raises InputError where the plan belongs to another architecture.
    """
    check_fits(network, plan)
    small = copied(network)
    small.zero_grad(set_to_none=True)
    modules = dict(small.named_modules(remove_duplicate=False))
    replaced: dict[int, Tensor] = {}
    done: set[tuple[int, str]] = set()  # a module may have several names
    for name, dims in plan.keep.items():
        owner, _, key = name.rpartition(".")
        if (id(modules[owner]), key) not in done:
            done.add((id(modules[owner]), key))
            _replace(modules[owner], key, dims, replaced)
    for name, values in plan.attributes.items():
        for key, value in values.items():
            setattr(modules[name], key, _new_value(getattr(modules[name], key, None), value))
        if "dense_channels" in values:  # a norm over channels, which must remember how many there were
            become_pruned(modules[name], values)
    return small


def check_fits(network: nn.Module, plan: PrunePlan) -> None:
    """Every tensor of the plan must be in the model, in its dense shape."""
    tensors = named_tensors(network)
    for name, shape in plan.shapes.items():
        if name not in tensors:
            why = wrapper_of(name, tensors) or "which this model does not have; use the architecture it was made for"
            raise InputError(f"the plan names {name}, {why}")
        if list(tensors[name].shape) != list(shape):
            raise InputError(
                f"the plan expects {name} of shape {list(shape)}, this model has {list(tensors[name].shape)}; "
                "use the dense architecture it was made for"
            )


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, shared ones under each of their names."""
    return {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }


def take(tensor: Tensor, dims: dict[int, list[int]]) -> Tensor:
    """The kept coordinates of a tensor, as a new contiguous tensor."""
    for dim, kept in dims.items():
        tensor = tensor.index_select(dim, torch.as_tensor(kept, device=tensor.device))
    return tensor.contiguous()


def _replace(module: nn.Module, key: str, dims: dict[int, list[int]], replaced: dict[int, Tensor]) -> None:
    """Swap one parameter or buffer; a tensor shared by several modules stays shared."""
    old = getattr(module, key)
    if id(old) not in replaced:
        with torch.no_grad():
            data = take(old.detach(), dims)
        replaced[id(old)] = (
            nn.Parameter(data, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else data
        )
        replaced[-id(old)] = old  # keeps the old tensor alive, so that its id is not given out again
    new = replaced[id(old)]
    if isinstance(old, nn.Parameter):
        module._parameters[key] = new  # type: ignore[assignment]
    else:
        module._buffers[key] = new


def _new_value(old: Any, new: Any) -> Any:
    """An attribute's value; of lists and tuples only the entries that change."""
    if isinstance(old, list | tuple):
        return type(old)(o if n is None else n for o, n in zip(old, new, strict=True))
    return new
