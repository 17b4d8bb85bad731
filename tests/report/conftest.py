"""Fixtures of the report's tests; the records are made in made_up.py."""

from collections.abc import Callable
from typing import Any

import pytest
from made_up import block, made_up

from dcodp.records import Record


@pytest.fixture
def cell() -> Callable[..., Record]:
    return made_up


@pytest.fixture
def evaluation() -> Callable[..., dict[str, Any]]:
    return block
