import subprocess
import sys
from pathlib import Path

import pytest

from d2m_node.errors import UserError
from d2m_node.settings import Device
from d2m_node.training import devices
from d2m_node.training.devices import has_nvidia_driver, select_device, select_evaluator
from protocol.evaluation import compute_logits_of_all

ROOT = Path(__file__).parents[2]


def find_missing_device() -> Device:
    import torch

    return Device.CUDA if not torch.cuda.is_available() else Device.MPS


def test_auto_finds_a_device_on_every_machine() -> None:
    assert select_device(Device.AUTO).type in {"cpu", "cuda", "mps"}


def test_a_device_that_is_not_there_is_a_user_error() -> None:
    missing = find_missing_device()
    with pytest.raises(UserError, match=f"no {missing} that torch can use; take 'auto'"):
        select_device(missing)


@pytest.mark.parametrize("device", [Device.CPU, Device.MPS])
def test_without_cuda_numpy_does_the_exact_work(device: Device) -> None:
    assert select_evaluator(device) is compute_logits_of_all


def test_without_a_driver_auto_means_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", "libno-such-driver.so")
    assert not has_nvidia_driver()
    assert select_evaluator(Device.AUTO) is compute_logits_of_all


def test_a_driver_without_a_device_means_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(devices, "NVIDIA_DRIVER", None)  # the program itself, which is there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert has_nvidia_driver()
    assert select_evaluator(Device.AUTO) is compute_logits_of_all


def test_cuda_that_is_asked_for_and_not_there_is_a_user_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no cuda that torch can use"):
        select_evaluator(Device.CUDA)


@pytest.mark.gpu
def test_auto_takes_the_gpu() -> None:
    from d2m_node.training.exact import TorchEvaluator

    assert isinstance(select_evaluator(Device.AUTO), TorchEvaluator)


COMPUTE_A_ROUND = """
import sys, trio
from d2m_node.node import make_honest_executor
from d2m_node.settings import Device
from d2m_node.training import devices
from protocol.round import compute_round
from tests.support.federation import START, prepare_round

devices.NVIDIA_DRIVER = "libno-such-driver.so"
executor = trio.run(make_honest_executor, Device.AUTO)
work = prepare_round(START, 0)
assert executor.compute_round(work).digest == compute_round(work).digest
assert "torch" not in sys.modules
"""


def test_a_cone_node_without_a_gpu_never_imports_torch() -> None:
    subprocess.run([sys.executable, "-c", COMPUTE_A_ROUND], check=True, cwd=ROOT)
