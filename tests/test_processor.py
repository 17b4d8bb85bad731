"""Machines that share a name are told apart by what their processors can do."""

import json

import pytest

from dcodp.processor import cpu_name, is_of_another

CORE = "processor\t: {}\nmodel name\t: Some Server CPU\nflags\t\t: fpu sse2 {}\n\n"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("avx avx2 avx512f", "Some Server CPU (AVX-512)"),
        ("avx avx2", "Some Server CPU (AVX2)"),
        ("avx", "Some Server CPU"),
    ],
)
def test_a_processor_is_named_with_its_vector_unit(tmp_path, flags, name):
    (tmp_path / "cpuinfo").write_text(CORE.format(0, flags) + CORE.format(1, flags))
    assert cpu_name(tmp_path / "cpuinfo") == name


def test_where_the_system_tells_nothing_something_is_said(tmp_path):
    assert cpu_name(tmp_path / "none")


@pytest.mark.parametrize(("named", "other"), [("Some Device", True), ("", False), (cpu_name(), False)])
def test_a_table_tells_whose_times_it_holds(tmp_path, named, other):
    table = tmp_path / "layers.json"
    assert not is_of_another(table)
    table.write_text(json.dumps({"machine": {"processor": named}, "points": {}}))
    assert is_of_another(table) is other
    table.write_text("no table")
    assert not is_of_another(table)
