from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidMessage, RuleViolation
from protocol.hashing import Stream, keccak, word
from protocol.model import InputKind, ModelDescription, bag_of_tokens, logreg
from protocol.samples import encode_samples
from protocol.validation_set import (
    MAX_PART_BYTES,
    ValidationPart,
    bound_part_bytes,
    compute_leaf,
    compute_validation_root,
    decode_part,
    encode_part,
    select_part,
    select_round_subset,
    select_samples,
    split_validation_set,
    validate_part_contents,
    verify_part,
)

SEED = keccak(b"seed")
COUNT = 11
ROWS = Stream(SEED).below_many(256, COUNT * 4).astype(np.uint8).reshape(COUNT, 4)
LABELS = [2 * index % 3 for index in range(COUNT)]
ROOT = compute_validation_root(ROWS, LABELS)
INDICES = (1, 4, 10)
PART = select_part(ROWS, LABELS, INDICES)
MODEL = logreg((1, 2, 2), 3)


def test_a_leaf_binds_index_label_and_bytes() -> None:
    assert compute_leaf(3, 2, b"abcd") == keccak(b"D2M/v1/val" + word(3) + word(2) + b"abcd")


@given(st.integers(1, 60), st.data())
def test_the_split_gives_each_sample_one_purpose(total: int, data: st.DataObject) -> None:
    final_count = data.draw(st.integers(0, total))
    split = split_validation_set(SEED, total, final_count)
    assert len(split.final) == final_count
    assert sorted(split.selection + split.final) == list(range(total))


def test_another_seed_gives_another_split() -> None:
    assert split_validation_set(SEED, 60, 30) != split_validation_set(keccak(SEED), 60, 30)


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_round_is_evaluated_on_part_of_the_selection_samples(count: int, most: int) -> None:
    selection = tuple(range(0, 3 * count, 3))
    subset = select_round_subset(SEED, selection, most)
    assert len(subset) == min(count, most)
    assert list(subset) == sorted(set(subset) & set(selection))


def test_a_round_uses_a_thousand_samples_at_most() -> None:
    assert len(select_round_subset(SEED, range(1200))) == 1000


@given(st.sets(st.integers(0, COUNT - 1), min_size=1))
def test_any_part_proves_that_it_belongs_to_the_set(indices: set[int]) -> None:
    part = decode_part(encode_part(select_part(ROWS, LABELS, sorted(indices))))
    verify_part(part, ROOT)
    assert part.indices == tuple(sorted(indices))
    assert part.labels.tolist() == [LABELS[index] for index in part.indices]
    assert (part.rows == ROWS[list(part.indices)]).all()


@pytest.mark.parametrize(
    "changed",
    [
        replace(PART, labels=PART.labels + 1),
        replace(PART, rows=PART.rows ^ np.uint8(1)),
        replace(PART, indices=(1, 4, 9)),
        replace(PART, other_leaves=tuple(reversed(PART.other_leaves))),
    ],
)
def test_a_changed_part_does_not_belong_to_the_set(changed: ValidationPart) -> None:
    with pytest.raises(RuleViolation):
        verify_part(decode_part(encode_part(changed)), ROOT)


def test_a_complete_part_that_fits_the_model_is_valid() -> None:
    validate_part_contents(PART, INDICES, MODEL)


@pytest.mark.parametrize(
    ("indices", "model", "complaint"),
    [
        ((1, 4), MODEL, "the samples that were drawn"),
        (INDICES, logreg((5,), 3), "samples of 4 bytes, the model reads 5"),
        (INDICES, logreg((1, 2, 2), 2), "labels from"),
        (INDICES, logreg((4,), 3, input_kind=InputKind.TABULAR), "samples of 4 bytes"),
        (INDICES, bag_of_tokens((2,), 3, vocabulary=2), "token"),
    ],
)
def test_a_part_that_cannot_be_used_is_refused(
    indices: tuple[int, ...], model: ModelDescription, complaint: str
) -> None:
    with pytest.raises(RuleViolation, match=complaint):
        validate_part_contents(PART, indices, model)


def test_samples_are_selected_by_their_place_in_the_whole_set() -> None:
    samples, labels = select_samples(PART, (4, 10), MODEL)
    assert samples.shape == (2, 1, 2, 2)
    assert (samples.reshape(2, 4) == ROWS[[4, 10]]).all()
    assert labels.tolist() == [LABELS[4], LABELS[10]]


def test_a_regressions_part_keeps_negative_targets_and_wide_values() -> None:
    model = logreg((2,), 1, input_kind=InputKind.TABULAR)
    numbers = np.array([[-1, 300], [5, -6], [7, 8]], dtype=np.int16)
    targets = [-(1 << 31), 70_000, (1 << 31) - 1]
    rows = encode_samples(numbers)
    part = decode_part(encode_part(select_part(rows, targets, (0, 2))))
    verify_part(part, compute_validation_root(rows, targets))
    validate_part_contents(part, (0, 2), model)
    samples, labels = select_samples(part, (0, 2), model)
    assert samples.tolist() == [[-1, 300], [7, 8]]
    assert labels.tolist() == [targets[0], targets[2]]


def test_a_negative_label_is_hashed_in_twos_complement() -> None:
    data = b"D2M/v1/val" + word(3) + b"\xff" * 31 + b"\xfe" + b"ab"
    assert compute_leaf(3, -2, b"ab") == keccak(data)


GOOD: list[object] = msgspec.msgpack.decode(encode_part(PART))


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, 0),
        (0, COUNT + 1),  # leaves are missing
        (0, 1 << 30),
        (0, "x"),
        (1, b""),
        (1, GOOD[1][:-1]),  # type: ignore[index]
        (1, word(1)[-4:] * 3),  # not ascending
        (1, word(1)[-4:] + word(4)[-4:] + word(COUNT)[-4:]),  # beyond the set
        (2, b"\x00"),
        (3, b""),
        (3, bytes(13)),
        (4, bytes(31)),
    ],
)
def test_hostile_fields_are_refused(position: int, value: object) -> None:
    fields = list(GOOD)
    fields[position] = value
    with pytest.raises(InvalidMessage):
        decode_part(msgspec.msgpack.encode(fields))


def test_bytes_that_are_not_the_only_encoding_are_refused() -> None:
    good = encode_part(PART)
    one_more = msgspec.msgpack.encode([*GOOD, 1])
    longer_integer = good[:1] + b"\xcc" + bytes([COUNT]) + good[2:]
    for data in (b"", good[:-1], good + b"\x00", one_more, longer_integer):
        with pytest.raises(InvalidMessage):
            decode_part(data)


@given(st.binary(max_size=100))
def test_random_bytes_are_no_part(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_part(data)


@given(st.integers(1, 40), st.integers(1, 70), st.data())
def test_no_part_of_a_set_is_longer_than_its_bound(
    total: int, sample_bytes: int, data: st.DataObject
) -> None:
    rows = np.zeros((total, sample_bytes), dtype=np.uint8)
    indices = data.draw(st.sets(st.integers(0, total - 1), min_size=1))
    encoded = encode_part(select_part(rows, [0] * total, sorted(indices)))
    assert len(encoded) <= bound_part_bytes(total, sample_bytes)


def test_the_bound_of_a_part_is_bounded_itself() -> None:
    assert bound_part_bytes(1_000_000, 1 << 20) == MAX_PART_BYTES
