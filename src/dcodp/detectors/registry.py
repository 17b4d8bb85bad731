"""From the settings of a model to its detector."""

from __future__ import annotations

from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.detectors.families import FAMILIES


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[Detector, list[str]]:
    """The detector that `model` describes, on the CPU, and notes on what of its weights could not be used.

    Raises InputError for an unknown family and whatever the family refuses.
    """
    return FAMILIES.named(model.family)(model, classes)
