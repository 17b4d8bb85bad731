"""Rows of class layers by name: which classes match, and where their rows lie."""

import pytest
import torch

from dcodp.data.voc import CLASSES as VOC
from dcodp.detectors.class_rows import COCO_CLASSES, Layout, match, with_rows


def test_every_class_of_voc_is_one_of_coco():
    matches = match(VOC, COCO_CLASSES, 80)
    assert [here for here, _ in matches.pairs] == list(range(20)) and len(COCO_CLASSES) == 80
    named = {VOC[here]: COCO_CLASSES[there] for here, there in matches.pairs}
    differing = {ours: theirs for ours, theirs in named.items() if ours != theirs}
    assert differing == {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }


@pytest.mark.parametrize(
    ("trained", "count", "pairs", "told"),
    [
        (("dog", "Cat"), 2, ((0, 1), (1, 0)), "the class rows of 2 were copied by name"),  # another order
        (("cat", "cow"), 2, ((0, 0),), "those of dog start afresh"),
        (("hen", "cow"), 2, ((0, 0), (1, 1)), "the weights name hen for cat, cow for dog; the class branch was kept"),
        (("cat", "dog"), 2, ((0, 0), (1, 1)), None),
        (None, 2, ((0, 0), (1, 1)), None),
        (None, 3, (), "no class is known by name, those of cat, dog start afresh"),
        (None, 80, ((0, 15), (1, 16)), "the class rows of 2 were copied by name"),  # COCO's
    ],
)
def test_what_matches_and_what_is_told(trained, count, pairs, told):
    matches = match(("cat", "dog"), trained, count)
    assert matches.pairs == pairs
    assert (matches.notes == ()) if told is None else matches.notes[0].endswith(told)


@pytest.mark.parametrize("layout", [Layout(), Layout(fixed=1, values=4), Layout(blocks=9), Layout(blocks=3, fixed=5)])
@pytest.mark.parametrize("shape", [(-1,), (-1, 2, 1, 1), (1, -1, 1, 1)])
def test_fixed_rows_and_matching_classes_are_copied(layout, shape):
    matches = match(("cat", "hen"), ("cow", "pig", "cat"), 3)
    places = {classes: layout.blocks * (layout.fixed + classes) * layout.values for classes in (2, 3)}
    inputs = 2 if 2 in shape else 1
    trained = torch.arange(1.0, places[3] * inputs + 1).reshape(shape)
    fresh = -torch.ones(places[2] * inputs).reshape(shape)
    rows = with_rows(fresh, trained, layout, matches).reshape(layout.blocks, layout.fixed + 2, layout.values, inputs)
    theirs = trained.reshape(layout.blocks, layout.fixed + 3, layout.values, inputs)
    assert torch.equal(rows[:, : layout.fixed], theirs[:, : layout.fixed])
    assert torch.equal(rows[:, layout.fixed], theirs[:, layout.fixed + 2]) and (rows[:, -1] == -1).all()
    assert (fresh == -1).all()


def test_a_layer_of_other_inputs_is_left_for_the_loader_to_refuse():
    trained = torch.zeros(3, 8)
    assert with_rows(torch.zeros(2, 4), trained, Layout(), match(("a", "b"), None, 3)) is trained
