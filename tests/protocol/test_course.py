<<<<<<< HEAD
"""Courses: what the contracts keep of a job, read from its words."""
=======
"""The course: its bytes are the contract's, and what is packed in it comes out as it was."""
>>>>>>> money-h

from dataclasses import fields, replace
from typing import Any

<<<<<<< HEAD
from protocol.course import (
    Course,
    compute_course_hash,
    decode_slashes,
    list_participation,
    list_spending,
)
from tests.protocol.test_shared_vectors import VECTORS

VECTOR = VECTORS["course"]


def make_course() -> Course:
    names = [field.name for field in fields(Course)]
    values: dict[str, Any] = {name: VECTOR[name] for name in names}
    return Course(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def test_a_course_hashes_as_in_the_vectors() -> None:
    course = make_course()
    assert compute_course_hash(course) == VECTOR["hash"]
    assert compute_course_hash(replace(course, refunds=(*course.refunds[:7], 1))) != VECTOR["hash"]


def test_counts_and_spending_are_read_by_index() -> None:
    course = make_course()
    assert list(list_participation(course, 20)) == VECTOR["counts"]
    assert list(list_spending(course, 20)) == VECTOR["spent_wei"]
    assert len(list_participation(course, 64)) == len(list_spending(course, 64)) == 64


def test_planned_slashes_are_read_from_their_word() -> None:
    planned = decode_slashes(make_course())
    assert planned is not None
    assert (planned.wrong, planned.unopened) == (
        VECTOR["planned"]["wrong"],
        VECTOR["planned"]["unopened"],
    )
    assert planned.due == VECTOR["planned"]["due"]
    assert decode_slashes(replace(make_course(), slashes=0)) is None
=======
import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from d2m_node.chain.artifacts import load_artifact
from protocol.course import (
    REFUND_UNIT_WEI,
    Course,
    PlannedSlashes,
    compute_course_hash,
    decode_slashes,
    encode_course,
    list_participation,
    list_spending,
)
from protocol.hashing import keccak
from protocol.types import Digest

DIGESTS = ("terms_hash", "parent", "decision", "digest", "model_digest", "credit_root")
STRUCT = f"({'bytes32,' * 6}{'uint256,' * 5}uint256[4],uint256[8])"

words = st.integers(0, 2**256 - 1)
courses = st.builds(
    Course,
    **{name: st.binary(min_size=32, max_size=32).map(Digest) for name in DIGESTS},
    utilities=words,
    progress=words,
    decided_ballot=words,
    resumed_ballot=words,
    slashes=words,
    participation=st.tuples(*[words] * 4),
    refunds=st.tuples(*[words] * 8),
)


def make_course(**changes: Any) -> Course:
    """A course in which every field has a value of its own."""
    numbered: dict[str, Any] = {
        field.name: keccak(field.name.encode()) if field.name in DIGESTS else number
        for number, field in enumerate(fields(Course), start=1)
    }
    arrays = {"participation": (101, 102, 103, 104), "refunds": tuple(range(201, 209))}
    return Course(**{**numbered, **arrays, **changes})


def as_struct(course: Course) -> tuple[Any, ...]:
    return tuple(getattr(course, field.name) for field in fields(course))


def test_the_contract_has_the_same_fields_in_the_same_order() -> None:
    announced = load_artifact("Rounds").events["CourseChanged"].fields[1]
    assert announced.abi_type == STRUCT


@given(courses)
def test_a_course_is_encoded_as_the_contracts_struct(course: Course) -> None:
    assert encode_course(course) == encode([STRUCT], [as_struct(course)])


def test_a_course_hashes_to_the_hash_of_its_bytes() -> None:
    course = make_course()
    assert compute_course_hash(course) == keccak(encode([STRUCT], [as_struct(course)]))


@pytest.mark.parametrize("name", [field.name for field in fields(Course)])
def test_every_field_changes_the_hash(name: str) -> None:
    course = make_course()
    value = getattr(course, name)
    if isinstance(value, tuple):
        other: Any = (*value[:-1], value[-1] + 1)
    else:
        other = value + 1 if isinstance(value, int) else keccak(value)
    assert compute_course_hash(replace(course, **{name: other})) != compute_course_hash(course)


def test_a_course_in_which_two_words_change_places_has_another_hash() -> None:
    turned = make_course(participation=(102, 101, 103, 104))
    assert compute_course_hash(turned) != compute_course_hash(make_course())


# --- slashes


def test_nobody_is_to_be_slashed_if_the_word_is_zero() -> None:
    assert decode_slashes(make_course(slashes=0)) is None


def test_slashes_are_read_out_of_one_word() -> None:
    # wrong: nodes 0 and 2; unopened: 1 and 63; voters: 3, 4 and 5; due at block 77
    slashes = 0b101 | (1 << 63 | 0b10) << 64 | 0b111000 << 128 | 77 << 192
    planned = decode_slashes(make_course(slashes=slashes))
    assert planned == PlannedSlashes(wrong=0b101, unopened=1 << 63 | 0b10, due=77)


nodes = st.integers(0, 2**64 - 1)


@given(nodes, nodes, nodes, st.integers(1, 2**40 - 1))
def test_no_part_of_the_slashes_runs_into_another(
    wrong: int, unopened: int, voters: int, due: int
) -> None:
    slashes = wrong | unopened << 64 | voters << 128 | due << 192
    planned = decode_slashes(make_course(slashes=slashes))
    assert planned == PlannedSlashes(wrong=wrong, unopened=unopened, due=due)


# --- counters


def test_participation_is_sixteen_bits_for_each_node() -> None:
    course = make_course(participation=(3 | 7 << 16 | 65_535 << 240, 9, 0, 0))
    assert list_participation(course, 17) == (3, 7, *(0,) * 13, 65_535, 9)
    assert list_participation(course, 2) == (3, 7)
    assert list_participation(course, 0) == ()


def test_spending_is_thirty_two_bits_for_each_node_in_units() -> None:
    course = make_course(refunds=(5 | (2**32 - 1) << 224, 2, *(0,) * 6))
    spent = (5, *(0,) * 6, 2**32 - 1, 2)
    assert list_spending(course, 9) == tuple(units * REFUND_UNIT_WEI for units in spent)
    assert list_spending(course, 1) == (5 * REFUND_UNIT_WEI,)
>>>>>>> money-h
