"""The evaluator's definition in unlimited integers, one value at a time, and models to try it on.

Nothing here is shared with `protocol.operations`: images are (channels, height, width), sums are
Python's, and every sum is written down.
"""

from dataclasses import dataclass, field
from itertools import product
from math import prod

import numpy as np
from hypothesis import strategies as st

from protocol.errors import InvalidParams
from protocol.fixed_point import Int32
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
    compute_output_shape,
)
from protocol.model import InputKind, ModelDescription, list_tensors, validate_model
from protocol.samples import DTYPES, SampleArray
from protocol.update import MAX_PARAMETER

ONE = 255


def clip_q12(parameter: int) -> int:
    return max(-32767, min((parameter + 128) >> 8, 32767))


@dataclass(slots=True)
class PlainEvaluator:
    """Evaluates one sample; ``largest`` is the largest sum of absolute values so far."""

    model: ModelDescription
    parameters: Int32
    largest: int = 0
    bits: int = field(default=0, init=False)

    def compute_logits(self, sample: np.ndarray) -> list[int]:
        kind = self.model.input_kind
        self.bits = 8 if kind is InputKind.TABULAR else 0
        factor = ONE if kind is InputKind.TABULAR else 1
        values = np.array([int(v) * factor for v in sample.flat], dtype=object)
        values = values.reshape(sample.shape)
        for index, layer in enumerate(self.model.layers):
            values = self._run(layer, index, values)
            self._see(values)
        return values.tolist()

    def _see(self, values: np.ndarray) -> None:
        if self.bits or self.model.input_kind is not InputKind.TOKENS:
            self.largest = max(self.largest, *(abs(value) for value in values.flat))

    def _run(self, layer: AnyLayer, index: int, values: np.ndarray) -> np.ndarray:
        match layer:
            case Conv2d() | Linear():
                return self._run_products(layer, index, values)
            case Embedding():
                (table,) = self._tensors(index)
                self.bits = 12
                rows = [[clip_q12(v) * ONE for v in table[token]] for token in values]
                return np.array(rows, dtype=object).T[:, :, np.newaxis]
            case Relu():
                return self._map(values, lambda v: max(v, 0))
            case Clip(limit=limit):
                end = limit * ONE << self.bits
                return self._map(values, lambda v: max(-end, min(v, end)))
            case Scale(shift=shift):
                self.bits += shift
                return values
            case Flatten():
                return values.reshape(-1)
            case MaxPool2d():
                return self._pool(layer, values, max)
            case AvgPool2d(kernel=kernel):
                return self._pool(layer, values, lambda window: self._mean(window, prod(kernel)))

    def _mean(self, window: list[int], count: int) -> int:
        self.largest = max(self.largest, sum(abs(value) for value in window))
        return sum(window) // count

    def _pool(self, layer: MaxPool2d | AvgPool2d, values: np.ndarray, reduce) -> np.ndarray:
        (rows, columns), (down, right) = layer.kernel, layer.stride
        result = np.empty(compute_output_shape(layer, values.shape), dtype=object)
        for channel, y, x in np.ndindex(*result.shape):
            top, left = y * down, x * right
            window = values[channel, top : top + rows, left : left + columns]
            result[channel, y, x] = reduce(window.reshape(-1).tolist())
        return result

    def _run_products(self, layer: Conv2d | Linear, index: int, values: np.ndarray) -> np.ndarray:
        weight, *biases = self._tensors(index)
        if self.bits > 8:
            shift, self.bits = self.bits - 8, 8
            values = self._map(values, lambda v: v >> shift)
        self.bits += 12
        up = 0
        if index == len(self.model.layers) - 1:
            up, self.bits = 20 - self.bits, 20
        windows = self._iter_windows(layer, values)
        result = np.empty(compute_output_shape(layer, values.shape), dtype=object)
        for place, window in windows:
            for out in range(len(weight)):
                pairs = zip(weight[out].flat, window, strict=True)
                terms = [(clip_q12(w) * value) << up for w, value in pairs]
                if biases:
                    terms.append(self._scale_bias(biases[0][out]))
                self.largest = max(self.largest, sum(abs(term) for term in terms))
                result[(out, *place)] = sum(terms)
        return result

    def _scale_bias(self, bias: int) -> int:
        return bias * ONE if self.bits == 20 else clip_q12(bias) * ONE << (self.bits - 12)

    @staticmethod
    def _iter_windows(layer: Conv2d | Linear, values: np.ndarray):
        if isinstance(layer, Linear):
            yield (), values.tolist()
            return
        (rows, columns), (down, right), (top, left) = layer.kernel, layer.stride, layer.padding
        padded = np.pad(values, ((0, 0), (top, top), (left, left)), constant_values=0)
        _, height, width = compute_output_shape(layer, values.shape)
        for y, x in product(range(height), range(width)):
            window = padded[:, y * down : y * down + rows, x * right : x * right + columns]
            yield (y, x), window.reshape(-1).tolist()

    def _tensors(self, index: int) -> list[np.ndarray]:
        found, start = [], 0
        for spec in list_tensors(self.model):
            if spec.layer_index == index:
                flat = [int(v) for v in self.parameters[start : start + spec.size]]
                found.append(np.array(flat, dtype=object).reshape(spec.shape))
            start += spec.size
        return found

    @staticmethod
    def _map(values: np.ndarray, rule) -> np.ndarray:
        mapped = np.empty(values.shape, dtype=object)
        mapped.flat = [rule(value) for value in values.flat]
        return mapped


# --- models, parameters, samples ----------------------------------------------------------------

SCALED_PIXELS = ModelDescription(
    input_shape=(1, 2, 2),
    outputs=2,
    layers=(
        Scale(3),
        Conv2d(out_channels=2, kernel=(2, 1)),
        Flatten(),
        Linear(2),
    ),
)
"""Its first sums have 15 fractional bits, which only pixels after a scale can have."""

SMALL = st.integers(1, 3)
PAIR = st.tuples(SMALL, SMALL)


@st.composite
def models(draw: st.DrawFn, *, padded: bool = True, weighted_max: int = 3) -> ModelDescription:
    """Draw a small valid model; where it would be too deep, every layer gets a clip before it."""
    kind = draw(st.sampled_from(InputKind))
    layers: list[AnyLayer] = []
    if kind is InputKind.TOKENS:
        shape: tuple[int, ...] = (draw(st.integers(1, 5)),)
        layers.append(Embedding(vocabulary=draw(SMALL), features=draw(SMALL)))
    else:
        image = st.tuples(SMALL, st.integers(1, 5), st.integers(1, 5))
        shape = draw(st.one_of(st.tuples(st.integers(1, 5)), image))
    reached = compute_output_shape(layers[0], shape) if layers else shape
    weighted = draw(st.integers(0, weighted_max - 1 - len(layers)))
    for _ in range(draw(st.integers(0, 6))):
        layer = draw(_layers(reached, padded=padded, weighted=weighted > 0))
        try:
            reached = compute_output_shape(layer, reached)
        except InvalidParams:
            continue
        weighted -= isinstance(layer, Conv2d | Linear)
        layers.append(layer)
    outputs = draw(SMALL)
    layers += [*([Flatten()] if len(reached) == 3 else []), Linear(outputs, draw(st.booleans()))]
    return _make_valid(
        ModelDescription(input_kind=kind, input_shape=shape, outputs=outputs, layers=tuple(layers))
    )


def _layers(shape: tuple[int, ...], *, padded: bool, weighted: bool) -> st.SearchStrategy[AnyLayer]:
    choices: list[st.SearchStrategy[AnyLayer]] = [
        st.just(Relu()),
        st.builds(Scale, st.integers(1, 5)),
        st.builds(Clip, st.integers(1, 9)),
    ]
    if len(shape) == 3:
        choices += [
            st.just(Flatten()),
            st.builds(MaxPool2d, kernel=PAIR, stride=PAIR),
            st.builds(AvgPool2d, kernel=PAIR, stride=PAIR),
        ]
    if weighted and len(shape) == 3:
        margin = st.integers(0, 2 if padded else 0)
        choices.append(
            st.builds(
                Conv2d,
                out_channels=SMALL,
                kernel=PAIR,
                stride=PAIR,
                padding=st.tuples(margin, margin),
                bias=st.booleans(),
            )
        )
    if weighted and len(shape) == 1:
        choices.append(st.builds(Linear, SMALL, st.booleans()))
    return st.one_of(choices)


def _make_valid(model: ModelDescription) -> ModelDescription:
    try:
        validate_model(model)
    except InvalidParams:
        layers: list[AnyLayer] = []
        for layer in model.layers:
            if layers and isinstance(layer, Conv2d | Linear):
                layers.append(Clip(4))
            layers.append(layer)
        model = ModelDescription(
            input_kind=model.input_kind,
            input_shape=model.input_shape,
            outputs=model.outputs,
            layers=tuple(layers),
        )
        validate_model(model)
    return model


def draw_extreme_parameters(model: ModelDescription, seed: int) -> Int32:
    """Draw parameters of which a third are at the protocol's bound, and some tiny."""
    generator = np.random.Generator(np.random.PCG64(seed))
    size = sum(spec.size for spec in list_tensors(model))
    magnitudes = generator.choice([MAX_PARAMETER, 1 << 18, 1 << 8], size)
    values = generator.uniform(-1, 1, size) * magnitudes
    saturated = np.sign(values) * MAX_PARAMETER
    return np.where(generator.random(size) < 0.33, saturated, values).astype(np.int32)


def draw_extreme_samples(model: ModelDescription, seed: int, count: int) -> SampleArray:
    """Draw samples that reach both ends of their type, or of the vocabulary."""
    generator = np.random.Generator(np.random.PCG64(seed))
    dtype = DTYPES[model.input_kind]
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if isinstance(model.layers[0], Embedding):
        high = model.layers[0].vocabulary - 1
    shape = (count, *model.input_shape)
    values = generator.integers(low, high, shape, endpoint=True)
    ends = generator.choice([low, high], shape)
    return np.where(generator.random(shape) < 0.4, ends, values).astype(dtype)
