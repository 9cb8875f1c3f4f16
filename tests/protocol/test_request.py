"""A request has one encoding, and nothing that it can say brings a node down."""

import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from protocol.errors import InvalidMessage, InvalidParams
from protocol.hashing import keccak
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
)
from protocol.model import (
    MAX_DESCRIPTION_BYTES,
    PRESETS,
    InputKind,
    ModelDescription,
    bag_of_tokens,
    cnn,
    count_model_operations,
    logreg,
)
from protocol.request import (
    MAX_BODY_BYTES,
    MAX_OPERATIONS_PER_BALLOT,
    RequestBody,
    SamplingSpec,
    TrainingSpec,
    ValidationSpec,
    decode_body,
    encode_body,
    validate_body,
    validate_work,
)
from protocol.step import StepSpec
from tests.support.models import MODELS

DIGITS = (1, 8, 8)
SAMPLE_COUNT = 1000


def request(
    model: ModelDescription = logreg(DIGITS, 10),  # noqa: B008 (frozen)
    *,
    final_count: int = 200,
    subset_count: int = 300,
    sample_count: int = SAMPLE_COUNT,
    batch_size: int = 32,
    tags: tuple[str, ...] = ("digits", "images"),
) -> RequestBody:
    return RequestBody(
        tags=list(tags),
        model=model,
        initial_seed=bytes(32),
        training=TrainingSpec(learning_rate_micros=10_000, batch_size=batch_size, epochs=1),
        sampling=SamplingSpec(alpha_bps=2000, eta_q16=65_536, keep_bps=7000),
        validation=ValidationSpec(
            root=bytes(32),
            sample_count=sample_count,
            final_count=final_count,
            subset_count=subset_count,
        ),
    )


def unpack(body: RequestBody) -> list[Any]:
    return msgspec.msgpack.decode(encode_body(body), type=list[Any])


# --- the encoding -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_request_survives_its_encoding(model: ModelDescription) -> None:
    assert decode_body(encode_body(request(model))) == request(model)


def test_the_encoding_of_a_model_is_fixed() -> None:
    layers = (
        Embedding(vocabulary=9, features=2),
        Conv2d(out_channels=3, kernel=(2, 1), padding=(1, 0), bias=False),
        Relu(),
        Scale(2),
        Clip(8),
        AvgPool2d(kernel=(2, 1), stride=(1, 1)),
        MaxPool2d(kernel=(1, 1), stride=(1, 1)),
        Flatten(),
        Linear(10),
    )
    model = ModelDescription(
        input_kind=InputKind.TOKENS, input_shape=(4,), outputs=10, layers=layers
    )
    assert unpack(request(model))[1] == {
        "input_kind": "tokens",
        "input_shape": [4],
        "outputs": 10,
        "layers": [
            {"layer": "embedding", "vocabulary": 9, "features": 2},
            {
                "layer": "conv2d",
                "out_channels": 3,
                "kernel": [2, 1],
                "stride": [1, 1],
                "padding": [1, 0],
                "bias": False,
            },
            {"layer": "relu"},
            {"layer": "scale", "shift": 2},
            {"layer": "clip", "limit": 8},
            {"layer": "avgpool2d", "kernel": [2, 1], "stride": [1, 1]},
            {"layer": "maxpool2d", "kernel": [1, 1], "stride": [1, 1]},
            {"layer": "flatten"},
            {"layer": "linear", "out_features": 10, "bias": True},
        ],
    }


def test_the_longest_description_is_far_below_its_limit() -> None:
    margins = ((1 << 16) - 1,) * 2
    sizes = (1 << 16,) * 2
    longest = Conv2d(out_channels=1 << 16, kernel=sizes, stride=sizes, padding=margins)
    layers = (longest,) * 32
    model = ModelDescription(
        input_kind=InputKind.TABULAR, input_shape=(1 << 16,) * 3, outputs=1024, layers=layers
    )
    assert len(msgspec.msgpack.encode(model)) < MAX_DESCRIPTION_BYTES // 2


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(input_shape=[]),
        lambda d: d.update(outputs=0),
        lambda d: d.update(outputs=1025),
        lambda d: d.update(input_kind="sound"),
        lambda d: d.pop("input_kind"),  # a default has one encoding too: written out
        lambda d: d["layers"].append({"layer": "softmax"}),
        lambda d: d["layers"][0].update(kernel=3),  # the pair is its one encoding
        lambda d: d["layers"][0].update(kernel=[3, 0]),
        lambda d: d["layers"][0].update(kernel=[3, 3, 3]),
        lambda d: d["layers"][0].update(padding=[-1, 0]),
        lambda d: d["layers"][0].pop("stride"),
        lambda d: d["layers"][0].update(dilation=1),
        lambda d: d["layers"].insert(1, {"layer": "scale", "shift": 17}),
        lambda d: d["layers"].insert(1, {"layer": "clip", "limit": 0}),
        lambda d: d.update(layers=list(reversed(d.pop("layers"))), outputs=d.pop("outputs")),
    ],
)
def test_a_model_that_is_not_canonical_is_refused(change) -> None:
    fields = unpack(request(cnn(DIGITS, 10)))
    assert decode_body(msgspec.msgpack.encode(fields)) == request(cnn(DIGITS, 10))
    change(fields[1])
    with pytest.raises(InvalidMessage):
        decode_body(msgspec.msgpack.encode(fields))


STEPPED = msgspec.structs.replace(
    request(),
    training=msgspec.structs.replace(request().training, rate_decay_ppm=950_000),
    step=StepSpec(lengths_q16=(32_768, 65_536), momentum_q16=52_429),
)


def test_a_request_with_a_schedule_survives_its_encoding() -> None:
    assert decode_body(encode_body(STEPPED)) == STEPPED
    assert unpack(STEPPED)[3] == [10_000, 32, 1, 950_000]
    assert unpack(STEPPED)[6] == [[32_768, 65_536], 52_429]


def test_a_request_that_asks_for_no_schedule_is_encoded_as_it_was_before_there_was_one() -> None:
    data = encode_body(request())
    assert keccak(data).hex() == (
        "55f7eac73e85be32079a49018e6fef84e5a64a2e76eb0854a6bb7817b8bea940"
    )
    fields = unpack(request())
    assert len(fields) == 6
    assert len(fields[3]) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.append([[65_536], 0]),  # a default at the end has one encoding too:
        lambda fields: fields[3].append(1_000_000),  # left out
        lambda fields: fields[3].append(0),
        lambda fields: fields[3].append(1_000_001),
        lambda fields: fields.append([[], 0]),
        lambda fields: fields.append([[65_536] * 5, 0]),
        lambda fields: fields.append([[0], 0]),
        lambda fields: fields.append([[1 << 21], 0]),
        lambda fields: fields.append([[65_537], 65_536]),
        lambda fields: fields.append([[65_537]]),
        lambda fields: fields.append(None),
        lambda fields: fields.extend([[[65_537], 1], 0]),
    ],
)
def test_a_schedule_that_is_not_canonical_is_refused(change) -> None:
    fields = unpack(request())
    change(fields)
    with pytest.raises(InvalidMessage):
        decode_body(msgspec.msgpack.encode(fields))


def test_bytes_of_a_step_with_the_same_length_twice_are_refused() -> None:
    body = msgspec.structs.replace(STEPPED, step=StepSpec(lengths_q16=(5, 5)))
    with pytest.raises(InvalidParams, match=r"step\.lengths_q16: must be distinct"):
        decode_body(encode_body(body))


def test_hostile_bytes_are_no_request() -> None:
    good = encode_body(request())
    for data in (b"", good[:-1], good + b"\x00", good + bytes(MAX_BODY_BYTES)):
        with pytest.raises(InvalidMessage):
            decode_body(data)


def test_text_that_is_no_utf_8_is_no_request() -> None:
    good = encode_body(request())
    tag = request().tags[0].encode()
    assert good.count(tag) == 1
    with pytest.raises(InvalidMessage, match="no request body"):
        decode_body(good.replace(tag, b"\xff" * len(tag)))


@pytest.fixture
def usual_depth() -> Iterator[None]:
    """The recursion that Python allows; libraries in this process may have raised it."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("usual_depth")
@pytest.mark.parametrize("depth", [10, 50_000])
def test_a_nest_before_a_layers_tag_is_no_request(depth: int) -> None:
    parts = [msgspec.msgpack.encode(part) for part in unpack(request())]
    flatten = msgspec.msgpack.encode({"layer": "flatten"})
    nest = b"\xa1x" + b"\x91" * depth + b"\x90"
    hostile = b"\x82" + nest + flatten[1:]
    assert parts[1].count(flatten) == 1
    parts[1] = parts[1].replace(flatten, hostile)
    data = bytes([0x90 + len(parts)]) + b"".join(parts)
    assert len(data) <= MAX_BODY_BYTES
    with pytest.raises(InvalidMessage, match="no request body"):
        decode_body(data)


def test_bytes_of_a_model_that_cannot_work_are_refused() -> None:
    model = ModelDescription(input_shape=DIGITS, outputs=10, layers=(Linear(10),))
    with pytest.raises(InvalidParams, match="put flatten before linear"):
        decode_body(encode_body(request(model)))


# --- what types cannot tell ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (request(tags=("images", "digits")), "tags: must be ascending"),
        (request(tags=("digits", "digits")), "tags: must be ascending"),
        (request(final_count=1000), "validation.final_count: must be less than the 1000 samples"),
        (
            request(final_count=419_431, sample_count=500_000),
            "validation: give at most 4194304 samples x outputs",
        ),
        (request(cnn((1, 64, 64), 10), batch_size=4096), "training.batch_size: too large"),
    ],
)
def test_a_request_that_cannot_work_names_the_field(body: RequestBody, complaint: str) -> None:
    with pytest.raises(InvalidParams, match=complaint):
        validate_body(body)


def test_a_request_at_the_limits_is_valid() -> None:
    validate_body(request(final_count=999))
    validate_body(request(final_count=419_430, sample_count=500_000))
    validate_body(request(cnn((1, 64, 64), 10), batch_size=2048))


IMAGE_PRESETS = {name: preset for name, preset in PRESETS.items() if name != "bag-of-tokens"}


@pytest.mark.parametrize("preset", IMAGE_PRESETS.values(), ids=IMAGE_PRESETS)
@pytest.mark.parametrize("shape", [DIGITS, (1, 28, 28), (3, 32, 32)])
def test_presets_leave_time_for_a_thousand_samples(preset, shape: tuple[int, ...]) -> None:
    model = preset(shape, 10)
    body = request(model, sample_count=20_000, subset_count=1000, final_count=10_000)
    validate_body(body)
    validate_work(body, sellers_per_round=64)


def test_the_preset_for_texts_leaves_time_for_a_thousand_samples() -> None:
    model = bag_of_tokens((256,), 2, vocabulary=30_000)
    body = request(model, sample_count=20_000, subset_count=1000, final_count=10_000)
    validate_work(body, sellers_per_round=64)


HEAVY = ModelDescription(
    input_shape=(3, 32, 32), outputs=10, layers=(Flatten(), Linear(3200), Clip(64), Linear(10))
)
"""Ten million parameters, of which each takes part once."""


@pytest.mark.parametrize(("field", "models"), [("subset_count", 12), ("final_count", 2)])
def test_the_work_of_a_ballot_is_limited(field: str, models: int) -> None:
    most = MAX_OPERATIONS_PER_BALLOT // (models * count_model_operations(HEAVY))
    sizes = {"subset_count": 10, "final_count": 10, "sample_count": 1_000_000}
    validate_work(request(HEAVY, **{**sizes, field: most}), sellers_per_round=10)
    with pytest.raises(InvalidParams, match=rf"validation\.{field}: {models} models .* {most} s"):
        validate_work(request(HEAVY, **{**sizes, field: most + 1}), sellers_per_round=10)


def test_every_step_length_is_one_evaluation_more() -> None:
    most = MAX_OPERATIONS_PER_BALLOT // (14 * count_model_operations(HEAVY))
    step = StepSpec(lengths_q16=(1, 2, 3))
    body = request(HEAVY, subset_count=most, final_count=10, sample_count=1_000_000)
    validate_work(msgspec.structs.replace(body, step=step), sellers_per_round=10)
    body = request(HEAVY, subset_count=most + 1, final_count=10, sample_count=1_000_000)
    validate_work(body, sellers_per_round=10)
    with pytest.raises(InvalidParams, match=r"validation\.subset_count: 14 models"):
        validate_work(msgspec.structs.replace(body, step=step), sellers_per_round=10)


def test_samples_that_there_are_not_cost_no_work() -> None:
    body = request(HEAVY, sample_count=1000, subset_count=100_000)
    validate_work(body, sellers_per_round=10)
