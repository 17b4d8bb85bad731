"""Which artefacts two cells share: hashes of everything that decides them, and of nothing else. Needs no torch."""

from __future__ import annotations

from dcodp.config import Config, digest, parse_target, semantic


def dense_key(config: Config) -> str:
    """Identifies the dense detector: everything that decides its weights."""
    tree = semantic(config)
    decisive = {k: tree[k] for k in ("model", "dataset", "train", "image_size", "seed")}
    if config.train.epochs:  # the best epoch is the one that validates best under these thresholds
        thresholds = ("confidence", "iou", "max_detections", "multi_label")
        decisive["validated"] = {k: tree["evaluation"][k] for k in thresholds}
        decisive["devices"] = config.devices
    return digest(decisive)


def scores_key(config: Config) -> str:
    """Identifies the scores: the dense detector, the criterion and its calibration images."""
    return digest([dense_key(config), semantic(config)["importance"]])


def run_id(config: Config) -> str:
    """A readable name with the hash of everything that decides the result."""
    budget = f"{config.ratio:g}" if config.target is None else "".join(map(str, parse_target(config.target)))
    words = [config.model.name, config.dataset.name, config.importance.name, budget]
    return "-".join([*words, digest(semantic(config))])
