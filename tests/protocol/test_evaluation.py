import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.evaluation import (
    compute_logits,
    compute_logits_of_all,
    compute_logits_reference,
    list_steps,
    pool_early,
)
from protocol.fixed_point import Int32
from protocol.hashing import Stream, keccak
from protocol.layers import (
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
from protocol.metrics import compute_cross_entropy, compute_utility, predict
from protocol.model import (
    InputKind,
    ModelDescription,
    bag_of_tokens,
    cnn,
    count_parameters,
    logreg,
    mlp,
)
from protocol.operations import unfold
from protocol.terms import Metric
from protocol.update import MAX_PARAMETER, TensorKind, compute_tensor_digest
from tests.protocol.vectors import load_vectors
from tests.support.models import MODELS, draw_parameters, draw_samples
from tests.support.plain_evaluation import (
    SCALED_PIXELS,
    PlainEvaluator,
    clip_q12,
    draw_extreme_parameters,
    draw_extreme_samples,
    models,
)

VECTORS = load_vectors()
ONE_Q20 = 1 << 20


def describe(*layers: object, shape: tuple[int, ...], outputs: int = 2, **more: object):
    return ModelDescription(input_shape=shape, outputs=outputs, layers=layers, **more)


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


# --- all paths give the integers of the definition ----------------------------------------------


@settings(max_examples=150)
@given(models(), st.integers(0, 1 << 32))
@example(SCALED_PIXELS, 1)
def test_both_paths_give_the_integers_of_the_definition(model: ModelDescription, seed: int) -> None:
    parameters = draw_extreme_parameters(model, seed)
    samples = draw_extreme_samples(model, seed, 2)
    plain = [PlainEvaluator(model, parameters).compute_logits(sample) for sample in samples]
    assert compute_logits_reference(model, parameters, samples).tolist() == plain
    assert compute_logits(model, parameters, samples).tolist() == plain


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_float_products_give_the_integers_of_the_reference(model: ModelDescription) -> None:
    samples, parameters = draw_samples("float", model, 9), draw_parameters("float", model)
    reference = compute_logits_reference(model, parameters, samples)
    assert (compute_logits(model, parameters, samples) == reference).all()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_parameters_stay_exact(model: ModelDescription, sign: int) -> None:
    samples = draw_samples("saturated", model, 3)
    parameters = np.full_like(draw_parameters("", model), sign * MAX_PARAMETER)
    reference = compute_logits_reference(model, parameters, samples)
    assert (compute_logits(model, parameters, samples) == reference).all()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_logits_do_not_depend_on_the_batch(model: ModelDescription) -> None:
    samples, parameters = draw_samples("batch", model, 12), draw_parameters("batch", model)
    whole = compute_logits(model, parameters, samples)
    pieces = [compute_logits(model, parameters, samples[i : i + 5]) for i in range(0, 12, 5)]
    assert (np.concatenate(pieces) == whole).all()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_logits_do_not_depend_on_the_internal_batches(
    model: ModelDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, parameters = draw_samples("batch", model, 12), draw_parameters("batch", model)
    whole = compute_logits(model, parameters, samples)
    monkeypatch.setattr("protocol.evaluation._BATCH_VALUES", 1)
    monkeypatch.setattr("protocol.evaluation._MAX_BATCH_VALUES", 1)
    assert (compute_logits(model, parameters, samples) == whole).all()


@pytest.mark.parametrize("parameters_per_pass", [1, 1 << 22])
def test_many_candidates_are_evaluated_as_each_alone(
    parameters_per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.evaluation._PARAMETERS_PER_PASS", parameters_per_pass)
    model = MODELS["mlp"]
    samples = draw_samples("many", model, 4)
    candidates = [draw_parameters(f"many {i}", model) for i in range(19)]
    together = compute_logits_of_all(model, iter(candidates), samples)
    assert together.shape == (19, 4, 10)
    for one, logits in zip(candidates, together, strict=True):
        assert (compute_logits(model, one, samples) == logits).all()


def test_no_more_candidates_are_held_than_a_pass_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["mlp"]
    samples, parameters = draw_samples("lazy", model, 2), draw_parameters("lazy", model)
    monkeypatch.setattr("protocol.evaluation._PARAMETERS_PER_PASS", 3 * len(parameters))
    taken, finished = 0, []

    def produce():
        nonlocal taken
        for _ in range(7):
            taken += 1
            yield parameters

    def count_batches(*arguments):
        finished.append(taken)
        return iter(())

    monkeypatch.setattr("protocol.evaluation._iter_batches", count_batches)
    compute_logits_of_all(model, produce(), samples)
    assert finished == [3, 6, 7]


def test_a_batch_holds_no_more_than_padded_images_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = Conv2d(out_channels=1, kernel=(8, 1), stride=(8, 1), padding=(7, 0))
    model = ModelDescription(input_shape=(1, 1, 9), outputs=2, layers=(conv, Flatten(), Linear(2)))
    padded = 15 * 9
    monkeypatch.setattr("protocol.evaluation._BATCH_VALUES", 3 * padded)
    sizes = []

    def spy(layer, activation):
        sizes.append(len(activation.values))
        return unfold(layer, activation)

    monkeypatch.setattr("protocol.evaluation.unfold", spy)
    compute_logits(model, draw_parameters("pad", model), draw_samples("pad", model, 7))
    assert sizes[::2] == [3, 3, 1]


def test_no_candidates_give_no_logits() -> None:
    model = MODELS["logreg"]
    assert compute_logits_of_all(model, [], draw_samples("no", model, 4)).shape == (0, 4, 10)


def test_parameters_and_samples_are_not_changed_by_evaluation() -> None:
    for model in MODELS.values():
        parameters: Int32 = draw_parameters("kept", model)
        samples = draw_samples("kept", model, 3)
        before = parameters.copy(), samples.copy()
        compute_logits(model, parameters, samples)
        compute_logits_reference(model, parameters, samples)
        assert (parameters == before[0]).all()
        assert (samples == before[1]).all()


def test_a_maximum_is_taken_before_the_steps_it_commutes_with() -> None:
    conv = Conv2d(out_channels=1, kernel=(1, 1))
    pool = MaxPool2d(kernel=(2, 2), stride=(2, 2))
    mean = AvgPool2d(kernel=(1, 1), stride=(1, 1))
    model = describe(conv, Relu(), mean, Clip(1), pool, Flatten(), Linear(2), shape=(1, 4, 4))
    order = [type(step.layer).__name__ for step in pool_early(list_steps(model))]
    assert order[:6] == ["Conv2d", "Bias", "Relu", "AvgPool2d", "MaxPool2d", "Clip"]
    steps = pool_early(list_steps(describe(conv, Relu(), pool, Flatten(), shape=(1, 4, 4))))
    assert [step.layer for step in steps[:2]] == [conv, pool]


# --- each layer by hand -------------------------------------------------------------------------


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


def test_a_table_of_numbers_by_hand() -> None:
    model = logreg((2,), 2, input_kind=InputKind.TABULAR)
    parameters = np.array([ONE_Q20, 0, 0, -ONE_Q20, 0, 0], dtype=np.int32)
    logits = compute_logits(model, parameters, np.array([[-256, 384]], dtype=np.int16))
    assert logits.tolist() == [[-(255 << 20), -(255 << 20) * 3 // 2]]


def test_a_bag_of_tokens_by_hand() -> None:
    model = bag_of_tokens((3,), 2, vocabulary=2, features=1)
    # Token 0 is 1.0, token 1 is -0.5; their weights are 1 and -1.
    parameters = np.array([ONE_Q20, -ONE_Q20 // 2, ONE_Q20, -ONE_Q20, 0, 5], dtype=np.int32)
    logits = compute_logits(model, parameters, np.array([[1, 1, 0]], dtype=np.uint16))
    # The mean of -0.5, -0.5 and 1.
    assert logits.tolist() == [[0, 5 * 255]]
    logits = compute_logits(model, parameters, np.array([[1, 0, 0]], dtype=np.uint16))
    mean = ((255 << 12) * 3 // 2 // 3) >> 4
    assert logits.tolist() == [[mean << 12, -(mean << 12) + 5 * 255]]


def first_logit(image: list[list[int]], *layers: object) -> int:
    """The logit that is the first value after layers without parameters."""
    array = np.array([[image]], dtype=np.uint8)
    model = describe(*layers, Flatten(), Linear(2, bias=False), shape=array.shape[1:])
    parameters = np.zeros(count_parameters(model), dtype=np.int32)
    parameters[0] = ONE_Q20
    return int(compute_logits(model, parameters, array)[0, 0])


def test_pooling_drops_an_odd_last_row_and_column() -> None:
    image = [[1, 2, 250], [3, 4, 250], [250, 250, 250]]
    pool = MaxPool2d(kernel=(2, 2), stride=(2, 2))
    assert first_logit(image, pool) == 4 << 20
    assert compute_output_shape(pool, (1, 3, 3)) == (1, 1, 1)


def test_a_mean_is_rounded_down() -> None:
    pool = AvgPool2d(kernel=(2, 2), stride=(1, 1))
    assert first_logit([[1, 2], [2, 2]], pool) == 1 << 20


def test_a_negative_mean_is_rounded_down_too() -> None:
    model = describe(
        AvgPool2d(kernel=(1, 2), stride=(1, 1)),
        Flatten(),
        Linear(2, bias=False),
        shape=(1, 1, 2),
        input_kind=InputKind.TABULAR,
    )
    parameters = np.array([ONE_Q20, 0], dtype=np.int32)
    sample = np.array([[[[-1, 0]]]], dtype=np.int16)
    assert compute_logits(model, parameters, sample)[0, 0] == -128 << 12  # of -255 / 2


def test_a_clip_holds_values_within_its_limit() -> None:
    layers = (Flatten(), Linear(1, bias=False), Clip(2))
    model = describe(*layers, Linear(2, bias=False), shape=(1, 1, 1))
    sample = np.array([[[[255]]]], dtype=np.uint8)
    for weight, expected in ((7, 2), (-7, -2), (1, 1)):
        parameters = np.array([weight * ONE_Q20, ONE_Q20, 0], dtype=np.int32)
        assert compute_logits(model, parameters, sample)[0, 0] == expected * 255 << 20


def test_scaling_divides_by_a_power_of_two() -> None:
    layers = (Flatten(), Linear(1, bias=False), Scale(3))
    model = describe(*layers, Linear(2, bias=False), shape=(1, 1, 1))
    parameters = np.array([2 * ONE_Q20, ONE_Q20, 0], dtype=np.int32)
    sample = np.array([[[[255]]]], dtype=np.uint8)
    assert compute_logits(model, parameters, sample)[0, 0] == 255 << 18


def test_padding_is_zeros_and_strides_skip() -> None:
    conv = Conv2d(out_channels=1, kernel=(2, 2), stride=(2, 2), padding=(1, 1), bias=False)
    model = describe(conv, Flatten(), Linear(4, bias=False), shape=(1, 2, 2), outputs=4)
    parameters = np.concatenate([np.full(4, ONE_Q20), np.eye(4).reshape(-1) * ONE_Q20])
    sample = np.array([[[[1, 2], [3, 4]]]], dtype=np.uint8)
    logits = compute_logits(model, parameters.astype(np.int32), sample)
    assert (logits[0] >> 20).tolist() == [1, 2, 3, 4]


def test_a_kernel_may_be_a_pair() -> None:
    conv = Conv2d(out_channels=1, kernel=(1, 2), bias=False)
    model = describe(conv, Flatten(), Linear(2, bias=False), shape=(1, 2, 2))
    # The difference of neighbours in each row, then the first of the two.
    parameters = np.array([ONE_Q20, -ONE_Q20, ONE_Q20, 0, 0, ONE_Q20], dtype=np.int32)
    sample = np.array([[[[9, 2], [30, 10]]]], dtype=np.uint8)
    assert (compute_logits(model, parameters, sample)[0] >> 20).tolist() == [7, 20]


def test_an_embedding_is_an_image_over_the_tokens() -> None:
    conv = Conv2d(out_channels=1, kernel=(2, 1), bias=False)
    model = describe(
        Embedding(vocabulary=2, features=2),
        conv,
        MaxPool2d(kernel=(2, 1), stride=(1, 1)),
        Flatten(),
        Linear(2, bias=False),
        shape=(3,),
        input_kind=InputKind.TOKENS,
    )
    # Token 1 has (1, 2); the convolution adds feature 0 of a token and feature 1 of the next.
    table, weight, last = [0, 0, 1, 2], [1, 0, 0, 1], [1, 0]
    parameters = np.array([*table, *weight, *last], dtype=np.int32) * ONE_Q20
    tokens = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=np.uint16)
    logits = compute_logits(model, parameters.astype(np.int32), tokens)
    assert (logits[:, 0] // (255 << 20)).tolist() == [3, 2, 1]


# --- what does not fit --------------------------------------------------------------------------


def test_shapes_that_do_not_fit_are_refused() -> None:
    model = MODELS["logreg"]
    parameters = draw_parameters("shapes", model)
    with pytest.raises(ValueError, match="shape"):
        compute_logits(model, parameters[:-1], draw_samples("shapes", model, 1))
    with pytest.raises(ValueError, match="reshape"):
        compute_logits(model, parameters, np.zeros((2, 63), dtype=np.uint8))


def test_samples_of_another_kind_are_refused() -> None:
    model = MODELS["tabular"]
    with pytest.raises(ValueError, match="uint8 is not the type of tabular samples"):
        compute_logits(model, draw_parameters("", model), np.zeros((2, 13), dtype=np.uint8))
