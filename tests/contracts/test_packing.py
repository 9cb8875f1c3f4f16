"""Words that hold many small numbers: what goes in comes out, and nothing else."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.blocks import Blocks
from tests.contracts.support import pure_calls


def bits(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**count - 1)


BALLOTS = st.tuples(
    st.integers(0, 1),  # kind
    bits(8),  # attempt
    bits(8),  # m
    st.booleans(),  # is_pool_called
    bits(16),  # round_index
    bits(16),  # number
    bits(8),  # cones
    bits(8),  # size_before
    bits(8),  # size
    bits(40),  # availability_end
    bits(40),  # seed_block
    bits(40),  # commit_end
    bits(40),  # open_end
)
MARKS = st.tuples(bits(64), bits(64), bits(16), bits(8), bits(8), bits(8), bits(76))
PROGRESS = st.tuples(
    bits(40),  # deadline
    bits(32),  # credit_sum
    *[bits(16)] * 4,  # cones, rounds_done, last_round, final_round
    *[bits(8)] * 5,  # phase, outcome, reached, finals_used, voids
    st.booleans(),  # is_final_decided
    bits(8),  # call
)
UTILITIES = st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 4)


@pure_calls
@given(BALLOTS)
def test_a_packed_ballot_holds_every_field(packing: Any, ballot: tuple[int, ...]) -> None:
    word = packing.pack_ballot(ballot)
    assert tuple(packing.unpack_ballot(word)) == ballot
    assert word < 2**240


@pure_calls
@given(BALLOTS, BALLOTS)
def test_different_ballots_are_different_words(
    packing: Any, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    assert (packing.pack_ballot(left) == packing.pack_ballot(right)) == (left == right)


@pure_calls
@given(BALLOTS)
def test_kind_attempt_and_mini_round_are_one_number(packing: Any, ballot: tuple[int, ...]) -> None:
    kind, attempt, m = ballot[:3]
    assert packing.mini(ballot) == kind * 2**32 + attempt * 2**16 + m
    assert packing.first_mini(ballot) == kind * 2**32 + attempt * 2**16


def make_ballot(number: int, m: int) -> tuple[Any, ...]:
    return (0, 0, m, False, 0, number, *[0] * 7)


@pure_calls
@given(MARKS)
def test_packed_marks_hold_every_field(packing: Any, marks: tuple[int, ...]) -> None:
    ballot = make_ballot(number=marks[2], m=marks[3])
    assert tuple(packing.unpack_marks(packing.pack_marks(marks), ballot)) == marks


@pure_calls
@given(MARKS, bits(16), bits(8))
def test_marks_of_one_ballot_are_nothing_to_another(
    packing: Any, marks: tuple[int, ...], number: int, m: int
) -> None:
    found = tuple(packing.unpack_marks(packing.pack_marks(marks), make_ballot(number, m)))
    if number != marks[2]:
        assert found == (0, 0, number, m, 0, 0, 0)
    elif m != marks[3]:
        # Batches are of a mini-round; who committed and opened is of the whole attempt.
        assert found == (*marks[:3], m, 0, *marks[5:])
    else:
        assert found == marks


@pure_calls
@given(PROGRESS)
def test_packed_progress_holds_every_field(packing: Any, progress: tuple[int, ...]) -> None:
    assert tuple(packing.unpack_progress(packing.pack_progress(progress))) == progress


@pure_calls
@given(UTILITIES)
def test_packed_utilities_keep_their_signs(packing: Any, utilities: tuple[int, ...]) -> None:
    assert tuple(packing.unpack_utilities(packing.pack_utilities(utilities))) == utilities


@pure_calls
@given(bits(64), bits(64), bits(64), bits(40), bits(40))
def test_a_plan_to_slash_waits_for_its_block(
    packing: Any, wrong: int, unopened: int, voters: int, due: int, later: int
) -> None:
    plan = packing.plan_slashes(wrong, unopened, voters, due)
    if wrong | unopened == 0:
        assert plan == packing.postpone_slashes(plan, later) == 0
        assert not packing.is_slash_due(plan)
        return
    assert plan == wrong | unopened << 64 | voters << 128 | due << 192
    assert packing.postpone_slashes(plan, later) == packing.plan_slashes(
        wrong, unopened, voters, later
    )


def test_a_plan_is_due_after_its_last_block(packing: Any) -> None:
    blocks = Blocks()
    plan = packing.plan_slashes(1, 0, 2, blocks.number)
    assert not packing.is_slash_due(plan)
    blocks.mine()
    assert packing.is_slash_due(plan)
    assert not packing.is_slash_due(packing.postpone_slashes(plan, 2**40 - 1))


@pure_calls
@given(st.lists(bits(64), max_size=8), st.integers(1, 64))
def test_participation_is_what_a_plain_loop_counts(
    packing: Any, ballots: list[int], cones: int
) -> None:
    counters, expected = [0] * 4, [0] * 64
    for voters in ballots:
        counters = packing.count_participation(counters, voters)
        for index in range(64):
            expected[index] += voters >> index & 1
    assert packing.list_participation(counters, cones) == expected[:cones]


@pure_calls
@given(st.integers(0, 63), bits(64))
def test_a_full_counter_does_not_run_over(packing: Any, index: int, voters: int) -> None:
    # No job decides that often: 1200 ballots of six attempts.
    counters = [0] * 4
    counters[index // 16] = (2**16 - 2) << (index % 16 * 16)
    counted = packing.list_participation(packing.count_participation(counters, voters), 64)
    plain = [voters >> i & 1 for i in range(64)]
    plain[index] += 2**16 - 2
    assert counted == plain
