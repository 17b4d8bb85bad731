"""The documentation's example of a criterion, as it stands there: two files, then `importance=spread` prunes."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dcodp
from dcodp.compose import cells, register
from dcodp.importance import criteria, names

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/how-to/criterion.md"


def example() -> dict[str, str]:
    """{path in the repository: content} of the page's files: a path in backticks and a colon before each block."""
    files = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return {path: body for path, body in files}


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of conf/ and an empty package folder with the example's files in them, which dcodp looks into as well."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for path, body in example().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(body)
    folder = tmp_path / "src/dcodp/importance/criteria"
    monkeypatch.setattr(criteria, "__path__", [*criteria.__path__, str(folder)])
    register()
    yield tmp_path
    sys.modules.pop(f"{criteria.__name__}.spread", None)


def test_it_is_one_file_and_one_yaml_of_thirty_lines_together():
    files = example()
    assert list(files) == ["src/dcodp/importance/criteria/spread.py", "conf/importance/spread.yaml"]
    assert sum(len(body.splitlines()) for body in files.values()) <= 30
    assert not any((ROOT / path).exists() for path in files)


def test_the_command_line_knows_it(repository):
    ((_, config),) = cells(repository / "conf", ["importance=spread", "ratio=0.5", "seed=2"])
    assert (config.importance.name, config.importance.seed) == ("spread", 2)
    assert config.importance.name in names()


def test_it_scores_and_prunes(repository, network, graph, batches):
    scores = dcodp.score(network, graph, "spread", batches)
    images = torch.cat([images for (images,) in batches])
    with torch.no_grad():
        first = network.norm(network.stem(images)).relu()
        third = network.down(first + network.branch(first).relu()).relu()
    torch.testing.assert_close(scores["down"], third.std((2, 3), correction=0).mean(0).double())
    plan = dcodp.select(graph, scores, ratio=0.5)
    lowest = scores["down"].argsort()[:4].tolist()
    assert sorted(plan.groups["down"]) == sorted(set(range(8)) - set(lowest))
    dcodp.testing.assert_equivalent(network, dcodp.prune(network, plan), plan, (images,))
