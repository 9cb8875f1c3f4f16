"""The canonical evaluator: model and samples to logits, in exact integers.

What each layer does is in ``operations.py``. Here it is done for many samples and candidates, in
pieces that stay in a processor's cache. The integers are those of the definition, whatever the
pieces. Source: MECHANISM 5, 12.1.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from protocol.fixed_point import Int32, Int64
from protocol.layers import (
    AnyLayer,
    Clip,
    Conv2d,
    Embedding,
    Linear,
    MaxPool2d,
    Relu,
    Scale,
    Weighted,
)
from protocol.model import (
    ModelDescription,
    count_model_values,
    count_parameters,
    validate_model,
)
from protocol.operations import (
    Activation,
    Columns,
    Parameters,
    Table,
    Weights,
    add_bias,
    look_up,
    multiply,
    prepare_parameters,
    read_inputs,
    run_plain_layer,
    unfold,
)
from protocol.samples import SampleArray, shape_samples

_BATCH_VALUES = 1 << 16
# What a layer reads for one batch of samples: half a megabyte, which stays in the cache while
# the candidates go over it.

_MAX_BATCH_VALUES = 1 << 21
# A large model is read once per batch, so its batches are larger too, up to 16 MiB; and so are
# those of a model without convolutions, whose matrix products have no more rows than samples.

_MODELS_PER_PASS = 16
_PARAMETERS_PER_PASS = 1 << 22
# Candidates share a batch's preparation, but no more of them than 32 MiB of their parameters.


class Evaluator(Protocol):
    """Evaluates several parameter vectors of one model, by whatever path gives the same integers.

    :func:`compute_logits_of_all` is one; another may use an accelerator.
    """

    def __call__(
        self, model: ModelDescription, candidates: Iterable[Int32], samples: SampleArray
    ) -> Int64:
        """Return the logits, shape (models, n, outputs)."""


@dataclass(frozen=True, slots=True)
class Bias:
    """The step that adds a layer's bias, apart from its product."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an evaluation; ``index`` is the layer's."""

    layer: AnyLayer | Bias
    index: int


def compute_logits(model: ModelDescription, parameters: Int32, samples: SampleArray) -> Int64:
    """Evaluate one model.

    Parameters
    ----------
    model :
        A description that ``validate_model`` accepts.
    parameters : shape (d,)
        Q20 integers.
    samples : shape (n, *input_shape), or any shape of n rows with as many values
        Of the type that the model's input kind has (``samples.DTYPES``); tokens within the
        vocabulary.

    Returns
    -------
    logits : shape (n, outputs)
        In units of 1 / (255 * 2**20).

    Raises
    ------
    InvalidParams
        If the description is not valid.
    ValueError
        If the shapes or types do not fit.
    """
    logits: Int64 = compute_logits_of_all(model, [parameters], samples)[0]
    return logits


def compute_logits_of_all(
    model: ModelDescription, candidates: Iterable[Int32], samples: SampleArray
) -> Int64:
    """Evaluate several parameter vectors of one model; shape (models, n, outputs).

    The batches of samples are prepared once for several candidates, which are consumed lazily: no
    more than 16 are held at a time, of a model with 2**22 parameters and more only one. Otherwise
    as :func:`compute_logits`.
    """
    steps = pool_early(list_steps(model))
    return _evaluate(model, steps, candidates, samples, np.float64)


def compute_logits_reference(
    model: ModelDescription, parameters: Int32, samples: SampleArray
) -> Int64:
    """Evaluate one model in int64 throughout: slower, the definition of what is right."""
    logits: Int64 = _evaluate(model, list_steps(model), [parameters], samples, np.int64)[0]
    return logits


def list_steps(model: ModelDescription) -> tuple[Step, ...]:
    """List what is to be done, in the order of the layers."""
    steps = []
    for index, layer in enumerate(model.layers):
        steps.append(Step(layer, index))
        if isinstance(layer, Conv2d | Linear) and layer.bias:
            steps.append(Step(Bias(), index))
    return tuple(steps)


def pool_early(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Move each maximum ahead of the steps before it that treat all values of a channel alike.

    They are monotone, so they commute with it; pooled first they have a fraction of the work.
    """
    reordered: list[Step] = []
    for step in steps:
        position = len(reordered)
        if isinstance(step.layer, MaxPool2d):
            while position and isinstance(
                reordered[position - 1].layer, Bias | Relu | Clip | Scale
            ):
                position -= 1
        reordered.insert(position, step)
    return tuple(reordered)


def _evaluate(
    model: ModelDescription,
    steps: Sequence[Step],
    candidates: Iterable[Int32],
    samples: SampleArray,
    dtype: DTypeLike,
) -> Int64:
    validate_model(model)
    samples = shape_samples(model, samples)
    program = _split_steps(model, steps, dtype)
    remaining = iter(candidates)
    per_pass = max(1, min(_MODELS_PER_PASS, _PARAMETERS_PER_PASS // count_parameters(model)))
    results = [np.empty((0, len(samples), model.outputs), dtype=np.int64)]
    while len(logits := _evaluate_group(program, islice(remaining, per_pass), samples)):
        results.append(logits)
    return np.concatenate(results)


def _evaluate_group(
    program: "_Program", candidates: Iterable[Int32], samples: SampleArray
) -> Int64:
    """Evaluate the candidates of one pass; what they were prepared into is gone on return."""
    model = program.model
    group = [prepare_parameters(model, parameters, program.dtype) for parameters in candidates]
    logits = np.empty((len(group), len(samples), model.outputs), dtype=np.int64)
    for start, batch in _iter_batches(model, samples) if group else ():
        prepared = program.prepare(batch)
        for row, parameters in enumerate(group):
            logits[row, start : start + len(batch)] = program.run(prepared, parameters)
    return logits


def _iter_batches(
    model: ModelDescription, samples: SampleArray
) -> Iterator[tuple[int, SampleArray]]:
    """Yield the position and the samples of each batch."""
    values = _MAX_BATCH_VALUES
    if any(isinstance(layer, Conv2d | Embedding) for layer in model.layers):
        values = max(_BATCH_VALUES, min(count_parameters(model), values))
    size = max(1, values // count_model_values(model))
    for start in range(0, len(samples), size):
        yield start, samples[start : start + size]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """The steps of a model, split at the first layer with parameters."""

    model: ModelDescription
    shared: tuple[Step, ...]
    """Steps before it: the same for all candidates."""
    first: Weighted
    first_index: int
    rest: tuple[Step, ...]
    dtype: DTypeLike

    def prepare(self, batch: SampleArray) -> Columns | SampleArray:
        """Do what does not depend on parameters; tokens are left as they are."""
        if isinstance(self.first, Embedding):
            return batch
        activation = read_inputs(self.model.input_kind, batch, self.dtype)
        for step in self.shared:
            activation = self._run_step(step, activation, {})
        return unfold(self.first, activation)

    def run(self, prepared: Columns | SampleArray, parameters: Parameters) -> Int64:
        """Evaluate one candidate; shape (n, outputs)."""
        weights = parameters[self.first_index]
        if isinstance(weights, Table):
            assert not isinstance(prepared, Columns)
            activation = look_up(weights, prepared, self.dtype)
        else:
            assert isinstance(prepared, Columns)
            activation = multiply(prepared, weights, is_last=self._is_last(self.first_index))
        for step in self.rest:
            activation = self._run_step(step, activation, parameters)
        return activation.values.astype(np.int64)

    def _run_step(self, step: Step, activation: Activation, parameters: Parameters) -> Activation:
        weights = parameters.get(step.index)
        match step.layer:
            case Bias():
                assert isinstance(weights, Weights)
                return add_bias(activation, weights)
            case Conv2d() | Linear() as layer:
                assert isinstance(weights, Weights)
                columns = unfold(layer, activation)
                return multiply(columns, weights, is_last=self._is_last(step.index))
            case Embedding():
                raise AssertionError("an embedding is the first layer")
            case _ as layer:
                return run_plain_layer(layer, activation)

    def _is_last(self, index: int) -> bool:
        return index == len(self.model.layers) - 1


def _split_steps(model: ModelDescription, steps: Sequence[Step], dtype: DTypeLike) -> _Program:
    at, first = next(
        (at, step.layer) for at, step in enumerate(steps) if isinstance(step.layer, Weighted)
    )
    return _Program(
        model=model,
        shared=tuple(steps[:at]),
        first=first,
        first_index=steps[at].index,
        rest=tuple(steps[at + 1 :]),
        dtype=dtype,
    )
