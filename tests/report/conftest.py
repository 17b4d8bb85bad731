"""Made-up records: the report needs no training."""

from collections.abc import Callable
from typing import Any

import pytest

from dcodp.config import Config, to_dict
from dcodp.records import Record

SIZES = {"dense": (3_000_000, 8_000_000_000, 40.0), "pruned": (750_000, 2_400_000_000, 20.0)}


def block(ap: float, stage: str = "dense", **changes: Any) -> dict[str, Any]:
    """An evaluation block with mAP50-95 = `ap` and everything else in proportion."""
    parameters, flops, latency_ms = SIZES["dense" if stage == "dense" else "pruned"]
    return {
        "map50": ap * 1.5,
        "map50_95": ap,
        "ap75": ap * 1.1,
        "ap_small": ap * 0.5,
        "ap_medium": ap,
        "ap_large": -1,
        "per_class": {
            "bird": {"map50": ap * 1.4, "map50_95": ap * 0.9},
            "cat": {"map50": ap * 1.6, "map50_95": ap * 1.1},
        },
        "parameters": parameters,
        "flops": flops,
        "latency_ms": latency_ms,
        "images": 448,
        "subset": True,
        "latency": {"threads": 1, "runs": 20, "device": "Test CPU", "median_ms": latency_ms},
        **changes,
    }


def made_up(
    model: str = "yolov8n",
    dataset: str = "voc2007",
    ratio: float = 0.5,
    seed: int = 0,
    aps: tuple[float | None, float | None, float | None] = (0.4, 0.01, 0.38),
    importance: str = "dcodp",
    interlayer: bool = True,
    status: str = "done",
    **changes: Any,
) -> Record:
    """One cell. `aps`: mAP50-95 dense, pruned, fine-tuned; `changes`: other configuration keys, or `finetuned=…` blocks
    as they are to be."""
    config = to_dict(Config())
    config["model"] |= {"name": model, "family": model[:6]}
    config["dataset"] |= {"name": dataset, "published_train": 5011}
    config["importance"]["name"] = importance
    config |= {"ratio": ratio, "seed": seed, "interlayer": interlayer}
    for key in set(changes) & set(config):
        config[key] = changes[key]
    stages = dict(zip(("dense", "pruned", "finetuned"), aps, strict=True))
    blocks = {stage: None if ap is None else block(ap, stage) for stage, ap in stages.items()}
    blocks |= {stage: changes[stage] for stage in set(changes) & set(blocks)}
    coupled = "" if interlayer else "-uncoupled"
    run_id = changes.get("run_id", f"{model}-{dataset}-{importance}{coupled}-{ratio}-{seed}")
    provenance = {
        "code": {"version": "0.1.0", "git": "abc123"},
        "libraries": {"torch": "2.15.0"},
        "device": "Test CPU",
        "seed": seed,
        "data_fingerprint": {"train": "beef", "val": "feed"},
        "images": {"train": 5011, "val": 448},
        "pruning": {"channels_removed": ratio},
        "wall_seconds": {"dense": 1.5},
    }
    return Record(run_id, status, config, **blocks, provenance=provenance)


@pytest.fixture
def cell() -> Callable[..., Record]:
    return made_up


@pytest.fixture
def evaluation() -> Callable[..., dict[str, Any]]:
    return block
