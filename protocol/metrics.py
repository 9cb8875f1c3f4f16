"""Metrics in integers: logits and labels to a utility, of which more is better.

Source: MECHANISM 12.1; macro-F1 and the squared error are ours.
"""

from collections.abc import Sequence

import numpy as np

from protocol.bounds import INPUT_SCALE, LOGIT_BITS
from protocol.errors import InvalidParams
from protocol.fixed_point import LOG2E_Q16, Int64, exp2_16, log2_16
from protocol.model import ModelDescription
from protocol.samples import MAX_TARGET_Q16, TARGET_BITS
from protocol.terms import Metric
from protocol.types import UtilityQ20

MAX_CROSS_ENTROPY_BITS = 16
MAX_SQUARED_ERROR = 1 << 2 * (31 - TARGET_BITS)
"""Of a sample: errors are held within the span of a target."""

_MIN_LOG_Q16 = -(30 << 16)
_FAR_BELOW = -(1 << 34)
# A logit this far below the largest is below 2**-30 of it, so clipping first changes nothing
# and keeps the product with LOG2E_Q16 inside int64.

_UTILITY_BITS = 20


def validate_metric(metric: Metric, model: ModelDescription) -> None:
    """Check that a metric can measure a model.

    Raises
    ------
    InvalidParams
        If classes are measured by a distance, or a number by classes.
    """
    if model.is_regression and metric is not Metric.NEG_MSE:
        raise InvalidParams("metric", "one output is a regression; take NEG_MSE, or more outputs")
    if not model.is_regression and metric is Metric.NEG_MSE:
        raise InvalidParams("metric", f"NEG_MSE measures one output, not {model.outputs} classes")


def predict(logits: Int64) -> Int64:
    """Choose the class with the largest logit, the smaller class on a tie; shape (n,)."""
    classes: Int64 = np.argmax(logits, axis=-1).astype(np.int64)
    return classes


def compute_utility(metric: Metric, logits: Int64, labels: Sequence[int] | Int64) -> UtilityQ20:
    """Measure how good logits are.

    Parameters
    ----------
    metric :
        ACC: the share of right predictions. NEG_CE: minus the mean cross-entropy in bits, at
        most 16 per sample. MACRO_F1: the mean F1 of the classes. NEG_MSE: minus the mean squared
        error.
    logits : shape (n, outputs)
        In units of 1 / (255 * 2**20).
    labels : shape (n,)
        Right classes or, for NEG_MSE, targets in Q16.

    Returns
    -------
    utility :
        Q20, rounded down for ACC and MACRO_F1; for NEG_CE and NEG_MSE the loss is rounded down.

    Source: MECHANISM 12.1.
    """
    expected = np.asarray(labels, dtype=np.int64)
    count = len(expected)
    if count == 0 or logits.shape[0] != count:
        raise ValueError(f"{logits.shape[0]} rows of logits for {count} labels")
    match metric:
        case Metric.ACC:
            correct = int(np.count_nonzero(predict(logits) == expected))
            return UtilityQ20((correct << _UTILITY_BITS) // count)
        case Metric.NEG_CE:
            loss_q16 = int(compute_cross_entropy(logits, expected).sum())
            return UtilityQ20(-((loss_q16 << (_UTILITY_BITS - 16)) // count))
        case Metric.MACRO_F1:
            return UtilityQ20(compute_macro_f1(predict(logits), expected))
        case Metric.NEG_MSE:
            return UtilityQ20(-compute_mean_squared_error(logits, expected))


def compute_cross_entropy(logits: Int64, labels: Int64) -> Int64:
    """Compute each sample's cross-entropy in bits, Q16, at most 16 bits; shape (n,)."""
    below_largest = np.maximum(logits - logits.max(axis=1, keepdims=True), _FAR_BELOW)
    logs = (below_largest * LOG2E_Q16) // (INPUT_SCALE << LOGIT_BITS)
    logs = np.maximum(logs, _MIN_LOG_Q16)
    total = (exp2_16(logs & 0xFFFF) >> -(logs >> 16)).sum(axis=1)
    of_label = logs[np.arange(len(labels)), labels]
    loss: Int64 = log2_16(total) + _MIN_LOG_Q16 - of_label
    return np.minimum(loss, MAX_CROSS_ENTROPY_BITS << 16)


def compute_macro_f1(predictions: Int64, labels: Int64) -> int:
    """Compute the mean F1 of the classes that occur among predictions or labels, in Q20.

    A class has F1 = floor((2 TP << 20) / (2 TP + FP + FN)), where the divisor is how often the
    class is predicted plus how often it is right; the mean is rounded down too. A class that
    occurs in neither has no F1 and is left out, as scikit-learn does.
    """
    size = int(max(predictions.max(), labels.max())) + 1
    hits = np.bincount(labels[predictions == labels], minlength=size)
    occurrences = np.bincount(predictions, minlength=size) + np.bincount(labels, minlength=size)
    present = occurrences > 0
    # Counts are below 2**21 (validation_set.MAX_SAMPLES), so the products fit int64.
    scores = (2 * hits[present] << _UTILITY_BITS) // occurrences[present]
    return int(scores.sum()) // len(scores)


def compute_mean_squared_error(logits: Int64, targets_q16: Int64) -> int:
    """Compute the mean squared error of one output, Q20, rounded down.

    A prediction is the logit in Q16, rounded down. An error is held within +-MAX_TARGET_Q16, the
    span of a target, so a square is below 2**62 and the result below 2**50.
    """
    predictions_q16 = logits[:, 0] // (INPUT_SCALE << (LOGIT_BITS - TARGET_BITS))
    errors = np.clip(predictions_q16 - targets_q16, -MAX_TARGET_Q16, MAX_TARGET_Q16)
    squares = errors * errors
    # A sum of squares may exceed int64; the sums of their halves cannot.
    total = (int((squares >> 32).sum()) << 32) + int((squares & 0xFFFFFFFF).sum())
    return total // (len(squares) << (2 * TARGET_BITS - _UTILITY_BITS))
