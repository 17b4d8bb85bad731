"""The whole way of somebody's checkpoint, each step as a user types it: trained by ultralytics, given to `dcodp prune`,
opened, validated, exported and trained on by ultralytics, pruned once more.

    python benchmarks/whole_way.py --data bccd/data.yaml [--model yolov8n.yaml=yolov8n.pt --model yolo11n.yaml]
        [--size 320] [--epochs 12] [--scratch-epochs 50] [--small-epochs 20] [--target flops:0.5] [--work FOLDER]

Run it with the Python of an environment that the wheel was installed into: commands are those beside it. After a
model's `=` stand the weights that it is trained from; without them it starts from random ones, for more epochs. Steps
whose files are in `--work` are not done again. Writes whole_way.json with each figure and whether it is as it must be,
and the card of the first net as prune/card.json. Exit status 1 if anything is not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ultralytics import YOLO

from dcodp.files import write_atomically
from dcodp.processor import cpu_name
from dcodp.records.provenance import code_version, library_versions
from dcodp.yolo import PrunedTrainer

AGREES = 0.005  # mAP50 by ultralytics' validation and by the card, at most
KEPT = 0.97  # of the dense mAP50-95, at least
FURTHER = "flops:0.7"  # of the small net, when it is pruned once more


class Way:
    """One model's, in a folder of its own."""

    def __init__(self, model: str, chosen: argparse.Namespace):
        self.model, _, self.start = model.partition("=")
        self.chosen, self.folder = chosen, chosen.work.resolve() / Path(self.model).stem
        self.epochs = chosen.epochs if self.start else chosen.scratch_epochs
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = str(chosen.data.resolve())
        self.common = {"data": self.data, "imgsz": chosen.size, "device": "cpu", "workers": 0, "seed": 0}

    def go(self) -> dict[str, Any]:
        dense = self._train()
        card = self._prune(dense, "small", self.chosen.target, self.chosen.small_epochs, "--export", "onnx")
        further = self._prune(self.folder / "small" / "small.pt", "smaller", FURTHER, 2)
        return {
            "model": self.model, "start": Path(self.start).name, "epochs": self.epochs,
            "small": {**self._used("small", card), "kept": _kept(card)},
            "smaller": self._used("smaller", further), "card": card,
        }  # fmt: skip

    def _train(self) -> Path:
        best = self.folder / "dense" / "weights" / "best.pt"
        if not best.exists():
            settings = {**self.common, "epochs": self.epochs, "batch": 16}
            start = {"pretrained": str(Path(self.start).resolve())} if self.start else {}
            YOLO(self.model).train(**settings, **start, project=str(self.folder), name="dense", exist_ok=True)
        return best

    def _prune(self, checkpoint: Path, name: str, target: str, epochs: int, *more: str) -> dict[str, Any]:
        words = [
            str(checkpoint),
            "--data",
            self.data,
            "--target",
            target,
            "--epochs",
            str(epochs),
            "--out",
            name,
            *more,
        ]
        command = Path(sys.executable).with_name("dcodp")
        subprocess.run([str(command), "prune", *words], cwd=self.folder, check=True)
        return json.loads((self.folder / name / "card.json").read_text(encoding="utf-8"))

    def _used(self, name: str, card: dict[str, Any]) -> dict[str, Any]:
        """What ultralytics makes of the small net."""
        path = self.folder / name / "small.pt"
        found = YOLO(path).val(data=self.data, imgsz=self.chosen.size, device="cpu", workers=0, plots=False)
        parameters = card["pruned"]["parameters"]
        counts = {"card": parameters, "opened": _parameters(YOLO(path)), "exported": self._exported(path),
                  "trained on": self._trained_on(path, name)}  # fmt: skip
        seen: Any = YOLO(path).predict(self._image(), imgsz=self.chosen.size, device="cpu", verbose=False)
        return {
            "map50": {"card": card["pruned"]["map50"], "val": float(found.box.map50)},
            "map50_95": {"card": card["pruned"]["map50_95"], "val": float(found.box.map)},
            "agrees": abs(card["pruned"]["map50"] - float(found.box.map50)) <= AGREES,
            "parameters": counts, "stays": len({counts["card"], counts["opened"], counts["trained on"]}) == 1,
            "predicted": len(seen[0].boxes), "refused": self._refused(path),
        }  # fmt: skip

    def _exported(self, path: Path) -> int:
        """The entries of the weights in ultralytics' ONNX file."""
        import onnx

        weights = onnx.load(YOLO(path).export(format="onnx", imgsz=self.chosen.size, device="cpu")).graph.initializer
        return sum(int(onnx.numpy_helper.to_array(w).size) for w in weights)

    def _trained_on(self, path: Path, name: str) -> int:
        model, place = YOLO(path), f"{name}-further"
        settings = {**self.common, "epochs": 1, "batch": 16, "project": str(self.folder), "name": place}
        model.train(trainer=PrunedTrainer, **settings, exist_ok=True)
        return _parameters(YOLO(self.folder / place / "weights" / "last.pt"))

    def _refused(self, path: Path) -> str | None:
        """What ultralytics' own trainer, which would build the dense net again, is stopped with."""
        try:
            YOLO(path).train(**self.common, epochs=1, project=str(self.folder), name="refused", exist_ok=True)
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None

    def _image(self) -> Path:
        described = yaml.safe_load(self.chosen.data.read_text(encoding="utf-8"))
        folder = self.chosen.data.parent / described.get("path", "") / described["val"]
        return min(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def _parameters(model: YOLO) -> int:
    return sum(p.numel() for p in model.model.parameters())  # type: ignore[union-attr]


def _kept(card: dict[str, Any]) -> float:
    return card["pruned"]["map50_95"] / card["dense"]["map50_95"]


def holds(way: dict[str, Any]) -> bool:
    used = (way["small"], way["smaller"])
    return all(u["agrees"] and u["stays"] and u["refused"] for u in used) and way["small"]["kept"] >= KEPT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", help="NAME.yaml, or NAME.yaml=WEIGHTS.pt to train it from these")
    parser.add_argument("--target", default="flops:0.5")
    for name, default in {"size": 320, "epochs": 12, "scratch-epochs": 50, "small-epochs": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--work", type=Path, default=Path("whole_way"), help="where the nets are kept")
    parser.add_argument("--out", type=Path, default=Path("results"))
    chosen = parser.parse_args()
    ways = [Way(model, chosen).go() for model in chosen.model or ("yolov8n.yaml", "yolo11n.yaml")]
    settings = {name: getattr(chosen, name) for name in ("target", "size", "small_epochs")}
    what = {**settings, "hardware": cpu_name(),
            "code": code_version(), "libraries": library_versions()}  # fmt: skip
    card = chosen.work / Path(ways[0]["model"]).stem / "small" / "card.json"
    (chosen.out / "prune").mkdir(parents=True, exist_ok=True)
    shutil.copy(card, chosen.out / "prune" / "card.json")
    rows = {way.pop("model"): {**way, "holds": holds(way)} for way in ways}
    write_atomically(chosen.out / "whole_way.json", json.dumps({"nets": rows, "provenance": what}, indent=1) + "\n")
    raise SystemExit(not all(row["holds"] for row in rows.values()))


if __name__ == "__main__":
    main()
