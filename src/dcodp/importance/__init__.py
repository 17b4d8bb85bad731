"""Importance: pure functions from maps, contributions, weights or gradients to a score per channel; lowest go first."""

from dcodp.calibration.inner_products import gram
from dcodp.calibration.sampling import contribution_gram
from dcodp.importance import weights
from dcodp.importance.criteria import criterion, names, register
from dcodp.importance.criterion import Criterion
from dcodp.importance.greedy import greedy_removal_order
from dcodp.importance.lasso import lasso_path, lasso_scores
from dcodp.importance.nuclear import direct_nuclear_coupling, nuclear_coupling
from dcodp.importance.rank import average_rank, map_ranks, rank_coupling
from dcodp.importance.scoring import evidence_for, group_scores, score
from dcodp.importance.slimming import prunable_scales, sparsity_penalty
from dcodp.importance.thinet import (
    thinet_order,
    thinet_order_from_gram,
    thinet_scales_from_gram,
)
from dcodp.importance.weights import batchnorm_scale, fpgm, gradient_flow, l1, l2, lamp, random, snip, taylor

__all__ = [
    "Criterion",
    "average_rank",
    "batchnorm_scale",
    "contribution_gram",
    "criterion",
    "direct_nuclear_coupling",
    "evidence_for",
    "fpgm",
    "gradient_flow",
    "gram",
    "greedy_removal_order",
    "group_scores",
    "l1",
    "l2",
    "lamp",
    "lasso_path",
    "lasso_scores",
    "map_ranks",
    "names",
    "nuclear_coupling",
    "prunable_scales",
    "random",
    "rank_coupling",
    "register",
    "score",
    "snip",
    "sparsity_penalty",
    "taylor",
    "thinet_order",
    "thinet_order_from_gram",
    "thinet_scales_from_gram",
    "weights",
]
