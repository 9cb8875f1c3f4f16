"""Execution sets and the count of votes."""

from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts import vectors
from tests.contracts.support import MECHANISM, pure_calls


@pure_calls
@given(st.integers(0, 2**64 - 1))
def test_bit_count_of_any_pool(rules: Any, bits: int) -> None:
    assert rules.bit_count(bits) == bits.bit_count()


@pytest.mark.parametrize(
    ("cones", "first", "growth", "sizes"),
    [
        (50, 25, (3, 2), MECHANISM["schedule"]["50"]),
        (7, 25, (3, 2), MECHANISM["schedule"]["7"]),
        (5, 4, (3, 2), [4, 5]),
        (7, 4, (3, 2), [4, 6, 7]),
        (64, 1, (2, 1), [1, 2, 4, 8, 16, 32, 64]),
        (4, 1, (1000, 999), [1, 2, 3, 4]),
    ],
)
def test_execution_sets_grow_to_the_whole_pool(
    rules: Any, cones: int, first: int, growth: tuple[int, int], sizes: list[int]
) -> None:
    changed = {
        "first_set_size": first,
        "growth_numerator": growth[0],
        "growth_denominator": growth[1],
    }
    terms = tuple({**vectors.TERMS, **changed}.values())
    assert [rules.set_size(terms, cones, m) for m in range(len(sizes))] == sizes
    assert rules.set_size(terms, cones, len(sizes)) == cones


@pure_calls
@given(st.integers(1, 64), st.data())
def test_thresholds_are_exact(rules: Any, cones: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, cones))
    assert rules.last_ticket(size, cones) == size * 2**256 // cones - 1


def count(rules: Any, votes: dict[tuple[int, bytes, bytes], int]) -> Any:
    groups = sorted(votes)
    return rules.count_votes(groups, [votes[group] for group in groups])


RIGHT, WRONG, OTHER = keccak(b"right"), keccak(b"wrong"), keccak(b"other")
TRACE, COPIED = keccak(b"trace"), keccak(b"copied")


def test_votes_of_a_digest_are_the_largest_trace_group_of_each_mini_round(rules: Any) -> None:
    votes = {
        (0, RIGHT, TRACE): 0b111,
        (0, RIGHT, COPIED): 0b11000,
        (1, RIGHT, COPIED): 0b100000,
        (1, WRONG, TRACE): 0b1000000,
    }
    got = count(rules, votes)
    assert (got.digest, got.votes, got.second, got.no_data) == (RIGHT, 4, 1, 0)
    assert got.voters == 0b100111
    assert got.wrong == 0b1000000
    assert got.opened == 0b1111111


@pytest.mark.parametrize("larger", [TRACE, COPIED], ids=["trace", "copied"])
def test_the_smaller_trace_group_is_no_voter_in_any_order(rules: Any, larger: bytes) -> None:
    (smaller,) = {TRACE, COPIED} - {larger}
    got = count(rules, {(0, RIGHT, larger): 0b111, (0, RIGHT, smaller): 0b11000})
    assert (got.votes, got.voters, got.wrong) == (3, 0b111, 0)


def test_tied_trace_groups_all_count_as_voters(rules: Any) -> None:
    got = count(rules, {(0, RIGHT, TRACE): 0b11, (0, RIGHT, COPIED): 0b1100})
    assert (got.votes, got.voters, got.wrong) == (2, 0b1111, 0)


def test_a_zero_trace_is_no_data_whatever_its_digest(rules: Any) -> None:
    got = count(
        rules, {(0, RIGHT, TRACE): 0b1, (0, RIGHT, bytes(32)): 0b110, (1, OTHER, bytes(32)): 0b1000}
    )
    assert (got.votes, got.no_data, got.voters, got.wrong) == (1, 3, 0b1, 0)


def test_equal_leaders_are_ordered_by_number(rules: Any) -> None:
    low, high = sorted([RIGHT, WRONG])
    got = count(rules, {(0, low, TRACE): 0b1, (0, high, TRACE): 0b10})
    assert (got.digest, got.votes, got.second) == (low, 1, 1)


def test_a_ballot_without_a_digest_has_no_leader(rules: Any) -> None:
    for votes in ({}, {(0, RIGHT, bytes(32)): 0b111}):
        got = count(rules, votes)
        assert (got.digest, got.votes, got.second) == (bytes(32), 0, 0)
        assert (got.voters, got.wrong) == (0, 0)
        assert got.no_data == len(votes) * 3


def test_votes_of_a_digest_that_does_not_lead(rules: Any) -> None:
    votes = {
        (0, RIGHT, TRACE): 0b111,
        (0, WRONG, TRACE): 0b11000,
        (0, WRONG, COPIED): 0b100000,
        (1, OTHER, bytes(32)): 0b1000000,
    }
    groups = sorted(votes)
    asked = rules.count_votes_for(groups, [votes[group] for group in groups], WRONG)
    assert (asked.votes, asked.voters, asked.wrong) == (2, 0b11000, 0b111)
    nobody = rules.count_votes_for(groups, [votes[group] for group in groups], OTHER)
    assert (nobody.votes, nobody.voters, nobody.wrong) == (0, 0, 0b111111)


def test_groups_that_do_not_ascend_are_refused(rules: Any) -> None:
    group = (0, RIGHT, TRACE)
    with boa.reverts("ballots: groups not ascending"):
        rules.count_votes([group, group], [1, 1])
    with boa.reverts("ballots: groups not ascending"):
        rules.count_votes([(1, RIGHT, TRACE), group], [1, 2])


def is_decided(rules: Any, votes: tuple[int, int, int], lead: int, cones: int) -> bool:
    leader, second, no_data = votes
    return bool(rules.is_decided(counted(leader, second, no_data), lead, cones))


def counted(leader: int, second: int, no_data: int) -> tuple[Any, ...]:
    """`IBallots.Counted` in which only these numbers matter."""
    return (0, 0, 0, 0, RIGHT, leader, second, no_data, 0, 0, 0, 0, 0, 0)


def test_decisions_as_in_the_mechanism(rules: Any) -> None:
    for votes, lead, cones, accepted in MECHANISM["decide"]:
        first, second = sorted(votes.values(), reverse=True)
        assert is_decided(rules, (first, second, 0), lead, cones) == (accepted is not None)


def test_no_data_counts_against_the_leader_but_not_against_a_majority(rules: Any) -> None:
    assert is_decided(rules, (6, 1, 2), 3, 20)
    assert not is_decided(rules, (6, 1, 3), 3, 20)
    assert is_decided(rules, (11, 0, 9), 3, 20)


def test_an_attempt_is_hopeless_when_no_data_leads(rules: Any) -> None:
    def is_hopeless(leader: int, no_data: int) -> bool:
        return bool(rules.is_hopeless(counted(leader, 0, no_data), 3, 10))

    assert is_hopeless(0, 3)
    assert not is_hopeless(1, 3)
    assert is_hopeless(4, 6)
    assert not is_hopeless(3, 5)
