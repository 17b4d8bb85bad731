"""Importance: pure functions from maps, contributions, weights or gradients to a score per channel; lowest go first."""

from dcodp.importance import weights
from dcodp.importance.greedy import greedy_removal_order
from dcodp.importance.lasso import lasso_path, lasso_scores, lasso_select
from dcodp.importance.nuclear import direct_nuclear_coupling, gram, nuclear_coupling, nuclear_coupling_from_gram
from dcodp.importance.rank import average_rank, rank_coupling
from dcodp.importance.thinet import (
    contribution_gram,
    thinet_order,
    thinet_order_from_gram,
    thinet_scales,
    thinet_scales_from_gram,
)
from dcodp.importance.weights import batchnorm_scale, fpgm, l1, l2, lamp, random, taylor

__all__ = [
    "average_rank",
    "batchnorm_scale",
    "contribution_gram",
    "direct_nuclear_coupling",
    "fpgm",
    "gram",
    "greedy_removal_order",
    "l1",
    "l2",
    "lamp",
    "lasso_path",
    "lasso_scores",
    "lasso_select",
    "nuclear_coupling",
    "nuclear_coupling_from_gram",
    "random",
    "rank_coupling",
    "taylor",
    "thinet_order",
    "thinet_order_from_gram",
    "thinet_scales",
    "thinet_scales_from_gram",
    "weights",
]
