"""Relative errors of outputs, and detections that have a twin."""

import pytest
import torch

from dcodp.errors import InputError
from dcodp.export.equality import chosen_rows, compare, dense_head, relative_errors

IMAGE = torch.zeros(1, 3, 8, 8)


def said(*outputs):
    return lambda _images: [torch.as_tensor(output, dtype=torch.float32) for output in outputs]


def dense(*rows):
    """Rows of cx, cy, w, h and two class probabilities → [1, 6, N]."""
    return torch.tensor(rows).T[None]


CAT, DOG, FAINT = [10.0, 10, 8, 8, 0.9, 0.1], [40.0, 40, 8, 8, 0.0, 0.6], [80.0, 80, 8, 8, 0.2, 0.0]


def test_errors_are_relative_to_the_largest_value():
    errors = relative_errors([torch.tensor([1.0, -4.0]), torch.zeros(2)], [torch.tensor([1.5, -4.0]), torch.zeros(2)])
    assert errors == [pytest.approx(0.125), 0.0]


@pytest.mark.parametrize("other", [[1.0, 2.0, 3.0], [1.0, float("nan")]])
def test_other_shapes_and_nan_are_no_equality(other):
    assert not compare(said([1.0, 2.0]), said(other), [IMAGE]).holds()


def test_a_missing_output_is_an_error():
    with pytest.raises(InputError, match="has 1 outputs, the net 2"):
        compare(said([1.0], [2.0]), said([1.0]), [IMAGE])


def test_the_worst_image_counts():
    results = iter([1.0, 1.5])
    found = compare(said([2.0]), lambda _: [torch.tensor([2.0 * next(results)])], [IMAGE, IMAGE])
    assert found.relative == (0.5,) and found.images == 2


def test_detections_have_twins_wherever_they_lie():
    found = compare(said(dense(CAT, DOG, FAINT)), said(dense(CAT, DOG, FAINT)), [IMAGE], dense_head(2))
    assert (found.detections, found.unmatched) == (2, 0) and found.holds()
    assert found.statement == "largest relative error 0.0e+00 on 1 images; 0 of 2 detections differ"


@pytest.mark.parametrize(
    ("change", "unmatched"),
    [
        ({0: 10.5}, 2),  # moved: neither side finds the other
        ({4: 0.5}, 2),
        ({4: 0.0}, 1),  # gone
        ({4: 0.1, 5: 0.9}, 2),  # another class
        ({0: 10.01}, 0),
    ],
)
def test_detections_that_differ_are_counted(change, unmatched):
    other = [change.get(place, value) for place, value in enumerate(CAT)]
    found = compare(said(dense(CAT, DOG)), said(dense(other, DOG)), [IMAGE], dense_head(2))
    assert found.unmatched == unmatched and found.detections == 2


def test_detections_on_the_edge_of_the_confidence_count_on_neither_side():
    edge = [60.0, 60, 8, 8, 0.2505, 0.0]
    beyond = [60.0, 60, 8, 8, 0.2485, 0.0]
    assert compare(said(dense(CAT, edge)), said(dense(CAT, beyond)), [IMAGE], dense_head(2)).unmatched == 0


def test_rows_that_a_head_chose_may_change_places():
    one, two = [1.0, 1, 5, 5, 0.8, 0], [9.0, 9, 14, 14, 0.8, 1]
    found = compare(said([[one, two]]), said([[two, one]]), [IMAGE], chosen_rows())
    assert found.holds() and found.detections == 2 and found.largest == 0
    moved = [9.0, 9, 14, 15, 0.8, 1]
    assert compare(said([[one, two]]), said([[moved, one]]), [IMAGE], chosen_rows()).largest == pytest.approx(1 / 14)
    assert not compare(said([[one, two]]), said([[one, one]]), [IMAGE], chosen_rows()).holds()
