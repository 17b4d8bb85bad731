"""Opens a checkpoint of an ultralytics net, anybody's or one that was pruned here, without running anything in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.config import ModelConfig
from dcodp.detectors.checkpoint import Checkpoint, read_checkpoint
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.description import Description, build, described
from dcodp.errors import InputError
from dcodp.files.tensors import load_tensors
from dcodp.pruning import PrunePlan, prune
from dcodp.pruning.attributes import PREFIX, set_plain_tensors

ATTRIBUTE = "dcodp"  # of a pruned net's module: what is known of it, as plain data
HEADER = "dcodp_net"  # the same in a safetensors file, as JSON
FORMAT = 1


@dataclass(frozen=True)
class Opened:
    """A net of ultralytics (float32, in eval mode) with what its file says of it.

    `plan` leads from the dense net of `description` to this one; None where nothing was pruned here. `image_size` is
    what it was trained at, `data` the data.yaml it was trained on, where the file tells.
    """

    network: nn.Module
    description: Description
    plan: PrunePlan | None = None
    image_size: int | None = None
    data: str | None = None

    @property
    def task(self) -> str:
        return self.description.task

    @property
    def names(self) -> dict[int, str]:
        return self.description.names


def open_checkpoint(path: str | Path, imports: Sequence[str] = ()) -> Opened:
    """`path`: a .pt that ultralytics wrote, or small.pt or small.safetensors of a pruned net.

    `imports` names modules with layers of the user's own. Raises InputError, one line that says what to do, for
    whatever cannot be opened: weights alone, another library's nets, shapes that do not fit the description.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path, imports)
    checkpoint = read_checkpoint(path)
    known = checkpoint.attributes.get(ATTRIBUTE)
    if known is not None:
        return _opened(known, checkpoint.state, str(path), imports, checkpoint.train_args)
    description = described(checkpoint, str(path), imports)
    network = _with_weights(build(description), checkpoint, str(path))
    return Opened(network, description, None, *_training(checkpoint.train_args))


def going_on(path: str | Path) -> Opened | None:
    """The net of a file that was pruned here; None for any other."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return open_checkpoint(path) if path.is_file() and HEADER in load_tensors(path)[1] else None
    if path.suffix != ".pt" or not path.is_file() or ATTRIBUTE not in read_checkpoint(path).attributes:
        return None
    return open_checkpoint(path)


def pruned_before(
    kind: type[UltralyticsNet], model: ModelConfig, opened: Opened, classes: tuple[str, ...]
) -> tuple[UltralyticsNet, list[str]]:
    """A detector that goes on with a net that was pruned here, and a note; its classes are those of the data.

    Raises InputError where these are not as many.
    """
    if len(opened.names) != len(classes):
        raise InputError(
            f"model.weights={model.weights} is a pruned net for {len(opened.names)} classes, the data have "
            f"{len(classes)}; train the dense net on these data and prune that"
        )
    detector = kind(model.name, opened.network, classes)
    detector.description, detector.pruned_by = opened.description, opened.plan
    gone = 0.0 if opened.plan is None else opened.plan.channel_ratio
    return detector, [f"the weights are of a net that was pruned before: {gone:.0%} of its channels are gone already"]


def _open_safetensors(path: Path, imports: Sequence[str]) -> Opened:
    tensors, header = load_tensors(path)
    if HEADER not in header:
        raise InputError(
            f"{path} does not say which net it is of; give the small.safetensors of `dcodp prune` without --model, or "
            "a .pt (nets of --model: `dcodp prune --model … --export onnx`)"
        )
    try:
        known = json.loads(header[HEADER])
    except ValueError as error:
        raise InputError(f"{path} is damaged (its header is no JSON); prune the dense net again") from error
    training = known.get("training") if isinstance(known, dict) else None
    return _opened(known, tensors, str(path), imports, training if isinstance(training, dict) else {})


def _opened(known: Any, state: dict[str, Tensor], path: str, imports: Sequence[str], training: dict) -> Opened:
    """A net that was pruned here: its dense architecture, cut as the plan says, with these weights."""
    if not isinstance(known, dict) or known.get("format") != FORMAT:
        raise InputError(f"{path} was written in a format that this version does not read; prune the dense net again")
    try:
        description = Description.from_dict(known["description"], imports)
        plan = PrunePlan.from_dict(known["plan"])
        network: Any = prune(build(description), plan)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: its plan does not fit its net; prune the dense net again") from error
    network.names = dict(description.names)
    setattr(network, ATTRIBUTE, known)
    plain = {name.removeprefix(PREFIX): t for name, t in state.items() if name.startswith(PREFIX)}
    _load(network, {name: t for name, t in state.items() if not name.startswith(PREFIX)}, path)
    set_plain_tensors(network, plain)
    return Opened(network.float().eval(), description, plan, *_training(training))


def _with_weights(network: Any, checkpoint: Checkpoint, path: str) -> nn.Module:
    """The dense net as it was saved: fused where its batch norms are gone."""
    state = checkpoint.state
    own = network.state_dict()
    norms = [name for name in own if name.endswith(".bn.weight")]
    if norms and not any(name in state for name in norms):
        network.fuse(verbose=False)
    _load(network, state, path)
    return network.float().eval()


def _load(network: nn.Module, state: dict[str, Tensor], path: str) -> None:
    own = network.state_dict()
    missing, further = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [name for name in own if name in state and own[name].shape != state[name].shape]
    if other and not missing:
        name = other[0]
        raise InputError(
            f"{path} was pruned or changed by other means: {name} is {list(state[name].shape)}, its description says "
            f"{list(own[name].shape)}, and so {len(other)} tensors; prune the dense net that it was made from"
        )
    if missing or further:
        name, which = (missing or further)[0], "lacks" if missing else "has beyond its description"
        raise InputError(f"{path} {which} {name}; it was written by another version or changed; save it again")
    with torch.no_grad():
        network.load_state_dict(state)


def _training(arguments: dict[str, Any]) -> tuple[int | None, str | None]:
    size, data = arguments.get("imgsz"), arguments.get("data")
    size = size[0] if isinstance(size, list) and size else size
    return (size if isinstance(size, int) and size > 0 else None), (data if isinstance(data, str) else None)
