"""Courses and audit seeds as in the vectors that the contracts satisfy too."""

from dataclasses import fields, replace
from typing import Any

from protocol.appeals import compute_audit_seed
from protocol.course import (
    Course,
    compute_course_hash,
    decode_slashes,
    list_participation,
    list_spending,
)
from tests.protocol.test_shared_vectors import DOMAIN, VECTORS

VECTOR = VECTORS["course"]


def test_audit_seed_as_in_the_vectors() -> None:
    vector = VECTORS["audit_seed"]
    place = (vector["job"], vector["round"], vector["mini"])
    seed = compute_audit_seed(DOMAIN, *place, vector["randomness"])
    assert seed == int.from_bytes(vector["seed"])


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
