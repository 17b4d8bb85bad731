"""What a loss must know when a batch is shared among processes: sums over the whole batch.

Data-parallel training averages the gradients of its processes. That is the gradient of one process with the whole
batch only if every process divides its sum by the same number: the mean over processes of what each would divide by.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def mean_over_processes(value: Tensor, least_total: float = 0.0) -> Tensor:
    """The mean over the processes of a data-parallel training of `value`, whose total counts as `least_total` at least.

    In a single process that is `value`, as far as it is not less. Every process must call it as often as the others,
    whatever its share of the batch holds.
    """
    total, processes = value.detach().clone(), 1
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        processes = distributed.get_world_size()
    return total.clamp(min=least_total) / processes


def share_of_mean(count: int | Tensor, device: torch.device) -> Tensor:
    """`count` / its mean over the processes: what turns a mean over the own share into a part of the global mean."""
    own = torch.as_tensor(count, dtype=torch.float32, device=device)
    return own / mean_over_processes(own)
