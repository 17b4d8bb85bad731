"""Writes a pruned net so that ultralytics opens it (small.pt), and without a pickle (small.safetensors).

In small.pt the net is an object of ultralytics' own class, as its trainer writes them, so prediction, validation and
export work where dcodp is not installed. Its architecture's description is replaced by one that cannot be built:
`YOLO("small.pt").train()` builds a new net from it, and without this would train the dense one without a word.
"""

from __future__ import annotations

import copy
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dcodp import _ultralytics
from dcodp.detectors.ultralytics.description import Description
from dcodp.detectors.ultralytics.opening import ATTRIBUTE, FORMAT, HEADER
from dcodp.files import write_atomically
from dcodp.files.tensors import save_tensors
from dcodp.pruning import PrunePlan
from dcodp.pruning.attributes import PREFIX, plain_tensors

LINE = "YOLO('small.pt').train(trainer=PrunedTrainer, data=…) with: from dcodp.yolo import PrunedTrainer"
REFUSAL = "this net is pruned, and ultralytics' own trainer would build the dense one again; train it on with: {line}"


def mark(network: Any, description: Description, plan: PrunePlan, training: dict[str, Any] | None = None) -> None:
    """Makes the net carry what it was and how it was pruned, through training and saving by ultralytics too."""
    known = {"format": FORMAT, "description": description.to_dict(), "plan": plan.to_dict(), "training": training or {}}
    setattr(network, ATTRIBUTE, json.loads(json.dumps(known)))  # plain data alone
    network.yaml = refusing(description.yaml)
    network.names = dict(description.names)
    network.task = description.task


def refusing(tree: dict[str, Any]) -> dict[str, Any]:
    """The model dictionary with everything that is read of it but the layers: of these there is one, whose name says
    why no net can be built of it."""
    kept = {k: v for k, v in copy.deepcopy(tree).items() if k not in ("backbone", "head")}
    return {**kept, "backbone": [[-1, 1, REFUSAL.format(line=LINE), []]], "head": []}


def write_pt(network: nn.Module, path: Path, train_args: dict[str, Any]) -> None:
    """A marked net (see `mark`) as a checkpoint of ultralytics: half precision, EMA and optimiser stripped."""
    _ultralytics.prepare()
    from ultralytics import __version__

    half: Any = copy.deepcopy(network).cpu().half()
    half.criterion = None
    for parameter in half.parameters():
        parameter.requires_grad = False
    content = {
        "epoch": -1,
        "best_fitness": None,
        "model": half,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": train_args,
        "train_metrics": None,
        "train_results": None,
        "date": datetime.now().astimezone().isoformat(),
        "version": __version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    write_atomically(path, stream.getvalue())


def write_safetensors(network: nn.Module, path: Path) -> None:
    """The weights of a marked net; what it carries as JSON in the header."""
    known = getattr(network, ATTRIBUTE)
    extra = {PREFIX + name: tensor for name, tensor in plain_tensors(network).items()}
    header = {
        HEADER: json.dumps(known, separators=(",", ":")),
        "dcodp_plan": json.dumps(known["plan"], separators=(",", ":")),
    }
    save_tensors({**network.state_dict(), **extra}, path, header)
