"""How much scores depend on which calibration images were drawn: disjoint sets of images, criterion by criterion.

    python benchmarks/calibration.py [--model yolov8n] [--weights PATH] [--dataset coco2017 --data FOLDER --split val]
        [--sizes 8 32 128] [--sets 4] [--ratio 0.5] [--image-size 320] [--criteria …] [--threads N] [--device cuda]
        [--out results]

For each size up to `--sets` disjoint sets (of the largest size 2) are compared pairwise: Spearman's rank correlation of
a group's scores, and the share of the channels kept at `--ratio` that two sets agree on (by chance alone: 1 − ratio).
Both are means over groups, weighted by channels, then over pairs; ± is the standard deviation over pairs. Criteria that
look at no images are left out. Without `--data` generated shapes serve, and without weights a network whose batch norms
are set so that signals stay alive: that shows that the command works, and nothing more.

One pass over the images collects what all criteria and all set sizes need, because statistics of parts add up. The
scores of a set are kept in OUT/cache/calibration as they come, by criterion: an interrupted run goes on with the first
set that lacks any. Writes OUT/calibration.md and .json.
"""

import argparse
import datetime
import hashlib
import itertools
import json
import math
import statistics as stats
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from documents.calibration import document, enough
from scipy.stats import spearmanr
from torch import Tensor

from dcodp import importance as scoring
from dcodp.calibration import gather
from dcodp.compose import cells, register
from dcodp.config import Config
from dcodp.data.calibration import calibration_batches
from dcodp.data.splits import fingerprint, load
from dcodp.data.types import Batch, DetectionSet
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.detectors.registry import build
from dcodp.files import digest, file_digest, write_atomically
from dcodp.files.tensors import load_tensors, save_tensors
from dcodp.graph import CouplingGraph
from dcodp.importance import criterion, evidence_for, group_scores, names
from dcodp.processor import cpu_name
from dcodp.progress import track
from dcodp.pruning.selection import kept_count, lowest_removed
from dcodp.records.provenance import code_version, library_versions
from dcodp.testing import enliven

CONF = Path(__file__).resolve().parents[1] / "conf"
Scores = dict[str, Tensor]
Sums = dict[str, Tensor]


@dataclass(frozen=True)
class ImageSet:
    """The images from number `start` on, `size` of them."""

    size: int
    index: int

    @property
    def start(self) -> int:
        return self.size * self.index

    @property
    def end(self) -> int:
        return self.start + self.size


def image_sets(sizes: list[int], sets: int, available: int) -> list[ImageSet]:
    """The disjoint sets of each size: at most `sets`, of the largest size at most 2, as far as the images go."""
    limit = {size: sets if size < max(sizes) else min(sets, 2) for size in sizes}
    return [ImageSet(s, k) for s in sizes for k in range(limit[s]) if s * (k + 1) <= available]


# --- scores of every set, kept as they come ---


@dataclass
class Measuring:
    """Scores the sets of images that are not scored yet."""

    detector: Detector
    graph: CouplingGraph
    folder: Path
    device: str
    criteria: list[str]
    running: dict[ImageSet, Sums] = field(default_factory=dict)  # of the sets that are under way

    def path(self, images: ImageSet, name: str) -> Path:
        return self.folder / f"{images.size}-{images.index}-{name}.safetensors"

    def lacking(self, images: ImageSet) -> list[str]:
        return [name for name in self.criteria if not self.path(images, name).exists()]

    def run(self, batches: Iterable[Batch], batch: int, sets: list[ImageSet]) -> None:
        """One pass; batches that no set needs are passed over."""
        wanted = [images for images in sets if self.lacking(images)]
        chosen = [name for name in self.criteria if any(name in self.lacking(images) for images in wanted)]
        for number, labelled in enumerate(batches):
            here = [images for images in wanted if images.start <= number * batch < images.end]
            if not here:
                continue
            part = self.part(labelled, chosen, number)
            for images in here:
                self.add(images, part)
                if (number + 1) * batch == images.end:
                    self.score(images, chosen)

    def part(self, batch: Batch, chosen: list[str], number: int) -> Sums:
        """The statistics of one batch on their own."""
        found = evidence_for(self.detector.network, self.graph, chosen, seed=number)
        gather(
            found,
            [batch.to(self.device)],
            lambda b: self.detector.predict(b.images, DecodeSettings(confidence=0.5)),
            lambda b: self.detector.loss(b)[0],
        )
        return {key: value.cpu() for key, value in found.state().items()}

    def add(self, images: ImageSet, part: Sums) -> None:
        sums = self.running.setdefault(images, {})
        for key, value in part.items():
            sums[key] = sums[key] + value if key in sums else value

    def score(self, images: ImageSet, chosen: list[str]) -> None:
        whole = evidence_for(self.detector.network, self.graph, chosen)
        whole.restore(self.running.pop(images), images.size)
        for name in self.lacking(images):
            save_tensors(group_scores(name, whole), self.path(images, name))


# --- how far two sets agree ---


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


def distinct(sets: list[Scores]) -> float | None:
    """The share of a group's channels whose scores differ from each other, mean over groups by channels and sets."""
    shares = [weighted([(s.unique().numel() / len(s), len(s)) for s in scores.values()]) for scores in sets]
    return stats.mean(shares) if shares and all(map(math.isfinite, shares)) else None


def compared(measuring: Measuring, sets: list[ImageSet], ratio: float) -> dict[str, dict[str, Any]]:
    """criterion → size → the rank correlations and overlaps of all pairs of sets."""
    found: dict[str, dict[str, Any]] = {}
    for name, size in itertools.product(measuring.criteria, dict.fromkeys(images.size for images in sets)):
        scores = [load_tensors(measuring.path(images, name))[0] for images in sets if images.size == size]
        pairs = [agreement(a, b, ratio) for a, b in itertools.combinations(scores, 2)]
        columns = {"rank_correlation": [p[0] for p in pairs], "overlap": [p[1] for p in pairs]}
        # No number where a criterion gives all channels of all groups the same score.
        clean = {key: [x if math.isfinite(x) else None for x in values] for key, values in columns.items()}
        found.setdefault(name, {})[str(size)] = {"sets": len(scores), "distinct": distinct(scores), **clean}
    return found


# --- the run ---


def main() -> None:
    chosen = parsed()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    register()
    largest = max(chosen.sizes)
    wanted = max(size * (chosen.sets if size < largest else min(chosen.sets, 2)) for size in chosen.sizes)
    with tempfile.TemporaryDirectory() as folder:
        config = configured(chosen, folder, wanted)
        images = load(config.dataset, Path(config.paths.data), chosen.split)
        sets = image_sets(chosen.sizes, chosen.sets, len(images))
        measuring = prepared(config, chosen, images)
        last = max((s.end for s in sets if measuring.lacking(s)), default=0)
        if last:
            batches = calibration_batches(images, min(wanted, len(images)), chosen.image_size, chosen.batch, seed=0)
            shown = track(itertools.islice(batches, last // chosen.batch), "images", last // chosen.batch)
            measuring.run(shown, chosen.batch, sets)
        result = {**provenance(chosen, images), "criteria": compared(measuring, sets, chosen.ratio)}
        result["enough"] = {name: enough(by_size) for name, by_size in result["criteria"].items()}
    print(write(chosen.out, result))


def configured(chosen: argparse.Namespace, folder: str, images: int) -> Config:
    overrides = [f"model={chosen.model}", f"dataset={chosen.dataset}", f"paths.data={chosen.data or folder}"]
    overrides += [f"model.weights={chosen.weights}"] if chosen.weights else []
    overrides += [f"dataset.generate_train={images}"] if chosen.dataset == "shapes" else []
    ((_, config),) = cells(CONF, overrides)
    return config


def prepared(config: Config, chosen: argparse.Namespace, images: DetectionSet) -> Measuring:
    torch.manual_seed(0)
    detector, _ = build(config.model, images.classes)
    if config.model.weights is None:
        enliven(detector.network, detector.example_inputs(chosen.image_size))
    detector.network.to(chosen.device).eval()
    graph = detector.coupling_graph(chosen.image_size)
    weights = file_digest(Path(config.model.weights)) if config.model.weights else None
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources())).hexdigest()
    key = digest([chosen.model, weights, fingerprint(images), chosen.image_size, chosen.batch, chosen.device, code])
    folder = chosen.out / "cache" / "calibration" / key
    folder.mkdir(parents=True, exist_ok=True)
    return Measuring(detector, graph, folder, chosen.device, chosen.criteria)


def sources() -> Iterator[Path]:
    """The files that decide a score."""
    package = Path(str(scoring.__file__)).parent
    yield from sorted(package.rglob("*.py"))


def provenance(chosen: argparse.Namespace, images: DetectionSet) -> dict[str, Any]:
    cuda = torch.device(chosen.device).type == "cuda"
    return {
        "model": chosen.model,
        "weights": Path(chosen.weights).name if chosen.weights else None,
        "dataset": f"{images.name} {images.split} ({len(images)} images)",
        "data_fingerprint": fingerprint(images),
        "image_size": chosen.image_size,
        "batch": chosen.batch,
        "ratio": chosen.ratio,
        "hardware": torch.cuda.get_device_name(chosen.device) if cuda else cpu_name(),
        "threads": torch.get_num_threads(),
        "libraries": library_versions(),
        "code": code_version(),
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/calibration.py", *sys.argv[1:]]),
    }


def write(out: Path, result: dict[str, Any]) -> str:
    """Both files, each replaced at once; returns the Markdown."""
    write_atomically(out / "calibration.json", json.dumps(result, indent=1) + "\n")
    write_atomically(out / "calibration.md", document(result))
    return document(result)


def parsed() -> argparse.Namespace:
    measurable = [name for name in names() if criterion(name).sees != "weights"]
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
    parser.add_argument("--out", type=Path, default=Path("results"))
    chosen = parser.parse_args()
    if any(size % chosen.batch for size in chosen.sizes):
        parser.error(f"--batch {chosen.batch} does not divide all of --sizes")
    return chosen


if __name__ == "__main__":
    main()
