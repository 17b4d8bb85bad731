"""The architecture of an ultralytics net as plain data, and the net that is built from it.

What a checkpoint says of its architecture is not trusted: ultralytics' builder evaluates the activation's text and
calls whatever function of its module bears a layer's name. So both are checked first.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from dcodp import _ultralytics
from dcodp.detectors.checkpoint import Checkpoint
from dcodp.errors import InputError

TASKS = {  # of ultralytics' classes of nets that can be pruned, and the task of each
    "DetectionModel": "detect",
    "RTDETRDetectionModel": "detect",
    "SegmentationModel": "segment",
    "PoseModel": "pose",
    "OBBModel": "obb",
    "ClassificationModel": "classify",
}
SAME = {"YOLOv10DetectionModel": "DetectionModel"}  # what classes of old checkpoints are called now
ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Za-z0-9]+\(((inplace=)?(True|False)|[0-9.]*)\)")
BRANCHES = ("cv3", "one2one_cv3")  # class branches of a head: how wide they are depends on the number of classes


@dataclass(frozen=True)
class Description:
    """`kind`: the class in ultralytics.nn.tasks; `yaml`: its model dictionary, number of classes and scale included;
    `class_width`: the width of the class branch where weights of other classes have left it as it was."""

    kind: str
    yaml: dict[str, Any]
    names: dict[int, str]
    class_width: int | None = None
    imports: tuple[str, ...] = field(default=())  # modules of the user's own with further layers

    @property
    def task(self) -> str:
        return TASKS[self.kind]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, Any], imports: Sequence[str] = ()) -> Description:
        """Of what `to_dict` gave, also after JSON. Modules are imported only where `imports` names them again."""
        if tree["kind"] not in TASKS:  # it is looked up among everything in ultralytics' module
            raise InputError(f"the net's description asks for {tree['kind']!r}, which is no net that can be pruned")
        missing = [name for name in tree.get("imports", ()) if name not in imports]
        if missing:
            raise InputError(f"the net has layers of {', '.join(missing)}; add --import {' --import '.join(missing)}")
        names = {int(key): str(name) for key, name in tree["names"].items()}
        return cls(tree["kind"], tree["yaml"], names, tree.get("class_width"), tuple(imports))


def described(checkpoint: Checkpoint, path: str, imports: Sequence[str] = ()) -> Description:
    """What a checkpoint says of its net. Raises InputError, with what could be done, where that is not enough."""
    module, _, name = checkpoint.kind.rpartition(".")
    name = SAME.get(name, name)
    if not module:
        raise InputError(
            f"{path} holds weights alone; give the .pt file that ultralytics wrote, or prune it by "
            "`dcodp prune --model NAME`"
        )
    if module.partition(".")[0] in ("models", "yolov5"):
        raise InputError(
            f"{path} is of YOLOv5's own repository, whose nets ultralytics does not load; train yolov5nu.pt (or "
            "another …u.pt) on your data with ultralytics and prune that"
        )
    tree = checkpoint.attributes.get("yaml")
    if name not in TASKS or not isinstance(tree, dict):
        raise InputError(f"{path} holds a {checkpoint.kind or 'net'}; nets of these can be pruned: {', '.join(TASKS)}")
    names = dict(enumerate(checkpoint.names or ())) or {k: str(k) for k in range(int(tree.get("nc", 0)))}
    return Description(name, tree, names, class_width(checkpoint), tuple(imports))


def class_width(checkpoint: Checkpoint) -> int | None:
    """Input channels of the last layer of the class branch's first level."""
    name = next((k for k in checkpoint.state if re.fullmatch(r"model\.\d+\.(one2one_)?cv3\.0\.2\.weight", k)), None)
    return None if name is None else checkpoint.state[name].shape[1]


def build(description: Description) -> nn.Module:
    """The dense net, initialised from torch's global generator; float32, in train mode.

    Raises InputError for a description that names what is no layer.
    """
    _ultralytics.prepare()
    from ultralytics.nn import tasks

    tree = copy.deepcopy(description.yaml)
    with _known(description.imports):
        _check(tree)
        network = _built(getattr(tasks, description.kind), tree)
        width = description.class_width
        if width is not None and _widths(network) not in (set(), {width}):
            _widen(network, _built(getattr(tasks, description.kind), {**tree, "nc": width}))
    network.names = dict(description.names) or network.names  # type: ignore[union-attr]
    network.task = description.task  # type: ignore[assignment]
    network.nc = len(network.names)  # type: ignore[assignment, arg-type]  # RT-DETR's loss asks for it
    return network


def _built(kind: Any, tree: dict[str, Any]) -> Any:
    try:
        return kind(copy.deepcopy(tree), ch=tree.get("channels", tree.get("ch", 3)), verbose=False)
    except InputError:
        raise
    except Exception as error:  # whatever a description that does not fit together leads to
        reason = str(error).split("\n")[0]
        raise InputError(f"the architecture that is described cannot be built ({reason})") from error


def _widths(network: Any) -> set[int]:
    return {level[-1].in_channels for branch in _branches(network).values() for level in branch}


def _branches(network: Any) -> dict[str, Any]:
    head = network.model[-1]
    found: dict[str, Any] = {name: getattr(head, name, None) for name in BRANCHES}
    return {k: b for k, b in found.items() if isinstance(b, nn.ModuleList) and _is_regular(b)}


def _is_regular(branch: Any) -> bool:
    return hasattr(branch[0][-1], "in_channels")


def _widen(network: Any, wide: Any) -> None:
    """The class branches of `wide`, a net for so many classes that they are as wide as wanted, with their last layers
    for the classes of `network`: what ultralytics' trainer does with weights of other classes."""
    for name, branch in _branches(network).items():
        others = getattr(wide.model[-1], name)
        for own, other in zip(branch, others, strict=True):
            other[-1] = nn.Conv2d(other[-1].in_channels, own[-1].out_channels, 1)
        setattr(network.model[-1], name, others)
    network.model[-1].bias_init()


@contextmanager
def _known(imports: Sequence[str]) -> Iterator[None]:
    """Within, ultralytics' builder finds the layers of the user's modules."""
    import importlib

    from ultralytics.nn import tasks

    for name in imports:
        here = os.getcwd()
        sys.path.append(here)  # as for a script: modules that lie where the command is typed
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"--import {name}: {error}; give a module that Python finds from here") from error
        finally:
            sys.path.remove(here)
        layers = {k: v for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, nn.Module)}
        for key, layer in layers.items():
            if not hasattr(tasks, key):
                setattr(tasks, key, layer)
    activation = tasks.Conv.default_act
    try:
        yield
    finally:
        tasks.Conv.default_act = activation  # ultralytics restores it only where all goes well


def _check(tree: dict[str, Any]) -> None:
    """Raises InputError unless images are RGB, every row names a layer and the activation is a plain one."""
    from ultralytics.nn import tasks

    activation = tree.get("activation")
    if activation is not None and not (isinstance(activation, str) and ACTIVATION.fullmatch(activation)):
        raise InputError(f"the net's description asks for the activation {activation!r}, which is no layer of torch.nn")
    if (channels := tree.get("channels", tree.get("ch", 3))) != 3:
        raise InputError(f"the net takes images of {channels} channels; nets of RGB images can be pruned and exported")
    rows = [*_rows(tree, "backbone"), *_rows(tree, "head")]
    for row in rows:
        if not (isinstance(row, list) and len(row) == 4 and isinstance(row[2], str) and isinstance(row[3], list)):
            raise InputError(f"the net's description has the row {row!r}; wanted: [from, number, layer, arguments]")
        layer = _layer(row[2], vars(tasks))
        if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
            raise InputError(
                f"the net's description asks for {row[2]!r}, which is no layer of ultralytics or torch; if it is one "
                "of your own, name its module: --import PACKAGE.MODULE"
            )


def _rows(tree: dict[str, Any], part: str) -> list[Any]:
    rows = tree.get(part)
    if not isinstance(rows, list):
        raise InputError(f"the net's description has no {part}; give the .pt file that ultralytics wrote")
    return rows


def _layer(name: str, known: Mapping[str, Any]) -> Any:
    """As ultralytics' builder looks it up."""
    if name.startswith("nn."):
        return getattr(torch.nn, name[3:], None)
    if name.startswith("torchvision.ops."):
        import torchvision

        return getattr(torchvision.ops, name[16:], None)
    return known.get(name)
