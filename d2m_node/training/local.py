"""A seller's local training: parameters and private samples to an update.

The only floating point of the protocol. Nothing here is replicated: what counts are the bytes of
the update that comes out. Source: MECHANISM 5, 12.1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from d2m_node.ports import Samples
from d2m_node.training.adam import Adam
from d2m_node.training.models import build_module, flatten_parameters, load_parameters
from protocol.errors import InvalidParams
from protocol.model import INPUT_SCALE, ModelDescription, count_parameters
from protocol.request import TrainingSpec
from protocol.update import dequantise, quantise

Int32Array = npt.NDArray[np.int32]

_SEED_RANGE = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTask:
    """What a seller trains in one round."""

    model: ModelDescription
    parameters: Int32Array
    """Where training starts, shape (d,), Q20."""
    spec: TrainingSpec
    samples: Samples
    seed: int
    """Order of the samples: on a CPU the same seed gives the same update."""


def train_locally(
    task: TrainingTask, *, device: torch.device, check_cancelled: Callable[[], None]
) -> Int32Array:
    """Train with Adam on the cross-entropy and return the step taken, shape (d,), Q20.

    ``check_cancelled`` is called before every batch; what it raises ends the training.

    Raises
    ------
    InvalidParams
        If the samples or the parameters do not fit the model, or the training diverges.
    """
    _validate(task)
    # More threads are slower for networks of this size, and the other sellers need the cores.
    torch.set_num_threads(1)
    start = dequantise(task.parameters).astype(np.float32)
    module = build_module(task.model)
    load_parameters(module, start)
    module = module.to(device=device)
    _fit(module, task, device, check_cancelled)
    with np.errstate(invalid="ignore", over="ignore"):
        step = flatten_parameters(module) - start
    if not np.isfinite(step).all():
        raise InvalidParams("learning_rate_micros", "the training diverged; lower the rate")
    return quantise(step)


def _validate(task: TrainingTask) -> None:
    if task.parameters.shape != (count_parameters(task.model),):
        raise InvalidParams("parameters", f"shape {task.parameters.shape} is not the model's")
    shape = task.samples.inputs.shape[1:]
    if shape != tuple(task.model.input_shape):
        raise InvalidParams(
            "input_shape", f"the samples have {shape}, not {task.model.input_shape}"
        )
    labels = task.samples.labels
    if len(labels) == 0 or len(labels) != len(task.samples.inputs):
        raise InvalidParams("samples", f"{len(labels)} labels, {len(task.samples.inputs)} inputs")
    if labels.min() < 0 or labels.max() >= task.model.classes:
        raise InvalidParams("classes", f"label {labels.max()} in a model of {task.model.classes}")


def _fit(
    module: nn.Module,
    task: TrainingTask,
    device: torch.device,
    check_cancelled: Callable[[], None],
) -> None:
    # The pixels stay bytes until their batch: floats would take four times the memory.
    inputs = torch.tensor(task.samples.inputs, device=device)
    labels = torch.tensor(task.samples.labels, device=device)
    if inputs.ndim == 4:
        # Convolution and pooling are twice as fast when the channels of a pixel lie together.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
    rate = task.spec.learning_rate_micros / 1_000_000
    optimizer = Adam(module.parameters(), rate=rate)
    for positions in _iter_batches(task, device):
        check_cancelled()
        module.zero_grad()
        logits = module(inputs[positions].float() / INPUT_SCALE)
        torch.autograd.backward(functional.cross_entropy(logits, labels[positions]))
        optimizer.step()


def _iter_batches(task: TrainingTask, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the positions of each batch: every epoch all samples, in a new order."""
    generator = torch.Generator().manual_seed(task.seed % _SEED_RANGE)
    count = len(task.samples.labels)
    for _ in range(task.spec.epochs):
        order = torch.randperm(count, generator=generator).to(device)
        for start in range(0, count, task.spec.batch_size):
            yield order[start : start + task.spec.batch_size]
