"""Which artefacts two cells share: hashes of everything that decides them, and of nothing else. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dcodp.config import Config, semantic
from dcodp.files import digest
from dcodp.targets import parse_target


@dataclass(frozen=True)
class Identity:
    """All keys of a cell."""

    dense: str  # the dense detector: everything that decides its weights
    evidence: str  # what calibration shows: the dense detector, the images and how they are looked at
    scores: str  # the scores: the dense detector, the criterion and its calibration images
    run: str  # a readable name with the hash of everything that decides the result


def identify(config: Config) -> Identity:
    tree = semantic(config)
    dense, importance = _dense(config, tree), tree["importance"]
    looked = {k: importance[k] for k in ("images", "batch", "locations", "seed")}
    return Identity(dense, digest([dense, looked]), digest([dense, importance]), _run(config, tree))


def dense_key(config: Config) -> str:
    return identify(config).dense


def evidence_key(config: Config) -> str:
    return identify(config).evidence


def scores_key(config: Config) -> str:
    return identify(config).scores


def run_id(config: Config) -> str:
    return _run(config, semantic(config))


def _dense(config: Config, tree: dict[str, Any]) -> str:
    decisive = {k: tree[k] for k in ("model", "dataset", "train", "image_size", "seed")}
    of_test = ("test", "test_images", "test_limit", "published_test")
    decisive["dataset"] = {k: v for k, v in tree["dataset"].items() if k not in of_test}
    if config.train.epochs:  # the best epoch is the one that validates best under these thresholds
        thresholds = ("confidence", "iou", "max_detections", "multi_label")
        decisive["validated"] = {k: tree["evaluation"][k] for k in thresholds}
        decisive["devices"] = config.devices
    return digest(decisive)


def _run(config: Config, tree: dict[str, Any]) -> str:
    budget = f"{config.ratio:g}" if config.target is None else "".join(map(str, parse_target(config.target)))
    words = [config.model.name, config.dataset.name, config.importance.name, budget]
    return "-".join([*words, digest(tree)])
