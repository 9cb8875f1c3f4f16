"""Model descriptions as torch modules, and flat vectors in and out of them.

Order and layout are those of `protocol.model.list_tensors`: weight before bias, layer by layer,
each row-major. They are torch's own, which `nn.Sequential` keeps.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from protocol.model import Conv2d, Flatten, Linear, MaxPool2, ModelDescription, Relu, iter_shapes

Float32Array = npt.NDArray[np.float32]


def build_module(model: ModelDescription) -> nn.Sequential:
    """Build the float network of a valid description: inputs 0..1 to one logit per class."""
    layers: list[nn.Module] = []
    for layer, shape in zip(model.layers, iter_shapes(model), strict=False):
        match layer:
            case Conv2d(out_channels=out_channels, kernel=kernel):
                layers.append(nn.Conv2d(shape[0], out_channels, kernel))
            case Linear(out_features=out_features):
                layers.append(nn.Linear(shape[0], out_features))
            case Flatten():
                layers.append(nn.Flatten())
            case Relu():
                layers.append(nn.ReLU())
            case MaxPool2():
                # Relu is monotone, so both orders give the same; pooled first it has a quarter
                # of the work.
                follows_relu = bool(layers) and isinstance(layers[-1], nn.ReLU)
                layers.insert(len(layers) - follows_relu, nn.MaxPool2d(2))
    return nn.Sequential(*layers)


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
