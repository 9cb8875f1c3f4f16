import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.evaluation import (
    compute_cross_entropy,
    compute_logits,
    compute_logits_of_all,
    compute_logits_reference,
    compute_utility,
    predict,
)
from protocol.fixed_point import FLOAT64_EXACT, Int32
from protocol.hashing import Stream, keccak
from protocol.model import (
    PRESETS,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2,
    ModelDescription,
    Relu,
    cnn,
    compute_accumulator_bound,
    count_parameters,
    initial_parameters,
    logreg,
    mlp,
)
from protocol.terms import Metric
from protocol.update import MAX_PARAMETER, TensorKind, compute_tensor_digest
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
DIGITS = (1, 8, 8)
ONE_LOGIT = 255 << 20
TWO_CONVOLUTIONS = ModelDescription(
    input_shape=(2, 9, 7),
    classes=3,
    layers=(
        Conv2d(out_channels=2, kernel=2),
        MaxPool2(),
        Relu(),
        Conv2d(out_channels=3, kernel=2),
        Relu(),
        Flatten(),
        Linear(3),
    ),
)
MODELS = {name: preset(DIGITS, 10) for name, preset in PRESETS.items()} | {"deep": TWO_CONVOLUTIONS}


def draw_samples(model: ModelDescription, count: int, label: str = "samples"):
    values = Stream(keccak(label.encode())).below_many(256, count * math.prod(model.input_shape))
    return values.astype(np.uint8).reshape(count, *model.input_shape)


def clip_q12(value: int) -> int:
    return max(-32767, min((value + 128) >> 8, 32767))


def test_the_recorded_network_gives_the_recorded_logits() -> None:
    model = cnn((1, 28, 28), 10, kernel=5)
    stream = Stream(keccak(b"model"))
    parameters = (stream.below_many(200_001, 11_738) - 100_000).astype(np.int32)
    samples = stream.below_many(256, 3 * 784).astype(np.uint8).reshape(3, 1, 28, 28)
    recorded = VECTORS["eval"]
    digest = compute_tensor_digest(TensorKind.PARAMETERS, parameters)
    assert digest.hex() == recorded["w_digest"]

    logits = compute_logits(model, parameters, samples)
    labels = np.array([1, 2, 3])
    assert logits[0].tolist() == recorded["logits0"]
    assert predict(logits).tolist() == recorded["argmax"]
    assert int((predict(logits) == labels).sum()) == recorded["correct"]
    assert int(compute_cross_entropy(logits, labels).sum()) == recorded["ce_q16"]
    assert compute_utility(Metric.NEG_CE, logits, labels) == -((recorded["ce_q16"] << 4) // 3)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_float_products_give_the_integers_of_the_reference(model: ModelDescription) -> None:
    samples = draw_samples(model, 9)
    parameters = initial_parameters(model, keccak(b"init")) * 3
    reference = compute_logits_reference(model, parameters, samples)
    assert (compute_logits(model, parameters, samples) == reference).all()


@pytest.mark.parametrize("model", list(MODELS.values())[:3], ids=list(MODELS)[:3])
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_parameters_stay_exact_and_below_the_bound(
    model: ModelDescription, sign: int
) -> None:
    samples = np.full((2, *model.input_shape), 255, dtype=np.uint8)
    parameters = np.full(count_parameters(model), sign * MAX_PARAMETER, dtype=np.int32)
    logits = compute_logits(model, parameters, samples)
    assert (logits == compute_logits_reference(model, parameters, samples)).all()
    largest = int(np.abs(logits).max())
    assert largest <= compute_accumulator_bound(model) < FLOAT64_EXACT
    if sign > 0:
        assert largest == compute_accumulator_bound(model)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_logits_do_not_depend_on_the_batch(model: ModelDescription) -> None:
    samples = draw_samples(model, 12)
    parameters = initial_parameters(model, keccak(b"init"))
    whole = compute_logits(model, parameters, samples)
    pieces = [compute_logits(model, parameters, samples[i : i + 5]) for i in range(0, 12, 5)]
    assert (np.concatenate(pieces) == whole).all()


def test_logits_do_not_depend_on_the_internal_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["cnn"]
    samples, parameters = draw_samples(model, 12), initial_parameters(model, keccak(b"init"))
    whole = compute_logits(model, parameters, samples)
    monkeypatch.setattr("protocol.evaluation._BATCH_VALUES", 1000)
    assert (compute_logits(model, parameters, samples) == whole).all()


def test_many_candidates_are_evaluated_as_each_alone() -> None:
    model = MODELS["mlp"]
    samples = draw_samples(model, 4)
    candidates = [initial_parameters(model, keccak(bytes([i]))) for i in range(19)]
    together = compute_logits_of_all(model, iter(candidates), samples)
    assert together.shape == (19, 4, 10)
    for one, logits in zip(candidates, together, strict=True):
        assert (compute_logits(model, one, samples) == logits).all()


def test_no_candidates_give_no_logits() -> None:
    model = MODELS["logreg"]
    assert compute_logits_of_all(model, [], draw_samples(model, 4)).shape == (0, 4, 10)


def test_logistic_regression_by_hand() -> None:
    model = logreg((2,), 2)
    parameters = np.array([1 << 20, -(1 << 19), 300, 1 << 10, 7, -(1 << 20)], dtype=np.int32)
    logits = compute_logits(model, parameters, np.array([[255, 10]], dtype=np.uint8))
    w = [clip_q12(int(value)) for value in parameters[:4]]
    assert logits.tolist() == [
        [
            ((w[0] * 255 + w[1] * 10) << 8) + 7 * 255,
            ((w[2] * 255 + w[3] * 10) << 8) - (1 << 20) * 255,
        ]
    ]


def test_perceptron_by_hand() -> None:
    model = mlp((1,), 2, hidden=1)
    parameters = np.array([900_000, -5000, 400_000, -300_000, 11, -12], dtype=np.int32)
    logits = compute_logits(model, parameters, np.array([[200]], dtype=np.uint8))
    hidden = max(clip_q12(900_000) * 200 + clip_q12(-5000) * 255, 0) >> 4
    assert logits.tolist() == [
        [
            clip_q12(400_000) * hidden + 11 * 255,
            clip_q12(-300_000) * hidden - 12 * 255,
        ]
    ]


def test_pooling_drops_an_odd_last_row_and_column() -> None:
    model = ModelDescription(
        input_shape=(1, 3, 3), classes=2, layers=(MaxPool2(), Flatten(), Linear(2))
    )
    image = np.array([[1, 2, 250], [3, 4, 250], [250, 250, 250]], dtype=np.uint8)
    parameters = np.array([1 << 20, 0, 0, 0], dtype=np.int32)
    logits = compute_logits(model, parameters, image[np.newaxis])
    assert logits.tolist() == [[4 << 20, 0]]


def test_shapes_that_do_not_fit_are_refused() -> None:
    model = MODELS["logreg"]
    parameters = initial_parameters(model, keccak(b"init"))
    with pytest.raises(ValueError, match="shape"):
        compute_logits(model, parameters[:-1], draw_samples(model, 1))
    with pytest.raises(ValueError, match="reshape"):
        compute_logits(model, parameters, np.zeros((2, 63), dtype=np.uint8))


def test_the_smaller_class_wins_a_tie() -> None:
    assert predict(np.array([[1, 5, 5], [0, 0, 0]])).tolist() == [1, 0]


def test_accuracy_is_rounded_down_in_q20() -> None:
    logits = np.array([[1, 0], [1, 0], [1, 0]], dtype=np.int64)
    assert compute_utility(Metric.ACC, logits, [0, 0, 1]) == (2 << 20) // 3


def test_utility_of_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        compute_utility(Metric.ACC, np.zeros((0, 2), dtype=np.int64), [])
    with pytest.raises(ValueError, match="labels"):
        compute_utility(Metric.ACC, np.zeros((2, 2), dtype=np.int64), [1])


def compute_plain_cross_entropy(row: list[int], label: int) -> int:
    """The rule of MECHANISM 12.1 in unlimited integers."""
    roots = VECTORS["R30"]
    logs = [max(((z - max(row)) * 94548) // ONE_LOGIT, -30 << 16) for z in row]
    total = 0
    for log in logs:
        power = 1 << 30
        for bit, root in enumerate(roots):
            if (log & 0xFFFF) >> (15 - bit) & 1:
                power = power * root >> 30
        total += power >> -(log >> 16)
    length = total.bit_length() - 1
    z, result = total >> (length - 30), length << 16
    for bit in range(15, -1, -1):
        z = z * z >> 30
        if z >> 31:
            z >>= 1
            result += 1 << bit
    return min(16 << 16, result - (30 << 16) - logs[label])


LOGIT = st.one_of(st.integers(-(1 << 52), 1 << 52), st.integers(-20 * ONE_LOGIT, 20 * ONE_LOGIT))


@given(st.lists(LOGIT, min_size=2, max_size=12), st.data())
def test_cross_entropy_follows_the_rule_without_overflow(
    row: list[int], data: st.DataObject
) -> None:
    label = data.draw(st.integers(0, len(row) - 1))
    computed = int(compute_cross_entropy(np.array([row]), np.array([label]))[0])
    assert computed == compute_plain_cross_entropy(row, label)
    assert 0 <= computed <= 16 << 16


@settings(max_examples=50)
@given(st.lists(st.integers(-6 * ONE_LOGIT, 6 * ONE_LOGIT), min_size=2, max_size=8))
def test_cross_entropy_is_close_to_the_real_one(row: list[int]) -> None:
    values = [float(Fraction(logit, ONE_LOGIT)) for logit in row]
    expected = math.log2(sum(math.exp(value) for value in values)) - values[0] / math.log(2)
    computed = int(compute_cross_entropy(np.array([row]), np.array([0]))[0]) / 2**16
    assert abs(computed - min(expected, 16)) < 2e-3


def test_integer_parameters_are_not_changed_by_evaluation() -> None:
    model = MODELS["cnn"]
    parameters: Int32 = initial_parameters(model, keccak(b"init"))
    samples = draw_samples(model, 3)
    before = parameters.copy(), samples.copy()
    compute_logits(model, parameters, samples)
    assert (parameters == before[0]).all()
    assert (samples == before[1]).all()
