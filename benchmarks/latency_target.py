"""What a target in time keeps, beside a target in FLOPs that is as fast.

    python benchmarks/latency_target.py --net COCO=yolov8n.pt=coco.yaml [--net …] [--size 640] [--share 0.5]
        [--runtime onnxruntime --runtime openvino] [--threads 2] [--epochs 0] [--lr 1e-3] [--work FOLDER]

`--net` is a label, an ultralytics checkpoint and its data. Each is pruned and repaired by `method=strong`: by the table
of layer times until the measured time is the share asked for, and by FLOPs until it is, in whole blocks of channels and
in any counts; `--target latency:…` takes that of the three which loses least on the calibration images. Besides to half
of the FLOPs, in blocks and in any counts. Each of these is then timed anew, in turns with the dense net; what they find
is measured on the validation images, without training and, with `--epochs`, fine-tuned. Writes latency_target.json,
each row when it is measured (rows of other labels, sizes and runtimes stay). Exit status 1 if a net that is taken is
not within 5 % of the share.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.opening import Opened, open_checkpoint
from dcodp.detectors.ultralytics.writing import mark
from dcodp.export import Machine, latency_cost, measuring, met_latency
from dcodp.export.checking import predictions
from dcodp.export.layer_costs import BLOCKS
from dcodp.export.meeting import TOLERANCE, Try, least_lost, middle
from dcodp.files import read_json, write_atomically
from dcodp.processor import cpu_name
from dcodp.pruning.costs import flops_of
from dcodp.records.provenance import code_version, library_versions
from dcodp.yolo.asking import composed
from dcodp.yolo.images import Images, calibration, from_yaml
from dcodp.yolo.making import whole_plan
from dcodp.yolo.measuring import accuracy
from dcodp.yolo.shrinking import Shrinking, Shrunk
from dcodp.yolo.tuning import Tuning, tuned

RUNS, TIMES = 30, 3  # rounds of a timing, and timings of which the median counts
HALF = "flops:0.5"


class Study:
    """One net on one data set."""

    def __init__(self, label: str, checkpoint: str, data: str, chosen: argparse.Namespace):
        self.label, self.checkpoint, self.chosen = label, Path(checkpoint), chosen
        self.folder = chosen.work.resolve() / f"{label}-{self.checkpoint.stem}-{chosen.size}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.opened: Opened = open_checkpoint(self.checkpoint, ())
        names = tuple(self.opened.names[k] for k in sorted(self.opened.names))
        self.dense = UltralyticsNet(self.checkpoint.stem, self.opened.network, names)
        self.images: Images = from_yaml(Path(data), self.folder / "data")
        self.method = composed("strong", "latency:0.5")
        how = self.method.importance
        batches = calibration(self.images.of("train"), how.images, chosen.size, how.batch, 0)
        self.shrinking = Shrinking(self.dense, batches, self.method)
        self.lost = self.shrinking.lost_by()
        self.example = self.dense.scaled(batches[0][:1])

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, row) of each runtime, as it is measured."""
        for runtime in self.chosen.runtime:
            yield f"{self.label} {self.checkpoint.stem} {self.chosen.size} {runtime}", self._in(runtime)

    def _in(self, runtime: str) -> dict[str, Any]:
        machine = Machine(runtime, self.chosen.threads, spin=False).versioned()
        print(f"{self.label}, {runtime}: timing", flush=True)
        nets, taken = self.nets(machine)
        measure = measuring(self.opened.network, self.example, predictions, machine, RUNS)
        # Anew: each was chosen by how it came out.
        times = {
            name: middle(*(Try(0.0, shrunk.plan, *measure(shrunk.plan)) for _ in range(TIMES)))
            for name, shrunk in nets.items()
        }
        print(f"{self.label}, {runtime}: timed", flush=True)
        rows = {name: self._row(name, shrunk, runtime) for name, shrunk in nets.items()}
        for name, one in times.items():
            rows[name] |= {"dense_ms": one.dense.median_ms, "ms": one.small.median_ms, "time": one.share}
        dense = self._accuracy(self.opened.network, "dense")
        return {"dense": dense, "nets": rows, "taken": taken, "version": machine.version}

    def nets(self, machine: Machine) -> tuple[dict[str, Shrunk], str | None]:
        """The nets, and the name of that which a latency takes."""
        graph, shrinking = self.shrinking.graph, self.shrinking
        table = latency_cost(
            self.opened.network, graph, self.example, predictions, machine, self.folder / f"{machine.runtime}.json"
        )
        measure, selecting = measuring(self.opened.network, self.example, predictions, machine), shrinking.selecting()
        wanted: float = self.chosen.share
        ways = {"latency": (table, None), "flops, blocks": (flops_of(graph), None), "flops, any": (flops_of(graph), 1)}
        met = {
            name: met_latency(graph, shrinking.scores, wanted, cost, measure, round_to=blocks, **selecting)
            for name, (cost, blocks) in ways.items()
        }
        best = least_lost(list(met.values()), self.lost).best
        taken = next(name for name, one in met.items() if one.best.plan.groups == best.plan.groups)
        nets = {name: shrinking.repaired(one.best.plan) for name, one in met.items()}
        nets["half, blocks"] = shrinking.to(0.5, HALF, BLOCKS[0])
        nets["half, any"] = shrinking.to(0.5, HALF)
        return nets, taken

    def _row(self, name: str, shrunk: Shrunk, runtime: str) -> dict[str, Any]:
        graph, kept = self.shrinking.graph, shrunk.plan.groups
        row: dict[str, Any] = {
            "flops": graph.flops(kept) / graph.flops(),
            "parameters": graph.parameter_count(kept) / graph.parameter_count(),
        }
        row["lost"] = self.lost(shrunk.plan)
        row |= self._accuracy(shrunk.network, f"{runtime} {name}")
        if self.chosen.epochs and not name.startswith("half"):
            row["tuned"] = self._tuned(shrunk, self.folder / f"{runtime} {name}")
        return row

    def _accuracy(self, network: nn.Module, name: str) -> dict[str, Any]:
        kind, task = self.opened.description.kind, self.opened.task
        size = self.chosen.size
        found = accuracy(network, kind, task, self.images, "val", size, 16, self.folder / "val" / name)
        return {"map50_95": found["map50_95"], "map50": found["map50"], "images": found["images"]}

    def _tuned(self, shrunk: Shrunk, folder: Path) -> dict[str, Any]:
        small, size = copy.deepcopy(shrunk.network), self.chosen.size
        mark(small, self.opened.description, whole_plan(self.opened, shrunk.plan), {"imgsz": size})
        settings = Tuning(self.chosen.epochs, lr=self.chosen.lr, device="cpu")
        best = tuned(small, self.dense, shrunk.graph, shrunk.plan, self.images, size, settings, folder)
        return self._accuracy(open_checkpoint(best, ()).network, f"{folder.name} tuned")


def parser(description: str | None) -> argparse.ArgumentParser:
    """What a `Study` is asked."""
    asked = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--net", action="append", required=True, help="LABEL=CHECKPOINT.pt=DATA.yaml")
    asked.add_argument("--runtime", action="append", choices=("onnxruntime", "openvino"))
    for name, default in {"size": 640, "share": 0.5, "threads": 2, "epochs": 0, "lr": 1e-3}.items():
        asked.add_argument(f"--{name}", type=type(default), default=default)
    asked.add_argument("--work", type=Path, default=Path("latency_target"), help="where tables and trainings are kept")
    asked.add_argument("--out", type=Path, default=Path("results"))
    return asked


def measured(study: type[Study], chosen: argparse.Namespace, path: Path) -> list[dict[str, Any]]:
    """The rows of all nets; each is kept in `path` as soon as it is measured, beside what stood there."""
    chosen.runtime = chosen.runtime or ["onnxruntime", "openvino"]
    torch.set_num_threads(chosen.threads)
    settings = {name: getattr(chosen, name) for name in ("share", "threads", "epochs", "lr")}
    made = {"hardware": cpu_name(), **settings, "code": code_version(), "libraries": library_versions()}
    found = []
    for net in chosen.net:
        label, checkpoint, data = net.split("=")
        for key, row in study(label, checkpoint, data, chosen).rows():
            before = read_json(path)["rows"] if path.exists() else {}
            write_atomically(path, json.dumps({"rows": before | {key: {**row, "made": made}}}, indent=1) + "\n")
            found.append(row)
    return found


def main() -> None:
    chosen = parser(__doc__).parse_args()
    rows = measured(Study, chosen, chosen.out / "latency_target.json")
    off = [abs(row["nets"][row["taken"]]["time"] / chosen.share - 1) for row in rows]
    raise SystemExit(max(off) > TOLERANCE)


if __name__ == "__main__":
    main()
