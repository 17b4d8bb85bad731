"""How much scores depend on which calibration images were drawn: disjoint sets of images, criterion by criterion.

    python benchmarks/calibration.py [--model yolov8n] [--weights PATH] [--dataset coco2017 --data FOLDER --split val]
        [--sizes 8 32 128] [--sets 4] [--ratio 0.5] [--image-size 320] [--criteria …] [--threads N] [--device cuda]

One pass over the images serves all set sizes, because statistics of parts add up. For each size up to `--sets` disjoint
sets are compared pairwise: Spearman's rank correlation of a group's scores, and the share of the channels kept at
`--ratio` that two sets agree on (by chance alone: 1 − ratio). Both are means over groups, weighted by channels, then
over pairs; ± is the standard deviation over pairs. Without `--data` generated shapes serve, and without weights a
network whose batch norms are set so that signals stay alive: that shows that the command works, and nothing more.
The table is Markdown.
"""

import argparse
import itertools
import math
import statistics as stats
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from dcodp.compose import cells, register
from dcodp.config import Config
from dcodp.data.calibration import calibration_batches
from dcodp.data.load import load
from dcodp.data.progress import track
from dcodp.detectors.base import Batch, DecodeSettings, Detector
from dcodp.detectors.registry import build
from dcodp.graph import CouplingGraph, trace
from dcodp.importance import Statistics, criterion, names, observe
from dcodp.pruning.select import kept_count, lowest_removed
from dcodp.testing import enliven

CONF = Path(__file__).resolve().parents[1] / "conf"
Scores = dict[str, Tensor]
Sums = dict[str, Tensor]


def configured(arguments: argparse.Namespace, folder: str, images: int) -> Config:
    overrides = [f"model={arguments.model}", f"dataset={arguments.dataset}", f"paths.data={arguments.data or folder}"]
    overrides += [f"model.weights={arguments.weights}"] if arguments.weights else []
    overrides += [f"dataset.generate_train={images}"] if arguments.dataset == "shapes" else []
    ((_, config),) = cells(CONF, overrides)
    return config


def parts(
    detector: Detector, graph: CouplingGraph, batches: Iterable[Batch], arguments: argparse.Namespace
) -> list[Sums]:
    """The statistics of each batch on its own."""
    found = []
    for batch in batches:
        part = Statistics(detector.network, graph, arguments.criteria, seed=len(found))
        observe(
            part,
            [batch.to(arguments.device)],
            lambda b: detector.predict(b.images, DecodeSettings(confidence=0.5)),
            lambda b: detector.loss(b)[0],
        )
        found.append({key: value.cpu() for key, value in part.sums.items()})
    return found


def scores(detector: Detector, graph: CouplingGraph, chosen: list[str], sums: list[Sums]) -> dict[str, Scores]:
    """Scores by each criterion from several batches together."""
    whole = Statistics(detector.network, graph, chosen)
    keys = {key for part in sums for key in part}
    whole.restore({key: torch.stack([part[key] for part in sums if key in part]).sum(0) for key in keys}, len(sums))
    return {name: whole.group_scores(name) for name in chosen}


def agreement(one: Scores, other: Scores, ratio: float) -> tuple[float, float]:
    """Rank correlation and overlap of the kept channels, means over groups weighted by channels.

    Groups whose scores are all equal have no rank correlation and count for the overlap only.
    """
    correlations, overlaps = [], []
    for group in one.keys() & other.keys():
        a, b = one[group], other[group]
        count = kept_count(len(a), ratio)
        kept = [set(lowest_removed(x, len(a), count)) for x in (a, b)]
        overlaps.append((len(kept[0] & kept[1]) / count, len(a)))
        if a.unique().numel() > 1 and b.unique().numel() > 1:
            result: Any = spearmanr(a, b)
            correlations.append((float(result.statistic), len(a)))
    return weighted(correlations), weighted(overlaps)


def weighted(values: list[tuple[float, int]]) -> float:
    return sum(v * w for v, w in values) / sum(w for _, w in values) if values else math.nan


def cell(pairs: list[tuple[float, float]]) -> str:
    """ "0.981 ± 0.004, 0.93 ± 0.01", or a dash where there are no two disjoint sets."""
    if not pairs:
        return "–"
    texts = []
    for values in zip(*pairs, strict=True):
        spread = f" ± {stats.stdev(values):.3f}" if len(values) > 1 else ""
        texts.append(f"{stats.mean(values):.3f}{spread}")
    return ", ".join(texts)


def table(detector: Detector, graph: CouplingGraph, sums: list[Sums], arguments: argparse.Namespace) -> str:
    rows: dict[str, list[str]] = {name: [] for name in arguments.criteria}
    for size in arguments.sizes:
        length = size // arguments.batch
        starts = range(0, len(sums) - length + 1, length)[: arguments.sets]
        sets = [scores(detector, graph, arguments.criteria, sums[s : s + length]) for s in track(starts, f"{size}")]
        for name in arguments.criteria:
            pairs = [agreement(a[name], b[name], arguments.ratio) for a, b in itertools.combinations(sets, 2)]
            rows[name].append(cell(pairs))
    heads = [f"{size} images: ρ, overlap" for size in arguments.sizes]
    lines = [["criterion", *heads], ["---"] * (1 + len(heads)), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    arguments = parsed()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    register()
    wanted = max(size * (arguments.sets if size < max(arguments.sizes) else 2) for size in arguments.sizes)
    with tempfile.TemporaryDirectory() as folder:
        config = configured(arguments, folder, wanted)
        images = load(config.dataset, Path(config.paths.data), arguments.split)
        torch.manual_seed(0)
        detector, _ = build(config.model, images.classes)
        if arguments.weights is None:
            enliven(detector.network, detector.example_inputs(arguments.image_size))
        detector.network.to(arguments.device).eval()
        graph = trace(detector.network, detector.example_inputs(arguments.image_size), outputs=detector.outputs)
        count = min(wanted, len(images))
        batches = calibration_batches(images, count, arguments.image_size, arguments.batch, seed=0)
        sums = parts(detector, graph, track(batches, "images", count // arguments.batch), arguments)
    kind = "with the given weights" if arguments.weights else "untrained"
    print(f"{arguments.model} {kind}, {count} images of {images.name} {images.split} at {arguments.image_size} px, "
          f"{arguments.ratio:.0%} of the channels removed\n")  # fmt: skip
    print(table(detector, graph, sums, arguments))


def parsed() -> argparse.Namespace:
    measurable = [name for name in names() if criterion(name).needs != "weights"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov8n", help="as in conf/model")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--dataset", default="shapes", help="as in conf/dataset")
    parser.add_argument("--data", default=None, help="the folder of a data set that is not generated")
    parser.add_argument("--split", default="train", choices=("train", "val"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--sets", type=int, default=4, help="disjoint sets of each size, of the largest size 2")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8, help="divides all sizes")
    parser.add_argument("--criteria", nargs="+", default=measurable, choices=measurable, metavar="NAME")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if any(size % arguments.batch for size in arguments.sizes):
        parser.error(f"--batch {arguments.batch} does not divide all of --sizes")
    return arguments


if __name__ == "__main__":
    main()
