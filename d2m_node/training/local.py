"""A seller's local training: parameters and private samples to an update.

The only floating point of the protocol. Nothing here is replicated: what counts are the bytes of
the update that comes out. Source: MECHANISM 5, 12.1.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from d2m_node.ports import TrainingTask
from d2m_node.training.adam import Adam
from d2m_node.training.convolution import ConvolutionShape
from d2m_node.training.models import (
    Float32Array,
    build_module,
    flatten_parameters,
    load_parameters,
    read_inputs,
)
from protocol.errors import InvalidParams, RuleViolation
from protocol.model import InputKind, ModelDescription, count_parameters
from protocol.samples import TARGET_BITS, validate_labels, validate_samples
from protocol.update import dequantise, quantise

Int32Array = npt.NDArray[np.int32]

_SEED_RANGE = 1 << 63


def train_locally(
    task: TrainingTask, *, device: torch.device, check_cancelled: Callable[[], None]
) -> Int32Array:
    """Train with Adam and return the step taken, shape (d,), Q20.

    The loss is the cross-entropy, in a regression the squared error.
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
    shape = ConvolutionShape.read(task.model) if device.type == "cpu" else None
    if shape is not None and task.private is None:
        trained = _train_by_hand(shape, start, task, check_cancelled)
    else:
        trained = _train_module(start, task, device, check_cancelled)
    with np.errstate(invalid="ignore", over="ignore"):
        step = trained - start
    if not np.isfinite(step).all():
        raise InvalidParams("learning_rate_micros", "the training diverged; lower the rate")
    return quantise(step)


def _validate(task: TrainingTask) -> None:
    if task.parameters.shape != (count_parameters(task.model),):
        raise InvalidParams("parameters", f"shape {task.parameters.shape} is not the model's")
    labels = task.samples.labels
    if len(labels) == 0 or len(labels) != len(task.samples.inputs):
        raise InvalidParams("samples", f"{len(labels)} labels, {len(task.samples.inputs)} inputs")
    try:
        validate_samples(task.model, task.samples.inputs)
        validate_labels(task.model, labels)
    except RuleViolation as error:
        raise InvalidParams("samples", str(error)) from error


def _train_by_hand(
    shape: ConvolutionShape,
    start: Float32Array,
    task: TrainingTask,
    check_cancelled: Callable[[], None],
) -> Float32Array:
    """Train without autograd; the parameters of `_train_module` but for rounding."""
    # Imported for those who need it: numba takes 60 MB, and its compiler as much again.
    from d2m_node.training.gradients import GradientComputer

    parameters = torch.tensor(start)
    computer = GradientComputer(shape, parameters)
    parameters.grad = computer.gradient
    optimizer = Adam([parameters], rate=task.learning_rate)
    images, labels = torch.tensor(task.samples.inputs), torch.tensor(task.samples.labels)
    for positions in _iter_batches(task, parameters.device):
        check_cancelled()
        computer.compute(images.index_select(0, positions), labels.index_select(0, positions))
        optimizer.step()
    return parameters.numpy()


def _train_module(
    start: Float32Array,
    task: TrainingTask,
    device: torch.device,
    check_cancelled: Callable[[], None],
) -> Float32Array:
    """Train any network, on any device, privately or not."""
    module = build_module(task.model)
    load_parameters(module, start)
    module = module.to(device=device)
    if task.private is None:
        _fit(module, task, device, check_cancelled)
    else:
        # Imported for those who ask for it: Opacus takes three seconds and 100 MB.
        from d2m_node.training.private import fit_privately

        fit_privately(module, task, task.private, device, check_cancelled)
    return flatten_parameters(module)


def _fit(
    module: nn.Module,
    task: TrainingTask,
    device: torch.device,
    check_cancelled: Callable[[], None],
) -> None:
    inputs = load_inputs(task, device)
    labels = torch.tensor(task.samples.labels, device=device)
    if inputs.ndim == 4:
        # Convolution and pooling are twice as fast when the channels of a pixel lie together.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
    optimizer = Adam(module.parameters(), rate=task.learning_rate)
    for positions in _iter_batches(task, device):
        check_cancelled()
        module.zero_grad()
        outputs = module(read_inputs(task.model.input_kind, inputs[positions]))
        torch.autograd.backward(compute_loss(task.model, outputs, labels[positions]))
        optimizer.step()


def load_inputs(task: TrainingTask, device: torch.device) -> torch.Tensor:
    """Samples keep their own type until their batch: floats would take up to four times as much.

    Tokens become int32, because torch cannot index by unsigned integers.
    """
    inputs = task.samples.inputs
    if task.model.input_kind is InputKind.TOKENS:
        return torch.tensor(inputs.astype(np.int32), device=device)
    return torch.tensor(inputs, device=device)


def compute_loss(
    model: ModelDescription,
    outputs: torch.Tensor,
    labels: torch.Tensor,
    reduction: Literal["mean", "sum"] = "mean",
) -> torch.Tensor:
    """Compare outputs (n, outputs) with labels (n,): cross-entropy, or squared error."""
    if model.is_regression:
        targets = labels.float() / (1 << TARGET_BITS)
        return functional.mse_loss(outputs[:, 0], targets, reduction=reduction)
    return functional.cross_entropy(outputs, labels, reduction=reduction)


def _iter_batches(task: TrainingTask, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the positions of each batch: every epoch all samples, in a new order."""
    generator = torch.Generator().manual_seed(task.seed % _SEED_RANGE)
    count = len(task.samples.labels)
    for _ in range(task.spec.epochs):
        order = torch.randperm(count, generator=generator).to(device)
        for start in range(0, count, task.spec.batch_size):
            yield order[start : start + task.spec.batch_size]
