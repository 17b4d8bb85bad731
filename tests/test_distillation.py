"""The dense net teaches the pruned one: at the right channels, for every family, and in every way a net is trained."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._pytree import tree_leaves

import dcodp
from dcodp.config import ModelConfig, TrainSettings
from dcodp.data.augment import TrainingBatches
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.detectors import Batch
from dcodp.detectors.imitation import unexplained, unexplained_in_all
from dcodp.detectors.registry import build
from dcodp.detectors.torchvision_common import freeze_batch_norms
from dcodp.errors import InputError
from dcodp.files.tensors import load_tensors
from dcodp.testing import enliven, run, zeroed
from dcodp.training import precision, train
from dcodp.training.distillation import BLOCKS, _channels, distillation, reading
from dcodp.training.files import load_last
from dcodp.training.objective import Objective, Whole

SIZE, CLASSES = 64, ("lying", "standing")
FAMILIES = [("yolov8", "n"), ("yolov7", "tiny_test"), ("faster_rcnn", "tiny_test"), ("retinanet", "tiny_test"),
            ("fcos", "tiny_test"), ("ssd", "tiny_test")]  # fmt: skip
PLAIN = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "flip": 0.0, "hsv": 0.0, "close_mosaic": 0}
SETTINGS = TrainSettings(epochs=2, batch=4, lr=1e-3, optimizer="sgd", warmup_epochs=0.0, distill=1.0, **PLAIN)


@pytest.fixture(autouse=True)
def in_full(monkeypatch):
    """The teacher computes in float32, on processors with a unit for bfloat16 too."""
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda p: p[0])
def family(request):
    """The detector with live signals, its graph and a plan that removes half of everything."""
    name, variant = request.param
    torch.manual_seed(0)
    dense, _ = build(ModelConfig(name=name, family=name, variant=variant), CLASSES)
    graph = dense.coupling_graph(SIZE)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    with dense.most_work():
        enliven(dense.network, dense.example_inputs(SIZE), without=plan)
    return dense, graph, plan


@pytest.fixture(scope="module")
def yolov8():
    torch.manual_seed(0)
    dense, _ = build(ModelConfig(), CLASSES)
    graph = dense.coupling_graph(SIZE)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    enliven(dense.network, dense.example_inputs(SIZE), without=plan)
    return dense, graph, plan


def batch(seed=0, objects=1):
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    one = Batch(images, torch.tensor([[0.5, 0.5, 0.4, 0.3]]), torch.tensor([1]), torch.tensor([0]))
    return dataclasses.replace(one, **{k: getattr(one, k)[:objects] for k in ("boxes", "labels", "image_index")})


def objective(detector, term, labels, given):
    torch.manual_seed(3)  # proposals are sampled
    return Objective(detector, {"distill": term}, labels)(Whole(given))


def frozen_copy(network):
    """In train mode, with constant batch norms: what differs then is not the statistics of a batch."""
    network = copy.deepcopy(network).train()
    freeze_batch_norms(network)
    return network


def test_a_copy_has_nothing_to_learn_and_a_pruned_net_has_in_every_part(family):
    dense, graph, plan = family
    same = dense.with_network(frozen_copy(dense.network))
    loss, parts = objective(same, distillation(dense, same.network, graph, dcodp.PrunePlan(), 1.0), False, batch())
    assert {k: float(v) for k, v in parts.items()} == pytest.approx(dict.fromkeys(parts, 0), abs=1e-3)  # rounding
    small = dense.with_network(dcodp.prune(dense.network, plan).train())
    loss, parts = objective(small, distillation(dense, small.network, graph, plan, 2.0), False, batch())
    assert len(parts) >= 3 and all(0 < float(part) < float("inf") for part in parts.values())
    assert float(loss.detach()) == pytest.approx(sum(map(float, parts.values())), rel=1e-5)


def test_maps_have_a_weight_of_their_own_and_are_not_read_without_it(family):
    dense, graph, plan = family
    small = dense.with_network(frozen_copy(dcodp.prune(dense.network, plan)))
    found = []
    for features in (1.0, 0.25, 0.0):
        term = distillation(dense, small.network, graph, plan, 2.0, features)
        found.append({k: float(v) for k, v in objective(small, term, False, batch())[1].items()})
    assert not term.kept and found[2]["distill_features"] == 0 < found[0]["distill_features"]
    assert found[1]["distill_features"] == pytest.approx(found[0]["distill_features"] / 4)
    for part in found[0].keys() - {"distill_features"}:
        assert found[0][part] == pytest.approx(found[1][part]) == pytest.approx(found[2][part])


def test_a_teacher_in_bfloat16_says_nearly_the_same(family, monkeypatch):
    """As where the processor has instructions for it; elsewhere it is only slow. What a head says is compared as it is:
    the logits of these nets reach thousands, and divergences of them turn on the last digits."""
    dense, graph, plan = family
    small = dense.with_network(frozen_copy(dcodp.prune(dense.network, plan)))
    term = distillation(dense, small.network, graph, plan, 1.0)
    parts, lessons, said = [], [], type(term.teacher).lesson
    monkeypatch.setattr(type(term.teacher), "lesson", lambda *given: lessons.append(said(*given)) or lessons[-1])
    for short in (False, True):
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda short=short: short)
        parts.append({k: float(v) for k, v in objective(small, term, False, batch())[1].items()})
    full, rounded = ([t.float() for t in tree_leaves(lesson) if torch.is_tensor(t)] for lesson in lessons)
    assert parts[0] != parts[1]
    for a, b in zip(full, rounded, strict=True):
        assert (a - b).norm() < 0.1 * (a - a.mean()).norm()
    alike = {"distill_features"} if full else set(parts[0])
    assert {k: parts[1][k] for k in alike} == pytest.approx({k: parts[0][k] for k in alike}, rel=0.1)


def test_only_the_net_that_learns_gets_gradients(family):
    dense, graph, plan = family
    small = dense.with_network(dcodp.prune(dense.network, plan).train())
    term = distillation(dense, small.network, graph, plan, 1.0)
    nets = [dense.network, term.teacher.network]
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in nets]
    loss, _ = objective(small, term, False, batch())
    loss.backward()
    assert all(p.grad is not None for p in small.network.parameters() if p.requires_grad)
    assert all(p.grad is None for net in (dense, term.teacher) for p in net.network.parameters())
    assert not term.teacher.network.training and term.teacher.network is not dense.network
    for net, values in zip(nets, before, strict=True):
        assert all(torch.equal(v, values[k]) for k, v in net.state_dict().items())
    names = {name for name, _ in Objective(small, {"distill": term}).named_parameters()}
    assert names == {f"network.{name}" for name, _ in small.network.named_parameters()}


def test_without_labels_the_labels_change_nothing(family):
    dense, graph, plan = family
    small = dense.with_network(frozen_copy(dcodp.prune(dense.network, plan)))
    term = distillation(dense, small.network, graph, plan, 1.0)
    with_one, with_none = (objective(small, term, False, batch(objects=n))[1] for n in (1, 0))
    assert {k: float(v) for k, v in with_one.items()} == {k: float(v) for k, v in with_none.items()}
    _, both = objective(small, term, True, batch())
    assert set(with_one) < set(both)


def test_features_are_compared_at_the_kept_channels(family):
    """What a reader of the pruned net is given is what it is given in the zeroed dense net, at these channels."""
    dense, graph, plan = family
    small = dcodp.prune(dense.network, plan)
    kept = distillation(dense, small, graph, plan, 1.0).kept
    assert 0 < len(kept) <= BLOCKS and sum(k is not None for k in kept.values()) >= len(kept) / 2
    if dense.name != "faster_rcnn":  # its two nets may propose other regions
        twin = zeroed(dense.network, plan)
        compared = 0
        with reading(small, kept) as found, reading(twin, kept) as taught:
            run(small, dense.example_inputs(SIZE))
            run(twin, dense.example_inputs(SIZE))
        for name, index in kept.items():
            for ours, theirs in zip(found[name], taught[name], strict=True):
                wanted = theirs if index is None else theirs.index_select(1, index)
                assert float(unexplained(ours, wanted, 1)) < 1e-4
                compared += 1
        assert compared >= len(kept)


def test_channels_that_are_swapped_are_caught(yolov8):
    """A net pruned to one channel order but compared in another has much to learn where there was nothing."""
    dense, graph, plan = yolov8
    twin = dense.with_network(zeroed(dense.network, plan))  # teaches exactly what the pruned net computes
    small = dense.with_network(frozen_copy(dcodp.prune(dense.network, plan)))
    right, wrong = (distillation(twin, small.network, graph, plan, 1.0) for _ in range(2))
    name = next(name for name, kept in wrong.kept.items() if kept is not None)
    wrong.kept[name] = torch.cat([wrong.kept[name][1:2], wrong.kept[name][:1], wrong.kept[name][2:]])
    exact, swapped = (float(objective(small, term, False, batch())[1]["distill_features"]) for term in (right, wrong))
    assert exact < 1e-4 and swapped > 100 * max(exact, 1e-5)


def test_a_plan_of_another_net_is_refused(yolov8):
    dense, graph, plan = yolov8
    with pytest.raises(InputError, match="give the plan that made this net"):
        distillation(dense, dense.network, graph, plan, 1.0)


def test_a_map_is_compared_over_its_variance():
    taught = (
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 9])[:, None, None]
    )
    means = taught.mean((0, 2, 3), keepdim=True).expand_as(taught)
    assert float(unexplained(taught, taught, 1)) == 0
    assert float(unexplained(means, taught, 1)) == pytest.approx(1, abs=1e-3)
    assert float(unexplained(means.movedim(1, -1), taught.movedim(1, -1), -1)) == pytest.approx(1, abs=1e-3)
    assert float(unexplained(means * 0 + 3, taught * 0 + 3, 1)) == 0  # of a map that does not move
    with pytest.raises(InputError, match="methods `lesson` and `imitation`"):
        unexplained_in_all([taught], [taught, taught])


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Four images: one bright rectangle each on a dark ground; its class says whether it lies or stands."""
    folder, images = tmp_path_factory.mktemp("images"), []
    for i, (x, y, w, h) in enumerate([(4, 8, 40, 20), (20, 10, 18, 44), (10, 30, 44, 24), (36, 4, 20, 40)]):
        pixels = np.full((SIZE, SIZE, 3), 30, np.uint8)
        pixels[y : y + h, x : x + w] = (200, 60 * i, 255 - 60 * i)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        box, no = np.array([[x, y, x + w, y + h]], np.float32), np.zeros(1, bool)
        images.append(LabelledImage(str(i), folder / f"{i}.png", SIZE, SIZE, box, np.array([i % 2]), no, no))
    return DetectionSet("bars", "train", CLASSES, tuple(images))


class Stop(Exception):
    pass


def stop(_row):
    raise Stop


def taught(yolov8, bars, folder, settings=SETTINGS, processes=1, **options):
    dense, graph, plan = yolov8
    small = dense.with_network(copy.deepcopy(options.pop("start", None) or dcodp.prune(dense.network, plan)))
    terms = {"distill": distillation(dense, small.network, graph, plan, settings.distill)}
    batches = TrainingBatches(bars, SIZE, settings, seed=0)
    devices = ["cpu"] * processes
    train(small, batches, settings, folder, seed=0, devices=devices, validate=None, terms=terms, **options)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_lowers_it(yolov8, bars, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=8, lr=1e-2, optimizer="adamw", schedule="constant", labels=False)
    rows = taught(yolov8, bars, tmp_path, settings)
    assert {k for k in rows[0] if k.startswith("loss")} == {
        *("loss", "loss_distill_features", "loss_distill_cls", "loss_distill_dfl")
    }
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_resumed_equals_undisturbed_and_the_teacher_is_in_no_file(yolov8, bars, tmp_path):
    settings = dataclasses.replace(SETTINGS, mosaic=0.5, flip=0.5, batch=2)
    whole = taught(yolov8, bars, tmp_path / "whole", settings)
    with pytest.raises(Stop):
        taught(yolov8, bars, tmp_path / "broken", settings, on_epoch=stop)
    torch.manual_seed(77)
    broken = taught(yolov8, bars, tmp_path / "broken", settings)
    assert [{**row, "seconds": 0} for row in whole] == [{**row, "seconds": 0} for row in broken]
    one, other = (load_last(tmp_path / name) for name in ("whole", "broken"))
    assert all(torch.equal(one["network"][k], other["network"][k]) for k in one["network"])
    shapes = {k: v.shape for k, v in dcodp.prune(yolov8[0].network, yolov8[2]).state_dict().items()}
    assert {k: v.shape for k, v in one["network"].items()} == shapes
    assert {k: v.shape for k, v in load_tensors(tmp_path / "whole" / "best.safetensors")[0].items()} == shapes
    with pytest.raises(InputError, match=r"distill=1\.0, now distill=2\.0"):
        (tmp_path / "broken" / "done.json").unlink()
        taught(yolov8, bars, tmp_path / "broken", dataclasses.replace(settings, distill=2.0))


@pytest.mark.slow
def test_two_processes_learn_like_one(yolov8, bars, tmp_path):
    dense, _, plan = yolov8
    start = copy.deepcopy(dcodp.prune(dense.network, plan))
    freeze_batch_norms(start)  # each process has statistics of its own
    one, two = (taught(yolov8, bars, tmp_path / str(n), processes=n, start=start) for n in (1, 2))
    for single, shared in zip(one, two, strict=True):
        losses = [{k: v for k, v in row.items() if k.startswith("loss")} for row in (single, shared)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-3) and len(losses[0]) == 7


class Plain(nn.Module):
    """A net that says the same in both modes, for a detector without methods of its own."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return {"map": self.two(self.one(x).relu())}


def test_a_new_detector_needs_nothing_of_its_own(yolov8):
    from dcodp.detectors.base import Detector

    class Simple(Detector):
        def example_inputs(self, image_size, batch=1):
            return (torch.rand(batch, 3, image_size, image_size),)

        def outputs(self, result):
            return result["map"]

        def training_outputs(self, batch):
            return self.network(batch.images.float() / 255)

        def loss_from(self, outputs, batch):
            return outputs["map"].mean(), {}

        def predict(self, images, settings):
            return []

    torch.manual_seed(0)
    dense = Simple("simple", Plain(), CLASSES)
    graph = dense.coupling_graph(SIZE)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    small = dense.with_network(dcodp.prune(dense.network, plan))
    _, parts = objective(small, distillation(dense, small.network, graph, plan, 1.0), False, batch())
    assert set(parts) == {"distill_features", "distill_outputs"} and float(parts["distill_outputs"]) > 0
    same = distillation(dense, dense.network, graph, dcodp.PrunePlan(), 1.0)
    assert sum(map(float, objective(dense, same, False, batch())[1].values())) < 1e-9


@pytest.mark.parametrize("name, variant", FAMILIES[:2])
def test_a_teacher_without_batch_norms_says_and_reads_what_the_dense_net_does(name, variant):
    torch.manual_seed(0)
    dense, _ = build(ModelConfig(name=name, family=name, variant=variant), CLASSES)
    enliven(dense.network.double().eval(), dense.example_inputs(SIZE))
    graph, images = dense.coupling_graph(SIZE), dense.example_inputs(SIZE)
    term = distillation(dense, dense.network, graph, dcodp.select(graph, {}), 1.0)
    teacher = term.teacher.network
    with torch.no_grad(), reading(dense.network, term.kept) as read, reading(teacher, term.kept) as merged:
        said = [dense.outputs(net(*images)) for net in (dense.network, teacher)]
    torch.testing.assert_close((said[1], merged), (said[0], read), rtol=1e-6, atol=1e-6)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (dense.network, teacher)]
    assert norms[1] < 0.2 * norms[0] and not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_channels_are_chosen_in_the_order_that_maps_lie_in(layout):
    maps, kept = torch.rand(2, 6, 3, 4).to(memory_format=layout), torch.tensor([0, 2, 5])
    chosen = _channels(maps, kept, 1)
    assert torch.equal(chosen, maps[:, kept]) and chosen.is_contiguous(memory_format=layout)
