"""Which device trains, and which does the exact work. Torch is imported only to use a device."""

import ctypes
from typing import TYPE_CHECKING

from d2m_node.errors import UserError
from d2m_node.settings import Device
from protocol.evaluation import Evaluator, compute_logits_of_all

if TYPE_CHECKING:
    import torch

NVIDIA_DRIVER = "libcuda.so.1"
"""What torch opens, too, to find a CUDA device."""


def select_device(device: Device) -> "torch.device":
    """Find the torch device that trains. Raises UserError if this machine does not have it."""
    import torch

    has = {
        Device.CUDA: torch.cuda.is_available(),
        Device.MPS: torch.backends.mps.is_available(),
        Device.CPU: True,
    }
    if device is Device.AUTO:
        device = next(one for one, is_there in has.items() if is_there)
    if not has[device]:
        raise UserError(f"device: this machine has no {device} that torch can use; take 'auto'")
    return torch.device(device.value)


def select_evaluator(device: Device) -> Evaluator:
    """Choose the path of the exact evaluation: CUDA if it is wanted and there, else numpy.

    Numpy does the exact work on a CPU, so a CONE node without a GPU never pays the 200 MB of
    torch. MPS has no float64: it only trains.

    Raises UserError if CUDA was asked for and is not there, or does not multiply exactly.
    """
    is_wanted = device is Device.CUDA or (device is Device.AUTO and has_nvidia_driver())
    if not is_wanted:
        return compute_logits_of_all
    found = select_device(device)
    if found.type != "cuda":  # a driver without a device that this torch can use
        return compute_logits_of_all
    from d2m_node.training.exact import TorchEvaluator

    return TorchEvaluator(found)


def has_nvidia_driver() -> bool:
    """Tell whether a CUDA device is worth looking for, without importing torch.

    The driver's library is where the loader finds it on every Linux that can use a GPU: on bare
    metal, in containers, under WSL. Device files have other names in each of them. Opening it
    starts nothing.
    """
    try:
        ctypes.CDLL(NVIDIA_DRIVER)
    except OSError:
        return False
    return True
