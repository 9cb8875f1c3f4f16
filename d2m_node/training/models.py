"""Model descriptions as torch modules, and flat vectors in and out of them.

Order and layout are those of `protocol.model.list_tensors`: weight before bias, layer by layer,
each row-major. They are torch's own, which `nn.Sequential` keeps.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from protocol.bounds import INPUT_SCALE
from protocol.layers import (
    AnyLayer,
    AvgPool2d,
    Clip,
    Conv2d,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    Relu,
    Scale,
    Shape,
)
from protocol.model import InputKind, ModelDescription, iter_shapes
from protocol.samples import TABULAR_BITS

Float32Array = npt.NDArray[np.float32]


class EmbedAsImage(nn.Embedding):
    """Rows of a table for tokens (n, tokens), as images (n, features, tokens, 1)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look the tokens up."""
        return super().forward(tokens).transpose(1, 2).unsqueeze(3)


class Divide(nn.Module):
    """Division by a power of two."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self._factor = 2.0**-shift

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Divide."""
        return values * self._factor


def build_module(model: ModelDescription) -> nn.Sequential:
    """Build the float network of a valid description: numbers or token ids to its outputs."""
    layers: list[nn.Module] = []
    for layer, shape in zip(model.layers, iter_shapes(model), strict=False):
        # Relu is monotone, so it may follow the maximum; pooled first it has less work.
        follows_relu = isinstance(layer, MaxPool2d) and layers and isinstance(layers[-1], nn.ReLU)
        layers.insert(len(layers) - bool(follows_relu), _build_layer(layer, shape))
    return nn.Sequential(*layers)


def read_inputs(kind: InputKind, batch: torch.Tensor) -> torch.Tensor:
    """Turn samples into the numbers that they stand for, float32; tokens stay ids."""
    match kind:
        case InputKind.IMAGE:
            return batch.float() / INPUT_SCALE
        case InputKind.TABULAR:
            return batch.float() / (1 << TABULAR_BITS)
        case InputKind.TOKENS:
            return batch


def _build_layer(layer: AnyLayer, shape: Shape) -> nn.Module:
    match layer:
        case Conv2d(out_channels=out, kernel=kernel, stride=stride, padding=padding, bias=bias):
            return nn.Conv2d(shape[0], out, kernel, stride, padding, bias=bias)
        case Linear(out_features=out, bias=bias):
            return nn.Linear(shape[0], out, bias=bias)
        case Embedding(vocabulary=vocabulary, features=features):
            return EmbedAsImage(vocabulary, features)
        case MaxPool2d(kernel=kernel, stride=stride):
            return nn.MaxPool2d(kernel, stride)
        case AvgPool2d(kernel=kernel, stride=stride):
            return nn.AvgPool2d(kernel, stride)
        case Flatten():
            return nn.Flatten()
        case Relu():
            return nn.ReLU()
        case Clip(limit=limit):
            return nn.Hardtanh(-limit, limit)
        case Scale(shift=shift):
            return Divide(shift)


def load_parameters(module: nn.Module, flat: Float32Array) -> None:
    """Copy a flat vector of shape (d,) into a module. ValueError if it has another length."""
    parameters = list(module.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    if flat.shape != (sum(sizes),):
        raise ValueError(f"{flat.shape} is not the shape of {sum(sizes)} parameters")
    pieces = torch.split_with_sizes(torch.tensor(flat), sizes)
    with torch.no_grad():
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.reshape(parameter.shape))


def flatten_parameters(module: nn.Module) -> Float32Array:
    """Return a module's parameters as one vector of shape (d,), on the CPU."""
    pieces = [parameter.detach().reshape(-1).cpu() for parameter in module.parameters()]
    flat: Float32Array = torch.cat(pieces).numpy()
    return flat
