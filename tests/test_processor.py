"""Machines that share a name are told apart by what their processors can do."""

import pytest

from dcodp.processor import cpu_name

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
