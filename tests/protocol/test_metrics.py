import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from protocol.errors import InvalidParams
from protocol.metrics import (
    MAX_SQUARED_ERROR,
    compute_cross_entropy,
    compute_macro_f1,
    compute_mean_squared_error,
    compute_utility,
    predict,
    validate_metric,
)
from protocol.model import logreg
from protocol.samples import MAX_TARGET_Q16
from protocol.terms import MAX_UTILITY, Metric
from tests.protocol.vectors import load_vectors

ONE_LOGIT = 255 << 20
ROOTS_Q30 = load_vectors()["R30"]


def test_the_smaller_class_wins_a_tie() -> None:
    assert predict(np.array([[1, 5, 5], [0, 0, 0]])).tolist() == [1, 0]


def test_accuracy_is_rounded_down_in_q20() -> None:
    logits = np.array([[1, 0], [1, 0], [1, 0]], dtype=np.int64)
    assert compute_utility(Metric.ACC, logits, [0, 0, 1]) == (2 << 20) // 3


def test_a_loss_is_rounded_down() -> None:
    logits = np.array([[0, 0]] * 3, dtype=np.int64)
    each = compute_cross_entropy(logits, np.array([0, 1, 1]))
    assert compute_utility(Metric.NEG_CE, logits, [0, 1, 1]) == -((int(each.sum()) << 4) // 3)


@pytest.mark.parametrize("metric", Metric)
def test_utility_of_no_samples_is_refused(metric: Metric) -> None:
    with pytest.raises(ValueError, match="labels"):
        compute_utility(metric, np.zeros((0, 2), dtype=np.int64), [])
    with pytest.raises(ValueError, match="labels"):
        compute_utility(metric, np.zeros((2, 2), dtype=np.int64), [1])


@pytest.mark.parametrize("metric", [Metric.ACC, Metric.NEG_CE, Metric.MACRO_F1])
def test_classes_are_measured_by_classes(metric: Metric) -> None:
    validate_metric(metric, logreg((4,), 2))
    with pytest.raises(InvalidParams, match="metric: one output is a regression"):
        validate_metric(metric, logreg((4,), 1))


def test_a_number_is_measured_by_its_error() -> None:
    validate_metric(Metric.NEG_MSE, logreg((4,), 1))
    with pytest.raises(InvalidParams, match="NEG_MSE measures one output, not 2 classes"):
        validate_metric(Metric.NEG_MSE, logreg((4,), 2))


# --- cross-entropy ------------------------------------------------------------------------------


def compute_plain_cross_entropy(row: list[int], label: int) -> int:
    """The rule of MECHANISM 12.1 in unlimited integers."""
    logs = [max(((z - max(row)) * 94548) // ONE_LOGIT, -30 << 16) for z in row]
    total = 0
    for log in logs:
        power = 1 << 30
        for bit, root in enumerate(ROOTS_Q30):
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


# --- macro-F1 -----------------------------------------------------------------------------------


def test_macro_f1_by_hand() -> None:
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 2])
    # Class 0: 2 of 2 predicted, 2 of 3 found. Classes 1 and 2: nothing right.
    assert compute_macro_f1(predictions, labels) == ((4 << 20) // 5 + 0 + 0) // 3


def test_a_class_that_nobody_mentions_has_no_f1() -> None:
    assert compute_macro_f1(np.array([7, 7]), np.array([7, 7])) == 1 << 20


def test_macro_f1_counts_a_rare_class_as_much_as_a_common_one() -> None:
    logits = np.array([[1, 0]] * 10, dtype=np.int64)
    labels = [0] * 9 + [1]
    assert compute_utility(Metric.ACC, logits, labels) == (9 << 20) // 10
    assert compute_utility(Metric.MACRO_F1, logits, labels) == ((18 << 20) // 19) // 2


CLASSES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40)


@given(CLASSES)
def test_macro_f1_is_that_of_scikit_learn_rounded_down(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = (np.array(one) for one in zip(*pairs, strict=True))
    expected = f1_score(labels, predictions, average="macro", zero_division=0.0) * 2**20
    assert expected - 2 <= compute_macro_f1(predictions, labels) <= expected + 1e-6


# --- squared error ------------------------------------------------------------------------------


def test_a_squared_error_by_hand() -> None:
    # Predicted 1.5 and -0.25; expected 1 and 1.
    logits = np.array([[ONE_LOGIT * 3 // 2], [-ONE_LOGIT // 4]], dtype=np.int64)
    targets = [1 << 16, 1 << 16]
    expected = -int((0.5**2 + 1.25**2) / 2 * 2**20)
    assert compute_utility(Metric.NEG_MSE, logits, targets) == expected


def test_a_prediction_is_rounded_down() -> None:
    just_below_zero = np.array([[-1]], dtype=np.int64)
    # The prediction is -1 in Q16, whose square is 2**-12 in Q20.
    assert compute_mean_squared_error(just_below_zero, np.array([0])) == 0
    assert compute_mean_squared_error(just_below_zero, np.array([255])) == 256**2 >> 12


SAMPLE = st.tuples(
    st.integers(-(1 << 53), 1 << 53), st.integers(-MAX_TARGET_Q16 - 1, MAX_TARGET_Q16)
)


@given(st.lists(SAMPLE, min_size=1, max_size=30))
def test_a_squared_error_follows_the_rule_in_unlimited_integers(
    samples: list[tuple[int, int]],
) -> None:
    total = 0
    for logit, target in samples:
        error = logit // (255 << 4) - target
        total += min(abs(error), MAX_TARGET_Q16) ** 2
    logits = np.array([[logit] for logit, _ in samples])
    targets = np.array([target for _, target in samples])
    computed = compute_mean_squared_error(logits, targets)
    assert computed == total // (len(samples) << 12)
    assert 0 <= computed <= MAX_SQUARED_ERROR << 20 < MAX_UTILITY


def test_a_million_largest_errors_do_not_overflow() -> None:
    logits = np.full((1_000_000, 1), 1 << 53)
    targets = np.full(1_000_000, -MAX_TARGET_Q16)
    assert compute_mean_squared_error(logits, targets) == MAX_TARGET_Q16**2 >> 12
