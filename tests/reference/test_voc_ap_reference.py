"""VOC average precision against two independent implementations on real VOC2007 test annotations."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from dcodp.evaluation import voc_ap

KEYS = {"voc2007": ("own_ap07", "detectron2_ap07"), "area": ("own_ap10", "detectron2_ap10")}
WRONG = {  # the same with one rule broken: telling them apart shows that the data exercises the rule
    "voc2007": ("wrong_difficult_counted_ap07_exact_thresholds", "no_plus1_ap07_exact_thresholds",
                "own_ap07_exact_thresholds"),
    "area": ("wrong_difficult_counted_ap10", "no_plus1_ap10"),
}  # fmt: skip


@pytest.fixture(scope="module")
def reference(realdata):
    return json.loads((realdata / "reference" / "voc_ap_reference.json").read_text())


@pytest.fixture(scope="module")
def truth(realdata, reference):
    index = {name: k for k, name in enumerate(reference["classes"])}
    rows = []
    for image in reference["image_ids"]:
        tree = ElementTree.parse(realdata / "VOCdevkit" / "VOC2007" / "Annotations" / f"{image}.xml")
        for item in tree.findall("object"):
            box = [float(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            rows.append((image, index[item.findtext("name", "")], *box, int(item.findtext("difficult", "0"))))
    return rows


@pytest.mark.realdata
@pytest.mark.parametrize("rule", ["voc2007", "area"])
def test_every_class_equals_the_reference(reference, truth, rule):
    aps = voc_ap(reference["detections"], truth, rule)
    assert set(aps) == set(range(len(reference["classes"])))
    for key in KEYS[rule]:
        expected = [reference["per_class"][name][key] for name in reference["classes"]]
        np.testing.assert_allclose([aps[k] for k in range(len(expected))], expected, rtol=0, atol=1e-6)
        assert np.mean(list(aps.values())) == pytest.approx(reference["mean"][key], abs=1e-6)
    for key in WRONG[rule]:
        assert abs(np.mean(list(aps.values())) - reference["mean"][key]) > 1e-5
