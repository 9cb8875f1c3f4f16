"""The table `model` of a `request.toml`: a preset with its sizes, or a list of layers.

    [model]
    preset = "cnn"                        # see `protocol.model.PRESETS`
    input_shape = [1, 8, 8]
    outputs = 10                          # classes; 1 for a regression
    channels = 8                          # a size that the preset takes

    [model]
    input_kind = "tabular"                # or "image" (the default), "tokens"
    input_shape = [4]
    outputs = 3
    layers = [
        { layer = "linear", out_features = 16 },
        { layer = "relu" },
        { layer = "linear", out_features = 3 },
    ]

A size with two axes may be one number; the stride of a pooling layer is its kernel if left out.
"""

import inspect
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from d2m_node.errors import UserError
from d2m_node.user_input import explain_mismatch
from protocol.errors import InvalidParams
from protocol.layers import AnyLayer, Size
from protocol.model import (
    MAX_LAYERS,
    MAX_OUTPUTS,
    PRESETS,
    InputKind,
    ModelDescription,
    validate_model,
)

SIZES: Final = ("hidden", "channels", "kernel", "vocabulary", "features")
"""What presets take."""

_PAIRS: Final = ("kernel", "stride", "padding")
_POOLS: Final = ("maxpool2d", "avgpool2d")


class ModelTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Either a preset, with its sizes, or the list of layers."""

    input_shape: Annotated[tuple[Size, ...], Meta(min_length=1, max_length=3)]
    outputs: Annotated[int, Meta(ge=1, le=MAX_OUTPUTS)]
    input_kind: InputKind | None = None
    preset: str | None = None
    hidden: Size | None = None
    channels: Size | None = None
    kernel: Size | None = None
    vocabulary: Size | None = None
    features: Size | None = None
    layers: Annotated[tuple[dict[str, object], ...], Meta(max_length=MAX_LAYERS)] | None = None


def read_model(table: ModelTable) -> ModelDescription:
    """Turn the table into a valid description. Raises UserError that names the key."""
    if (table.preset is None) == (table.layers is None):
        raise UserError("model: give either preset or layers")
    model = _read_preset(table) if table.layers is None else _read_layers(table, table.layers)
    try:
        validate_model(model)
    except InvalidParams as exc:
        raise UserError(f"model.{exc}") from exc
    return model


def _read_preset(table: ModelTable) -> ModelDescription:
    preset = PRESETS.get(str(table.preset))
    if preset is None:
        raise UserError(f"model.preset: {table.preset!r} is none of {', '.join(PRESETS)}")
    sizes = _list_sizes(table)
    taken = inspect.signature(preset).parameters
    for name in SIZES:
        if name in sizes and name not in taken:
            raise UserError(f"model.{name}: {table.preset} does not take it")
        if name in taken and taken[name].default is inspect.Parameter.empty and name not in sizes:
            raise UserError(f"model.{name}: {table.preset} needs it")
    model = preset(table.input_shape, table.outputs, **sizes)
    kind = model.input_kind if table.input_kind is None else table.input_kind
    return msgspec.structs.replace(model, input_kind=kind)


def _read_layers(table: ModelTable, layers: tuple[dict[str, object], ...]) -> ModelDescription:
    sizes = _list_sizes(table)
    if sizes:
        raise UserError(f"model.{next(iter(sizes))}: goes with a preset, not with layers")
    return ModelDescription(
        input_kind=InputKind.IMAGE if table.input_kind is None else table.input_kind,
        input_shape=table.input_shape,
        outputs=table.outputs,
        layers=tuple(_read_layer(layer, position) for position, layer in enumerate(layers)),
    )


def _read_layer(layer: Mapping[str, object], position: int) -> AnyLayer:
    written = {
        key: [value, value] if key in _PAIRS and isinstance(value, int) else value
        for key, value in layer.items()
    }
    if written.get("layer") in _POOLS and "kernel" in written:
        written.setdefault("stride", written["kernel"])
    try:
        read: AnyLayer = msgspec.convert(written, AnyLayer)
    except msgspec.ValidationError as exc:
        raise UserError(explain_mismatch(exc, prefix=f"model.layers[{position}]")) from exc
    return read


def _list_sizes(table: ModelTable) -> dict[str, int]:
    return {name: size for name in SIZES if (size := getattr(table, name)) is not None}
