"""Leases of GPUs, with stand-ins for the GPUs: cells share none, whatever each process calls them."""

import multiprocessing
from types import SimpleNamespace

import pytest
import torch

from dcodp import devices
from dcodp.devices import devices_for
from dcodp.errors import InputError

A, B = "8932f937-d72c-4106-c12f-20bd9faed9f6", "11111111-d72c-4106-c12f-20bd9faed9f6"


class Waited(Exception):
    pass


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes this process one that sees these GPUs under this CUDA_VISIBLE_DEVICES."""

    def waited(_):
        raise Waited

    def sees(visible, *uuids):
        properties = [SimpleNamespace(uuid=uuid) if uuid else SimpleNamespace() for uuid in uuids]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
        monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)

    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(devices.time, "sleep", waited)
    return sees


def indices(leased):
    return [device.index for device in leased]


def test_each_cell_has_a_gpu_of_its_own(machine):
    machine("", A, B)
    with devices_for("auto") as first, devices_for("auto") as second:
        assert (indices(first), indices(second)) == ([0], [1])
        with pytest.raises(Waited), devices_for("auto"):
            pass
    with devices_for("auto", 2) as both:
        assert indices(both) == [0, 1]


def test_different_gpus_that_are_all_called_0_do_not_wait_for_each_other(machine):
    """As SLURM shows them where it confines each job to its own."""
    machine("0", A)
    with devices_for("auto") as first:
        machine("0", B)
        with devices_for("auto") as second:
            assert indices(first) == indices(second) == [0]


@pytest.mark.parametrize("visible", ["0", "1", "", f"GPU-{A}", "GPU-8932f9", " 0 "])
def test_one_gpu_by_several_names_is_leased_once(machine, visible):
    machine("", A, B)
    with devices_for("cuda:0"):
        machine(visible, A)
        with pytest.raises(Waited), devices_for("auto"):
            pass


def test_parts_of_one_gpu_are_leased_apart(machine):
    machine("MIG-GPU-8932/1/0,MIG-GPU-8932/2/0", A, A)
    with devices_for("auto") as first, devices_for("auto") as second:
        assert (indices(first), indices(second)) == ([0], [1])


@pytest.mark.parametrize("unknown", ["", "00000000-0000-0000-0000-000000000000"])
def test_where_there_is_no_uuid_its_number_is_the_name(machine, unknown):
    machine("3,5", unknown, unknown)
    with devices_for("auto") as first:
        machine("5,3", unknown, unknown)
        with devices_for("auto") as second:
            assert (indices(first), indices(second)) == ([0], [0])
            with pytest.raises(Waited), devices_for("auto"):
                pass


def test_a_killed_process_leaves_its_gpu(machine):
    machine("", A)
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=(held,))
    process.start()
    assert held.wait(30)
    with pytest.raises(Waited), devices_for("auto"):
        pass
    process.kill()
    process.join()
    with devices_for("auto") as leased:
        assert indices(leased) == [0]


def hold(held):
    with devices_for("auto"):
        held.set()
        held.wait()
        multiprocessing.get_context("fork").Event().wait()


@pytest.mark.parametrize("wanted", ["cuda:2", "cuda:x", "tpu", "cuda:-1"])
def test_a_device_that_is_not_here_is_one_line(machine, wanted):
    machine("", A, B)
    line = rf"device={wanted} is not here \(2 GPUs\); use auto, cpu or cuda:0 … cuda:1"
    with pytest.raises(InputError, match=line), devices_for(wanted):
        pass


def test_more_devices_than_there_are_and_none(machine):
    machine("", A)
    with pytest.raises(InputError, match="devices=2 with device=auto, which are 1 here"), devices_for("auto", 2):
        pass
    machine("")
    with devices_for("auto", 2) as cpu:
        assert cpu == [torch.device("cpu")] * 2
    with pytest.raises(InputError, match="no GPU is visible here"), devices_for("cuda"):
        pass
