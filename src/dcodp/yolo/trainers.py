"""Ultralytics' trainers for a net that is pruned: the same augmentation, losses, callbacks, loggers and resuming, and
the net stays as it is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from dcodp import _ultralytics

_ultralytics.prepare()  # before anything of ultralytics is imported

from torch import nn  # noqa: E402
from ultralytics.models.rtdetr.train import RTDETRTrainer  # noqa: E402
from ultralytics.models.yolo.classify.train import ClassificationTrainer  # noqa: E402
from ultralytics.models.yolo.detect.train import DetectionTrainer  # noqa: E402
from ultralytics.models.yolo.obb.train import OBBTrainer  # noqa: E402
from ultralytics.models.yolo.pose.train import PoseTrainer  # noqa: E402
from ultralytics.models.yolo.segment.train import SegmentationTrainer  # noqa: E402
from ultralytics.utils.torch_utils import unwrap_model  # noqa: E402

from dcodp.detectors.checkpoint import read_checkpoint  # noqa: E402
from dcodp.errors import InputError  # noqa: E402
from dcodp.files import write_atomically  # noqa: E402
from dcodp.yolo.teaching import Teaching  # noqa: E402


class _Whole(type(Path())):
    """A path whose file is replaced in one step."""

    def write_bytes(self, data: Any) -> int:
        write_atomically(Path(self), data)
        return len(data)


class _Pruned:
    """What differs from the stock trainer: its net is the one that is given, and a dense net may teach it."""

    teaching: Teaching | None = None
    _is_taught = False  # from the moment at which the net is set up
    data: Any
    model: Any
    last: Path
    best: Path

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """A copy of the net of the checkpoint, whatever its description says."""
        if not isinstance(weights, nn.Module):
            raise InputError("this trainer goes on with a net that is there; give model=small.pt, not a description")
        network: Any = copy.deepcopy(weights).float()
        classes = network.nc if hasattr(network, "nc") else len(network.names)
        if self.data["nc"] != classes:
            raise InputError(
                f"the net knows {classes} classes, the data have {self.data['nc']}; prune a net that "
                "was trained on them"
            )
        for parameter in network.parameters():
            parameter.requires_grad = parameter.is_floating_point()
        return network

    def save_model(self) -> Any:
        """A full disk, or a kill, leaves the checkpoints of the epoch before."""
        self.last, self.best = _Whole(self.last), _Whole(self.best)
        return super().save_model()  # type: ignore[misc]

    def _setup_train(self) -> None:
        super()._setup_train()  # type: ignore[misc]
        if self.teaching is not None:
            self.teaching.attach(unwrap_model(self.model))
            self._is_taught = True

    def _load_checkpoint_state(self, ckpt: Any) -> None:
        """The averaged net is made anew here: a copy that is to have no teacher."""
        teaching = self.teaching if self._is_taught else None
        if teaching is not None:
            teaching.detach()
        super()._load_checkpoint_state(ckpt)  # type: ignore[misc]
        if teaching is not None:
            teaching.attach(unwrap_model(self.model))


class PrunedDetectionTrainer(_Pruned, DetectionTrainer):
    pass


class PrunedSegmentationTrainer(_Pruned, SegmentationTrainer):
    pass


class PrunedPoseTrainer(_Pruned, PoseTrainer):
    pass


class PrunedOBBTrainer(_Pruned, OBBTrainer):
    pass


class PrunedClassificationTrainer(_Pruned, ClassificationTrainer):
    pass


class PrunedRTDETRTrainer(_Pruned, RTDETRTrainer):
    pass


OF_TASK: dict[str, Any] = {
    "detect": PrunedDetectionTrainer,
    "segment": PrunedSegmentationTrainer,
    "pose": PrunedPoseTrainer,
    "obb": PrunedOBBTrainer,
    "classify": PrunedClassificationTrainer,
}


def trainer_class(task: str, kind: str) -> Any:
    """The trainer for nets of a task; `kind`: the net's class in ultralytics.nn.tasks."""
    return PrunedRTDETRTrainer if kind == "RTDETRDetectionModel" else OF_TASK[task]


def PrunedTrainer(cfg: Any = None, overrides: Any = None, _callbacks: Any = None) -> Any:
    """To be given to ultralytics: `YOLO("small.pt").train(trainer=PrunedTrainer, data=…)`, also to resume.

    It is the trainer of the net's task. Raises InputError where no checkpoint is given.
    """
    overrides = dict(overrides or {})
    path = Path(str(overrides.get("model", "")))
    if path.suffix != ".pt" or not path.is_file():
        raise InputError(
            f"model={path} is no checkpoint; give the small.pt of `dcodp prune`, or what was trained from it"
        )
    kind = read_checkpoint(path).kind.rpartition(".")[2]
    chosen = trainer_class(overrides.get("task") or "detect", kind)
    given = {} if cfg is None else {"cfg": cfg}
    return chosen(overrides=overrides, _callbacks=_callbacks, **given)
