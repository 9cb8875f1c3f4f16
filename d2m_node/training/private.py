"""Training with differential privacy: DP-SGD with Opacus, and noise from the operating system.

Each step takes each sample by chance (Poisson), clips the gradient of every sample, and adds
noise to their sum. Adam then works on what is already private.
Source: Abadi et al. 2016 (arXiv:1607.00133); Mironov et al. 2019 (arXiv:1908.10530).
"""

import os
import warnings
from collections.abc import Callable, Iterator
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from opacus import GradSampleModule
from opacus.grad_sample import register_grad_sampler
from opacus.grad_sample.conv import compute_conv_grad_sample
from opacus.grad_sample.embedding import compute_embedding_grad_sample
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import nn

from d2m_node.ports import PrivateTraining, TrainingTask
from d2m_node.training.local import compute_loss, load_inputs
from d2m_node.training.models import EmbedAsImage, read_inputs
from protocol.errors import InvalidParams

MAX_GRADIENT_VALUES: Final = 1 << 26
"""Of gradients per sample that are held at a time, 256 MB; batches are cut to fit."""

_NOISE_DRAWS: Final = 4

Float64Array = npt.NDArray[np.float64]


@register_grad_sampler([nn.Conv2d])  # type: ignore[untyped-decorator]
def compute_convolution_gradients(
    layer: nn.Conv2d, activations: list[torch.Tensor], backprops: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor]:
    """Compute the gradient of each sample, as Opacus does, of inputs in any memory layout.

    Opacus 1.6 unfolds inputs as if they were contiguous: what follows an embedding is not, and its
    gradients were then wrong without an error.
    """
    contiguous = [activations[0].contiguous(), *activations[1:]]
    gradients: dict[nn.Parameter, torch.Tensor] = compute_conv_grad_sample(
        layer, contiguous, backprops
    )
    return gradients


@register_grad_sampler([EmbedAsImage])  # type: ignore[untyped-decorator]
def compute_embedding_gradients(
    layer: EmbedAsImage, activations: list[torch.Tensor], backprops: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor]:
    """Compute the gradient of each sample for our embedding, whose rows are turned into images."""
    rows = backprops.squeeze(3).transpose(1, 2).contiguous()
    gradients: dict[nn.Parameter, torch.Tensor] = compute_embedding_grad_sample(
        layer, activations, rows
    )
    return gradients


class SecureOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus ships no types
    """Opacus' optimizer with noise that nobody can guess from earlier noise."""

    def add_noise(self) -> None:
        """Add noise to the sum of the clipped gradients."""
        for parameter in self.params:
            summed = parameter.summed_grad
            noise = draw_noise(summed.shape, self.noise_multiplier * self.max_grad_norm)
            # Narrowed here: not every device has float64.
            noise = noise.to(summed.dtype).to(summed.device)
            parameter.grad = (summed + noise).view_as(parameter)


def fit_privately(
    module: nn.Module,
    task: TrainingTask,
    private: PrivateTraining,
    device: torch.device,
    check_cancelled: Callable[[], None],
) -> None:
    """Train a module in place. ``check_cancelled`` is called before every part of a batch.

    Raises InvalidParams if the model has a layer that Opacus cannot train.
    """
    errors = ModuleValidator.validate(module, strict=False)
    if errors:
        raise InvalidParams("model", f"cannot be trained with differential privacy: {errors[0]}")
    inputs = load_inputs(task, device)
    labels = torch.tensor(task.samples.labels, device=device)
    watched = GradSampleModule(module, loss_reduction="sum")
    optimizer = SecureOptimizer(
        torch.optim.Adam(watched.parameters(), lr=task.learning_rate),
        noise_multiplier=private.noise_multiplier,
        max_grad_norm=private.max_grad_norm,
        expected_batch_size=private.sample_rate * len(labels),
    )
    parameters = sum(parameter.numel() for parameter in module.parameters())
    part_size = max(1, MAX_GRADIENT_VALUES // parameters)
    for _ in range(private.steps):
        for part, is_last in _cut(draw_batch(len(labels), private.sample_rate), part_size):
            check_cancelled()
            optimizer.signal_skip_step(do_skip=not is_last)
            positions = part.to(device)
            batch = read_inputs(task.model.input_kind, inputs[positions])
            _compute_gradients(watched, task, batch, labels[positions])
            optimizer.step()
            optimizer.zero_grad()
    watched.to_standard_module()


def _compute_gradients(
    watched: GradSampleModule, task: TrainingTask, batch: torch.Tensor, labels: torch.Tensor
) -> None:
    """Leave the gradient of each sample in ``grad_sample`` of each parameter."""
    if not len(labels):  # as likely as the chances say; its step is noise alone
        for parameter in watched.parameters():
            parameter.grad_sample = torch.zeros((0, *parameter.shape), device=parameter.device)
        return
    with warnings.catch_warnings():
        # Torch warns that the inputs, which are data, have no gradients of their own.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        outputs = watched(batch)
        torch.autograd.backward(compute_loss(task.model, outputs, labels, reduction="sum"))


def _cut(positions: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, bool]]:
    """Cut a batch into parts, at least one; say which is the last."""
    parts = torch.split(positions, size)
    for index, part in enumerate(parts):
        yield part, index == len(parts) - 1


def draw_batch(count: int, rate: float) -> torch.Tensor:
    """Take each of ``count`` samples with the chance ``rate``; their positions, ascending."""
    return torch.from_numpy(np.flatnonzero(_draw_uniform(count) < rate))


def draw_noise(shape: torch.Size, deviation: float) -> torch.Tensor:
    """Draw normal noise of a standard deviation, float64.

    Half the sum of four draws: the rounding of a single one can give away what it hides.
    Source: Holohan, Braghin 2021 (arXiv:2107.10138), as in Opacus' secure mode.
    """
    count = prod(shape)
    total = np.zeros(count)
    for _ in range(_NOISE_DRAWS):
        total += _draw_normal(count)
    return torch.from_numpy(total * (deviation / _NOISE_DRAWS**0.5)).reshape(shape)


def _draw_normal(count: int) -> Float64Array:
    """Box and Muller: two normal numbers of two uniform ones."""
    pairs = (count + 1) // 2
    radius = np.sqrt(-2 * np.log(_draw_uniform(pairs)))
    angle = 2 * np.pi * _draw_uniform(pairs)
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]


def _draw_uniform(count: int) -> Float64Array:
    """Draw from (0, 1) with the kernel's generator, which is cryptographic."""
    words = np.frombuffer(os.urandom(8 * count), dtype=np.uint64)
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
