"""Importance: pure functions from maps, contributions, weights or gradients to a score per channel; lowest go first."""

from dcodp.importance import weights
from dcodp.importance.criteria import criterion, names, register
from dcodp.importance.criterion import (
    ContributionCriterion,
    Criterion,
    DrawnCriterion,
    GradientCriterion,
    GramCriterion,
    MapCriterion,
    ScaleCriterion,
    WeightCriterion,
)
from dcodp.importance.greedy import greedy_removal_order
from dcodp.importance.lasso import lasso_path, lasso_scores, lasso_select
from dcodp.importance.nuclear import direct_nuclear_coupling, gram, nuclear_coupling, nuclear_coupling_from_gram
from dcodp.importance.rank import average_rank, map_ranks, rank_coupling
from dcodp.importance.rescale import rescale
from dcodp.importance.score import observe
from dcodp.importance.slimming import prunable_scales, sparsity_penalty
from dcodp.importance.statistics import Statistics
from dcodp.importance.thinet import (
    contribution_gram,
    thinet_order,
    thinet_order_from_gram,
    thinet_scales,
    thinet_scales_from_gram,
)
from dcodp.importance.weights import batchnorm_scale, fpgm, l1, l2, lamp, random, taylor

__all__ = [
    "ContributionCriterion",
    "Criterion",
    "DrawnCriterion",
    "GradientCriterion",
    "GramCriterion",
    "MapCriterion",
    "ScaleCriterion",
    "Statistics",
    "WeightCriterion",
    "average_rank",
    "batchnorm_scale",
    "contribution_gram",
    "criterion",
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
    "map_ranks",
    "names",
    "nuclear_coupling",
    "nuclear_coupling_from_gram",
    "observe",
    "prunable_scales",
    "random",
    "rank_coupling",
    "register",
    "rescale",
    "sparsity_penalty",
    "taylor",
    "thinet_order",
    "thinet_order_from_gram",
    "thinet_scales",
    "thinet_scales_from_gram",
    "weights",
]
