"""How good, how large and how fast a detector is."""

from dcodp.evaluation.coco_metric import coco_statistics
from dcodp.evaluation.complexity import LatencyResult, count_flops, count_parameters, latency_ms
from dcodp.evaluation.measuring import (
    Predictions,
    accuracy,
    cost,
    evaluate,
    fitness,
    load_predictions,
    predict,
    save_predictions,
    voc_statistics,
)
from dcodp.evaluation.voc_metric import voc_ap

__all__ = [
    "LatencyResult",
    "Predictions",
    "accuracy",
    "coco_statistics",
    "cost",
    "count_flops",
    "count_parameters",
    "evaluate",
    "fitness",
    "latency_ms",
    "load_predictions",
    "predict",
    "save_predictions",
    "voc_ap",
    "voc_statistics",
]
