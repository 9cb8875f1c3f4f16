"""The bound of a model is never exceeded, and where nothing is lost at a border it is reached."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.bounds import MAX_WEIGHT_Q12, Range, compute_layer_range
from protocol.errors import InvalidParams
from protocol.fixed_point import FLOAT64_EXACT, Int32
from protocol.layers import AvgPool2d, Clip, Conv2d, Embedding, Flatten, Linear, Relu, Scale
from protocol.model import (
    InputKind,
    ModelDescription,
    cnn,
    compute_accumulator_bound,
    list_tensors,
    mlp,
    validate_model,
)
from protocol.samples import DTYPES
from protocol.update import MAX_PARAMETER
from tests.support.plain_evaluation import (
    SCALED_PIXELS,
    PlainEvaluator,
    draw_extreme_parameters,
    draw_extreme_samples,
    models,
)


def describe(*layers: object, shape: tuple[int, ...] = (64,)) -> ModelDescription:
    return ModelDescription(input_shape=shape, outputs=10, layers=layers)  # type: ignore[arg-type]


def measure(model: ModelDescription, parameters: Int32, sample: np.ndarray) -> int:
    evaluator = PlainEvaluator(model, parameters)
    evaluator.compute_logits(sample)
    return evaluator.largest


@settings(max_examples=100)
@given(models(), st.integers(0, 1 << 32))
def test_no_parameters_and_samples_exceed_the_bound(model: ModelDescription, seed: int) -> None:
    parameters = draw_extreme_parameters(model, seed)
    (sample,) = draw_extreme_samples(model, seed, 1)
    assert measure(model, parameters, sample) <= compute_accumulator_bound(model) < FLOAT64_EXACT


@settings(max_examples=60)
@given(models(padded=False))
@example(SCALED_PIXELS)
def test_the_bound_is_reached_by_some_signs_of_saturated_parameters(
    model: ModelDescription,
) -> None:
    """All weights of a layer have one sign, all biases another; inputs are at one end."""
    tensors = list_tensors(model)
    type_range = np.iinfo(DTYPES[model.input_kind])
    ends = [0] if model.input_kind is InputKind.TOKENS else [type_range.min, type_range.max]
    reached = 0
    for end, *signs in product(ends, *([[1, -1]] * len(tensors))):
        pairs = zip(signs, tensors, strict=True)
        flat = [np.full(tensor.size, sign * MAX_PARAMETER) for sign, tensor in pairs]
        sample = np.full(model.input_shape, end, dtype=DTYPES[model.input_kind])
        reached = max(reached, measure(model, np.concatenate(flat).astype(np.int32), sample))
    assert reached == compute_accumulator_bound(model)


def test_the_bound_of_the_recorded_network_is_the_specifications() -> None:
    bound = compute_accumulator_bound(cnn((1, 28, 28), 10, kernel=5))
    assert 5.0e14 < bound < 5.4e14


def test_a_network_too_deep_for_exact_sums_is_refused_with_its_layer_and_the_cure() -> None:
    deep = (Flatten(), Linear(64), Relu(), Linear(64), Relu(), Linear(10))
    assert compute_accumulator_bound(describe(*deep)) >= FLOAT64_EXACT
    with pytest.raises(InvalidParams, match=r"linear at position 5 .* \(2\^53\); put a clip layer"):
        validate_model(describe(*deep))


@pytest.mark.parametrize("cure", [Clip(64), Scale(12)])
def test_the_same_network_is_exact_with_a_clip_or_a_scale(cure: object) -> None:
    deep = (Flatten(), Linear(64), Relu(), cure, Linear(64), Relu(), cure, Linear(10))
    validate_model(describe(*deep))


def test_wide_tables_need_a_clip() -> None:
    wide = mlp((200,), 10, input_kind=InputKind.TABULAR)
    with pytest.raises(InvalidParams, match=r"2\^53"):
        validate_model(wide)
    clipped = ModelDescription(
        input_kind=InputKind.TABULAR,
        input_shape=(200,),
        outputs=10,
        layers=(Clip(8), *wide.layers),
    )
    validate_model(clipped)


def test_a_mean_counts_its_whole_window_before_it_divides() -> None:
    pool = AvgPool2d(kernel=(50, 50), stride=(1, 1))
    before = Range(-7, 5, bits=3)
    assert compute_layer_range(pool, (1, 50, 50), before, is_last=False) == (before, 2500 * 7)


def test_a_padded_window_counts_no_more_than_the_image_has() -> None:
    conv = Conv2d(out_channels=1, kernel=(5, 3), padding=(4, 0), bias=False)
    _, bound = compute_layer_range(conv, (2, 3, 9), Range(0, 1, bits=0), is_last=False)
    assert bound == 2 * 3 * 3 * MAX_WEIGHT_Q12


def test_a_floor_shift_enlarges_what_is_negative() -> None:
    assert Range(-17, 17, bits=12).shift_to_hidden_bits() == Range(-2, 1, bits=8)
    assert Range(-17, 17, bits=8).shift_to_hidden_bits() == Range(-17, 17, bits=8)


def test_so_many_scales_that_nothing_is_left_are_refused() -> None:
    with pytest.raises(InvalidParams, match=r"shift: .* fewer scale layers"):
        validate_model(describe(*[Scale(16)] * 4, Linear(10)))
    validate_model(describe(*[Scale(16)] * 3, Linear(10)))


def test_an_embedding_is_bounded_by_its_weights() -> None:
    rows, bound = compute_layer_range(
        Embedding(vocabulary=5, features=2), (4,), Range(0, 0, bits=0), is_last=False
    )
    assert rows == Range(-bound, bound, bits=12)
    assert bound == MAX_WEIGHT_Q12 * 255
