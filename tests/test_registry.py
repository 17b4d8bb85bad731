"""Things by name: those of a package, of a folder of one's own, and those that are registered."""

import sys

import pytest

from dcodp.errors import InputError
from dcodp.registry import Registry


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Over a package with two files."""
    package = tmp_path / "numbers_by_name"
    package.mkdir()
    for name, number in {"__init__": 0, "two": 2, "one": 1}.items():
        (package / f"{name}.py").write_text(f"NUMBER = {number}\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__(package.name)
    yield Registry[int](package.name, "NUMBER", key="number", kind="a number")
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_asked_for(registry):
    assert registry.names() == ("one", "two") and "numbers_by_name.two" not in sys.modules
    assert registry.named("two") == 2 and "numbers_by_name.one" not in sys.modules


def test_a_folder_of_ones_own_comes_after_the_package(registry, tmp_path):
    own = tmp_path / "own"
    registry.look_in(own)  # where there is none, nothing changes
    own.mkdir()
    for name, number in {"two": 22, "three": 3}.items():
        (own / f"{name}.py").write_text(f"NUMBER = {number}\n")
    for _ in range(2):
        registry.look_in(own)
    assert registry.names() == ("one", "three", "two")
    assert (registry.named("two"), registry.named("three")) == (2, 3)
    assert sys.modules["numbers_by_name"].__path__.count(str(own)) == 1


def test_one_is_registered_under_a_free_name(registry):
    registry.register("four", 4)
    assert registry.names() == ("four", "one", "two") and registry.named("four") == 4
    for taken in ("one", "four"):
        with pytest.raises(InputError, match=f"a number {taken} exists already; register yours under another name"):
            registry.register(taken, 5)


def test_a_name_that_is_not_known(registry):
    with pytest.raises(InputError, match="number=five is not known; use one of one, two"):
        registry.named("five")
