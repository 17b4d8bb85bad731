"""What scoring costs: every criterion beside plain forward passes over the same images, and CHIP as published.

    python benchmarks/importance.py [--model yolov8n yolov7 faster_rcnn] [--images 16] [--batch 8] [--size 640]
        [--criteria dcodp hrank …] [--weights PATH] [--threads N] [--device cuda] [--out results] [--again]

The images are generated ones. Without weights, batch norms are set so that signals stay alive. The faster of
`--repeats` measurements counts, each from the first image to the last score, after a look at one image. Memory is
the highest resident size (on a GPU: allocated memory) reached meanwhile.

CHIP as published, on random maps of the same sizes as the convolutions' and on the same machine, is extrapolated per
image from measured parts:

decompositions   C + 1 float32 singular value decompositions of each layer's C × hw map: the definition, nothing else.
                 Some are measured for each size that occurs; the smallest layer is also computed in full, as a check
copies           its code (calculate_ci.py) copies the whole batch of 128 images for every channel of every image
forward passes   its code (calculate_feature_maps.py) runs all images through the net once for every layer

With --out, writes importance_cost.json and .md there, a model at a time: models measured before with the same settings
and the same code are not measured again, unless --again is given.
"""

import argparse
import datetime
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from clock import measured
from documents.importance_cost import document, lines_of
from torch import Tensor

from dcodp import importance as scoring
from dcodp.calibration import Evidence, gather
from dcodp.calibration.watch import Watch
from dcodp.compose import cells, register
from dcodp.config import DatasetConfig
from dcodp.data.calibration import calibration_batches
from dcodp.data.splits import load
from dcodp.data.types import Batch
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.detectors.registry import build
from dcodp.errors import InputError
from dcodp.files import file_digest, write_atomically
from dcodp.graph import CouplingGraph
from dcodp.importance import evidence_for, group_scores, names
from dcodp.processor import cpu_name
from dcodp.records.provenance import code_version, library_versions
from dcodp.testing import enliven

CONF = Path(__file__).resolve().parents[1] / "conf"
PUBLISHED_BATCH = 128  # images in one batch of CHIP's code
STRETCH = 0.2  # seconds for which decompositions of one size are computed
COPIED = 64 * 2**20  # bytes copied at a time when measuring; the whole batch is so many times more
Shape = tuple[int, int, int]  # channels, height, width of a map
Row = dict[str, Any]

# --- the nets and their images ---


def prepared(name: str, weights: str | None, size: int, device: str) -> Detector:
    overrides = [f"model={name}"] + ([f"model.weights={weights}"] if weights else [])
    ((_, config),) = cells(CONF, overrides)
    torch.manual_seed(0)
    classes = tuple(f"class {k}" for k in range(80 if weights else 20))
    detector, _ = build(config.model, classes)
    if weights is None:
        enliven(detector.network, detector.example_inputs(min(size, 320)))
    detector.network.to(device).eval()
    return detector


def labelled_batches(count: int, size: int, batch: int, folder: Path) -> list[Batch]:
    train = load(DatasetConfig(generate_train=count, generate_val=1, generate_size=size), folder, "train")
    return list(calibration_batches(train, count, size, batch, seed=0))


def first_image(batch: Batch) -> Batch:
    of_it = batch.image_index == 0
    return Batch(batch.images[:1], batch.boxes[of_it], batch.labels[of_it], batch.image_index[of_it])


def forward_of(detector: Detector, device: str) -> Callable[[Batch], object]:
    return lambda batch: detector.predict(batch.images.to(device), DecodeSettings(confidence=0.5))


# --- time and memory ---


def fastest(work: Callable[[], float], repeats: int, device: str) -> Row:
    """`work` returns the seconds after its last image, which do not depend on the number of images."""
    runs = []
    for _ in range(repeats):
        with measured(device) as run:
            after = work()
        runs.append({"seconds": run.seconds, "after_images": after, "mebibytes": run.mebibytes})
    return min(runs, key=lambda run: run["seconds"])


# --- ours ---


def observed(detector: Detector, graph: CouplingGraph, name: str, batches: list[Batch], device: str) -> Evidence:
    evidence = evidence_for(detector.network, graph, [name])
    if evidence.needs_batches:
        gather(evidence, batches, forward_of(detector, device), lambda b: detector.losses(b.to(device)))
    return evidence


def score(detector: Detector, graph: CouplingGraph, name: str, batches: list[Batch], device: str) -> float:
    """Scores all groups; returns the seconds after the last image."""
    evidence = observed(detector, graph, name, batches, device)
    start = time.perf_counter()
    group_scores(name, evidence)
    return time.perf_counter() - start


def run_all(batches: list[Batch], forward: Callable[[Batch], object]) -> float:
    for batch in batches:
        forward(batch)
    return 0.0


# --- CHIP as published ---


def map_shapes(detector: Detector, graph: CouplingGraph, batch: Batch, device: str) -> dict[Shape, int]:
    """The sizes of the convolutions' maps that DCODP looks at in one image, and how often each occurs."""
    found: Counter[Shape] = Counter()

    def count(_: str, maps: Tensor) -> None:
        if maps.size(3) > 1:  # linear layers are none of CHIP's
            found[maps.size(1), maps.size(2), maps.size(3)] += 1

    weights = {site.tensor for group in graph.groups for site in group.sites if site.role == "out"}
    watch = Watch(detector.network, weights, count)
    with torch.no_grad(), watch:
        forward_of(detector, device)(first_image(batch))
    watch.flush()
    return dict(found)


def without_channel(rows: Tensor, channel: int) -> float:
    """‖M_i ⊙ A‖_* by definition, in the maps' dtype: rows [C, hw]."""
    without = rows.clone()
    without[channel] = 0
    return torch.linalg.svdvals(without).sum().item()


def seconds_per_channel(rows: Tensor, at_least: float) -> float:
    """The mean over so many channels in a row that the time is up, or over all; the faster of two goes."""
    means = []
    for _ in range(2):
        start, channel = time.perf_counter(), 0
        while channel < len(rows) and (channel == 0 or time.perf_counter() - start < at_least):
            without_channel(rows, channel)
            channel += 1
        means.append((time.perf_counter() - start) / channel)
    return min(means)


def published(shapes: dict[Shape, int], device: str) -> Row:
    """Seconds per image of the decompositions and of the copies, and how well the former predict a whole layer."""
    decompositions = copies = 0.0
    one: dict[Shape, float] = {}
    for (channels, height, width), count in shapes.items():
        rows = torch.randn(channels, height * width, device=device).relu()
        one[channels, height, width] = seconds_per_channel(rows, STRETCH)
        decompositions += count * (channels + 1) * one[channels, height, width]
        images = max(1, min(PUBLISHED_BATCH, COPIED // (4 * rows.numel())))
        batch = rows.expand(images, -1, -1).contiguous()
        copies += count * channels * seconds_of_copy(batch) * PUBLISHED_BATCH / images
    smallest = min(shapes, key=lambda shape: one[shape] * shape[0])
    rows = torch.randn(smallest[0], smallest[1] * smallest[2], device=device).relu()
    check = {"shape": smallest, "foreseen": one[smallest] * smallest[0]}
    check["found"] = seconds_per_channel(rows, float("inf")) * smallest[0]
    return {"decompositions": decompositions, "copies": copies, "layers": sum(shapes.values()), "check": check}


def seconds_of_copy(batch: Tensor) -> float:
    """The fastest of five copies."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        batch.clone()[0, 0, 0].item()  # waits for the result
        times.append(time.perf_counter() - start)
    return min(times)


# --- a model, and what it says ---


def measure(name: str, chosen: argparse.Namespace, batches: list[Batch]) -> Row:
    device = chosen.device
    detector = prepared(name, chosen.weights, chosen.size, device)
    graph = detector.coupling_graph(min(chosen.size, 320))
    forward, first = forward_of(detector, device), [first_image(batches[0])]
    run_all(first, forward)
    row = {
        "groups": len(graph.groups),
        "images": sum(len(b.images) for b in batches),
        "forward": fastest(lambda: run_all(batches, forward), max(2, chosen.repeats), device),
        "criteria": {},
    }
    for criterion in chosen.criteria:
        try:
            observed(detector, graph, criterion, first, device)
        except InputError as error:  # GraSP differentiates twice, which torchvision's RoI align does not
            print(f"  {name}: {criterion} is left out: {error}", flush=True)
            continue
        found = fastest(lambda c=criterion: score(detector, graph, c, batches, device), chosen.repeats, device)
        row["criteria"][criterion] = found
        print(f"  {name}: {criterion} {found['seconds']:.2f} s", flush=True)
    row["published"] = published(map_shapes(detector, graph, batches[0], device), device)
    return row


# --- the results as they come ---


def identity(name: str, chosen: argparse.Namespace) -> str:
    """Of everything that decides a model's row: settings, machine and the code of the criteria."""
    package = Path(str(scoring.__file__)).parent
    code = b"".join(path.read_bytes() for path in [*sorted(package.rglob("*.py")), Path(__file__)])
    settings = {key: value for key, value in vars(chosen).items() if key not in ("model", "out", "again", "weights")}
    weights = file_digest(Path(chosen.weights)) if chosen.weights else None
    parts = [name, weights, settings, hardware(chosen.device), torch.__version__, hashlib.sha256(code).hexdigest()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def hardware(device: str) -> str:
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else cpu_name()


def provenance(chosen: argparse.Namespace) -> Row:
    return {
        "weights": Path(chosen.weights).name if chosen.weights else None,
        "size": chosen.size,
        "batch": chosen.batch,
        "hardware": hardware(chosen.device),
        "threads": torch.get_num_threads(),
        "libraries": library_versions(),
        "code": code_version(),
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/importance.py", *sys.argv[1:]]),
    }


def store(out: Path, rows: dict[str, Row]) -> None:
    """Both files, each replaced at once."""
    write_atomically(out / "importance_cost.json", json.dumps(rows, indent=1) + "\n")
    write_atomically(out / "importance_cost.md", document(rows))


def main() -> None:
    chosen = parsed()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    register()
    path = chosen.out / "importance_cost.json" if chosen.out else None
    rows: dict[str, Row] = json.loads(path.read_text()) if path and path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        batches = labelled_batches(chosen.images, chosen.size, chosen.batch, Path(folder))
        for name in chosen.model:
            key = identity(name, chosen)
            if chosen.again or rows.get(name, {}).get("key") != key:
                rows[name] = {"key": key, **provenance(chosen), **measure(name, chosen, batches)}
                if chosen.out:
                    store(chosen.out, rows)
            print("\n".join(["", *lines_of(name, rows[name])]), flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["yolov8n"], help="as in conf/model")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=640, help="side of the images in pixels")
    parser.add_argument("--criteria", nargs="+", default=list(names()), choices=names(), metavar="NAME")
    parser.add_argument("--weights", default=None, help="of the one model; COCO's 80 classes")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=None, help="folder for importance_cost.json and .md")
    parser.add_argument("--again", action="store_true", help="measure also what is there already")
    chosen = parser.parse_args()
    if chosen.weights and len(chosen.model) > 1:
        parser.error("--weights are of one model; measure the models one after the other, with the same --out")
    return chosen


if __name__ == "__main__":
    main()
