"""The patterns of the paper's Fig. 2, found in nets that have them, drawn, and printed by `dcodp graph`."""

import sys

import pytest
import torch
from small_nets import Net, conv
from torch.nn import functional as F
from typer.testing import CliRunner

import dcodp
from dcodp.cli import build_app, main
from dcodp.graph.view.draw import COLOURS, FROZEN, arrange, colours_of, draw_patterns
from dcodp.graph.view.patterns import find_patterns


def everything(m, x):
    y = m.stem(x)
    y = m.next(y + m.res2(m.res1(y)))  # residual
    stages = [y, m.e1(y), m.e2(m.e1(y))]
    z = m.joined(torch.cat(stages, 1))  # ELAN
    fine = m.after(m.dense(z) + m.point(z))  # RepConv
    coarse = m.coarse(F.max_pool2d(fine, 2))
    return m.out(m.lateral(fine) + F.interpolate(coarse, scale_factor=2.0))  # FPN


@pytest.fixture
def graph():
    layers = {name: conv(8, 8) for name in ("res1", "res2", "next", "e1", "e2", "dense", "point", "after", "coarse")}
    model = Net(everything, stem=conv(3, 8), joined=conv(24, 8), lateral=conv(8, 8), out=conv(8, 2), **layers)
    return dcodp.trace(model.eval(), (torch.rand(1, 3, 8, 8),))


def test_the_four_patterns_are_found(graph):
    found = {p.name: set(p.layers) for p in find_patterns(graph)}
    assert found["residual"] == {"stem", "res1", "res2", "next"}
    assert {"next", "e1", "e2", "joined"} <= found["elan"]
    assert {"joined", "dense", "point", "after"} == found["repconv"]
    assert {"coarse", "lateral", "out"} <= found["fpn"]


def test_one_colour_per_group_and_grey_for_what_stays(graph):
    colours = colours_of(graph, ("stem", "res1", "res2", "out"))
    assert colours["stem"] == colours["res2"] == COLOURS[0] and colours["res1"] == COLOURS[1]
    assert colours["out"] == FROZEN


def test_no_two_boxes_share_a_place_and_parents_are_above(graph):
    for pattern in find_patterns(graph):
        places = arrange(graph, pattern.layers)
        assert len(set(places.values())) == len(pattern.layers)
        assert all(places[p][1] < places[x][1] for x in places for p in graph.parents[x] if p in places)


def test_pictures_are_written(graph, tmp_path):
    written = draw_patterns(graph, tmp_path / "pictures")
    names = {f"{name}.{kind}" for name in ("residual", "elan", "repconv", "fpn") for kind in ("svg", "png")}
    assert {p.name for p in written} == names and all(p.stat().st_size > 1000 for p in written)


def tiny():
    return Net(lambda m, x: (m.out(y := m.a(x)), y), a=conv(3, 8), out=conv(8, 2))


def test_the_command_prints_the_table_of_any_callable(tmp_path):
    arguments = ["graph", f"{__name__}:tiny", "--image-size", "8", "--first-output", "--draw", str(tmp_path)]
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 0, result.output
    assert "1 groups, 8 removable channels" in result.output and "none of the patterns" in result.output


def test_the_command_knows_the_names_of_conf():
    result = CliRunner().invoke(build_app(), ["graph", "yolov7_tiny_test", "--image-size", "64", "--classes", "3"])
    assert result.exit_code == 0, result.output
    assert "rbr_dense" in result.output and "an output of the model" in result.output


@pytest.mark.parametrize(
    ("name", "message"),
    [("yolov99", "yolov99 is not known"), ("no.such:thing", "cannot be imported"), ("builtins:dict", "returns a dict")],
)
def test_the_command_refuses_in_one_line(name, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dcodp", "graph", name])
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and len(error.strip().splitlines()) == 1
