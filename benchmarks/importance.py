"""What scoring costs: every criterion beside plain forward passes over the same images, and CHIP as published.

    python benchmarks/importance.py [--model yolov8n yolov7 faster_rcnn] [--images 16] [--batch 8] [--size 640]
        [--criteria dcodp hrank …] [--weights PATH] [--threads N] [--device cuda]

The images are generated ones. Without weights, batch norms are set so that signals stay alive. Of the forward passes
the faster of two counts; a criterion is measured once, from the first image to the last score, after a warm-up of one
image. Memory is the highest resident size (on a GPU: allocated memory) reached meanwhile.

CHIP's published way takes C + 1 singular value decompositions of each layer's C × hw map, for each image. One of them
is measured (float32, as its authors compute it) for each size that occurs, the rest is multiplication; the smallest
layer is also computed in full, to see how well that predicts.
"""

import argparse
import ctypes
import gc
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from dcodp.compose import cells, register
from dcodp.config import DatasetConfig
from dcodp.data.calibration import calibration_batches
from dcodp.data.load import load
from dcodp.detectors.base import Batch, DecodeSettings, Detector
from dcodp.detectors.registry import build
from dcodp.graph import CouplingGraph, trace
from dcodp.importance import Statistics, direct_nuclear_coupling, names, observe
from dcodp.importance.observe import Watch
from dcodp.testing import enliven

CONF = Path(__file__).resolve().parents[1] / "conf"
Shape = tuple[int, int, int]  # channels, height, width of a map


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


@contextmanager
def measured(device: str) -> Iterator[SimpleNamespace]:
    """Its `seconds` and `mebibytes` (nan where the system does not tell) are known when the block is through."""
    cuda, result = torch.device(device).type == "cuda", SimpleNamespace(seconds=0.0, mebibytes=float("nan"))
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_peak()
    start = time.perf_counter()
    yield result
    if cuda:
        torch.cuda.synchronize()
    result.seconds = time.perf_counter() - start
    result.mebibytes = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_peak()


def forget_peak() -> None:
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # glibc: give back what was freed, or it counts for the next measurement
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest resident size starts anew
    except OSError:
        print("(this system does not reset the peak of memory: figures below never fall)")


def resident_peak() -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


def scored(detector: Detector, graph: CouplingGraph, name: str, batches: list[Batch], device: str) -> float:
    """Scores all groups; returns the seconds after the last image, which do not depend on the number of images."""
    statistics = Statistics(detector.network, graph, [name])
    if statistics.needs_data:
        observe(statistics, batches, forward_of(detector, device), lambda b: detector.loss(b.to(device))[0])
    start = time.perf_counter()
    statistics.group_scores(name)
    return time.perf_counter() - start


def forward_of(detector: Detector, device: str) -> Callable[[Batch], object]:
    return lambda batch: detector.predict(batch.images.to(device), DecodeSettings(confidence=0.5))


def map_shapes(detector: Detector, graph: CouplingGraph, batch: Batch, device: str) -> dict[Shape, int]:
    """The sizes of the maps that DCODP looks at in one image, and how often each occurs."""
    found: Counter[Shape] = Counter()

    def count(_: str, maps: Tensor) -> None:
        found[maps.size(1), maps.size(2), maps.size(3)] += 1

    weights = {site.tensor for group in graph.groups for site in group.sites if site.role == "out"}
    watch = Watch(detector.network, weights, count)
    with torch.no_grad(), watch:
        forward_of(detector, device)(Batch(batch.images[:1], batch.boxes, batch.labels, batch.image_index))
    watch.flush()
    return dict(found)


def seconds_of(call: Callable[[], Tensor]) -> float:
    """The shorter of two calls, unless the first takes long; waits for the result."""
    times = []
    while len(times) < 2 and sum(times) < 0.5:
        start = time.perf_counter()
        call().sum().item()
        times.append(time.perf_counter() - start)
    return min(times)


def published_seconds(shapes: dict[Shape, int], device: str) -> float:
    """Per image, for all layers: measured decompositions times their number."""
    one: dict[Shape, float] = {}
    for channels, height, width in shapes:
        maps = torch.randn(channels, height * width, device=device).relu()
        one[channels, height, width] = seconds_of(lambda maps=maps: torch.linalg.svdvals(maps))
    smallest = min(shapes, key=lambda shape: one[shape] * shape[0])
    maps = torch.randn(1, *smallest, device=device).relu()
    full = seconds_of(lambda: direct_nuclear_coupling(maps))
    print(f"  layer {smallest} in full (float64): {full:.3f} s, foreseen {one[smallest] * (smallest[0] + 1):.3f} s")
    return sum(count * one[shape] * (shape[0] + 1) for shape, count in shapes.items())


def compare(name: str, arguments: argparse.Namespace, batches: list[Batch]) -> None:
    device, images = arguments.device, sum(len(b.images) for b in batches)
    detector = prepared(name, arguments.weights, arguments.size, device)
    graph = trace(detector.network, detector.example_inputs(min(arguments.size, 320)), outputs=detector.outputs)
    forward = forward_of(detector, device)
    runs = []
    for _ in range(2):
        with measured(device) as plain:
            for batch in batches:
                forward(batch)
        runs.append(plain)
    plain = min(runs, key=lambda run: run.seconds)
    print(f"\n{name}, {images} images of {arguments.size} px, {len(graph.groups)} groups, {device}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    print(f"  {'':14} {'seconds':>9} {'of them after the images':>25} {'× forward':>10} {'peak MiB':>9}")
    print(f"  {'forward':14} {plain.seconds:9.2f} {'':25} {1:10.2f} {plain.mebibytes:9.0f}")
    first = [Batch(b.images[:1], b.boxes[b.image_index == 0], b.labels[b.image_index == 0],
                   b.image_index[b.image_index == 0]) for b in batches[:1]]  # fmt: skip
    seconds = {}
    for criterion in arguments.criteria:
        scored(detector, graph, criterion, first, device)
        with measured(device) as run:
            after = scored(detector, graph, criterion, batches, device)
        seconds[criterion] = run.seconds
        ratio = run.seconds / plain.seconds
        print(f"  {criterion:14} {run.seconds:9.2f} {after:25.2f} {ratio:10.2f} {run.mebibytes:9.0f}", flush=True)
    if "dcodp" in seconds:
        published = images * published_seconds(map_shapes(detector, graph, batches[0], device), device)
        own = max(seconds["dcodp"] - plain.seconds, 1e-9)
        both = (published + plain.seconds) / seconds["dcodp"]
        print(f"  CHIP as published, extrapolated: {published:.0f} s for these images + {plain.seconds:.1f} s forward: "
              f"{both:.0f} × dcodp; without the forward passes {published / own:.0f} × ({own:.2f} s)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["yolov8n"], help="as in conf/model")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=640, help="side of the images in pixels")
    parser.add_argument("--criteria", nargs="+", default=list(names()), choices=names(), metavar="NAME")
    parser.add_argument("--weights", default=None, help="of the one model; COCO's 80 classes")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    register()
    with tempfile.TemporaryDirectory() as folder:
        batches = labelled_batches(arguments.images, arguments.size, arguments.batch, Path(folder))
        for name in arguments.model:
            compare(name, arguments, batches)


if __name__ == "__main__":
    main()
