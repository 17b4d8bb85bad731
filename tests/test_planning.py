"""Cells of a sweep that share a composition are what each composes to by itself."""

from pathlib import Path

import pytest

from dcodp import planning
from dcodp.compose import cells, register
from dcodp.config import to_dict
from dcodp.errors import InputError
from dcodp.identity import run_id

CONF = Path(__file__).resolve().parents[1] / "conf"
register()


@pytest.mark.parametrize(
    "words",
    [
        ("importance=l1,dcodp", "ratio=0.2,0.5", "seed=1,2"),  # importance.seed follows seed
        ("importance=l1", "seed=1,2", "importance.seed=7"),  # and here it does not
        ("method=paper,strong", "seed=1,2"),  # a key of the schema and a choice of files
        ("target=flops:0.5,null", "finetune.distill=0,1", "evaluation.multi_label=true,false"),
    ],
)
def test_sweeps_compose_to_what_single_cells_do(words):
    for overrides, config in cells(CONF, words):
        ((_, alone),) = cells(CONF, overrides)
        assert to_dict(config) == to_dict(alone), overrides


def test_cells_do_not_share_what_differs():
    found = [config for _, config in cells(CONF, ["finetune.lr=0.001,0.002", "seed=0,1"])]
    assert [config.finetune.lr for config in found] == [0.001, 0.001, 0.002, 0.002]
    assert [config.seed for config in found] == [0, 1, 0, 1] and len({id(config.wandb) for config in found}) == 4


@pytest.mark.parametrize("word", ["ratio=0.5,1.3", "seed=0,x", "optimizer=sgd,other"])
def test_every_value_is_checked(word):
    with pytest.raises(InputError):
        cells(CONF, [word])


def test_hydra_composes_once_for_each_choice_of_files(monkeypatch):
    calls, real = [], planning.composed

    def counted(choices, compose, check):
        return real(choices, lambda chosen: calls.append(chosen) or compose(chosen), check)

    monkeypatch.setattr("dcodp.compose.composed", counted)
    seeds = ",".join(map(str, range(200)))
    found = cells(CONF, ["importance=l1,l2", f"seed={seeds}", "ratio=0.2,0.3,0.4"])
    assert len(found) == 1200 == len({run_id(config) for _, config in found}) and len(calls) == 2
