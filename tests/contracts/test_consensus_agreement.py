"""The count of votes in the contracts and in `protocol`, on the same votes."""

from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from protocol.consensus import (
    Decided,
    GrowSet,
    OpenedVote,
    decide,
    find_majority,
    select_voters,
    select_wrong_voters,
    tally,
)
from protocol.sortition import (
    compute_set_sizes,
    compute_threshold,
    compute_ticket,
    compute_ticket_chain,
    is_element_of_chain,
)
from protocol.types import Address, Digest
from tests.contracts import vectors
from tests.contracts.support import pure_calls

DIGESTS = [Digest(keccak(name)) for name in (b"right", b"wrong", b"other")]
TRACES = [Digest(keccak(b"trace")), Digest(keccak(b"copied")), Digest(bytes(32))]

VOTE = st.tuples(st.integers(0, 1), st.sampled_from(DIGESTS), st.sampled_from(TRACES))
# Sizes first: lists of any size are mostly short, and short ones have no groups.
VOTES = st.integers(0, 64).flatmap(lambda size: st.lists(VOTE, min_size=size, max_size=size))
"""Mini-round, digest and trace of each node, by index."""

Vote = tuple[int, Digest, Digest]


def groups_of(votes: list[Vote]) -> tuple[list[Vote], list[int]]:
    """What the contract keeps: the groups of equal votes and their voters."""
    members: dict[Vote, int] = {}
    for node, vote in enumerate(votes):
        members[vote] = members.get(vote, 0) | 1 << node
    groups = sorted(members)
    return groups, [members[group] for group in groups]


def opened(votes: list[Vote]) -> list[OpenedVote]:
    return [
        OpenedVote(node_index=node, mini_round_index=m, digest=digest, trace=trace)
        for node, (m, digest, trace) in enumerate(votes)
    ]


def bitmap(nodes: frozenset[int]) -> int:
    return sum(1 << node for node in nodes)


@pure_calls
@given(VOTES)
def test_both_count_the_same_votes(rules: Any, votes: list[Vote]) -> None:
    counted = tally(opened(votes))
    got = rules.count_votes(*groups_of(votes))
    assert got.opened == (1 << len(votes)) - 1
    assert got.no_data == counted.no_data
    best = max(counted.votes.values(), default=0)
    assert got.votes == best
    if best > 0:
        assert got.digest == min(d for d, count in counted.votes.items() if count == best)
    rest = sorted((count for d, count in counted.votes.items() if d != got.digest), reverse=True)
    assert got.second == (rest[0] if rest else 0)


@pure_calls
@given(VOTES, st.sampled_from(DIGESTS))
def test_both_name_the_same_voters(rules: Any, votes: list[Vote], digest: Digest) -> None:
    got = rules.count_votes_for(*groups_of(votes), digest)
    assert got.votes == tally(opened(votes)).votes.get(digest, 0)
    assert got.voters == bitmap(select_voters(opened(votes), digest))
    assert got.wrong == bitmap(select_wrong_voters(opened(votes), digest))


@pure_calls
@given(VOTES, st.integers(1, 64), st.integers(0, 64), st.data())
def test_both_decide_alike(
    rules: Any, votes: list[Vote], lead: int, silent: int, data: st.DataObject
) -> None:
    cones = max(1, min(64, len(votes) + silent))
    size = data.draw(st.integers(1, cones))
    counted = tally(opened(votes))
    decision = decide(counted, lead=lead, pool_size=cones, set_size=size)
    got = rules.count_votes(*groups_of(votes))
    numbers = (0, 0, 0, 0, got.digest, got.votes, got.second, got.no_data, *[0] * 6)
    is_decided = rules.is_decided(numbers, lead, cones)
    assert is_decided == isinstance(decision, Decided)
    if isinstance(decision, Decided):
        assert (decision.digest, decision.votes) == (got.digest, got.votes)
        return
    grows = size < cones and not rules.is_hopeless(numbers, lead, cones)
    assert grows == isinstance(decision, GrowSet)


@pure_calls
@given(VOTES, st.integers(0, 20))
def test_both_find_the_same_majority_of_a_called_pool(
    rules: Any, votes: list[Vote], silent: int
) -> None:
    cones = max(1, len(votes) + silent)
    got = rules.count_votes(*groups_of(votes))
    majority = find_majority(tally(opened(votes)), cones)
    assert (majority is not None) == (2 * got.votes > cones)
    if majority is not None:
        assert majority == got.digest


@pure_calls
@given(st.integers(1, 64), st.integers(1, 100), st.integers(1, 30), st.integers(1, 30))
def test_both_grow_execution_sets_alike(
    rules: Any, cones: int, first: int, denominator: int, growth: int
) -> None:
    numerator = denominator + growth
    terms = {
        **vectors.TERMS,
        "first_set_size": first,
        "growth_numerator": numerator,
        "growth_denominator": denominator,
    }
    sizes = compute_set_sizes(cones, first, numerator, denominator)
    for m, size in enumerate(sizes):
        assert rules.set_size(tuple(terms.values()), cones, m) == size
        assert rules.last_ticket(size, cones) == compute_threshold(size, cones) - 1


SECRET = keccak(b"secret")
CHAIN = compute_ticket_chain(SECRET, 130)
NODE = Address(b"\x11" * 20)
ES_SEED = Digest(keccak(b"seed"))


def may_vote(packing: Any, number: int, element: bytes, *, low: int, high: int) -> bool:
    draw = (ES_SEED, low, high)
    account = to_checksum_address(NODE)
    return bool(packing.may_vote(draw, number, account, CHAIN.root, element))


@pure_calls
@given(st.integers(1, 130), st.integers(1, 130))
def test_both_know_the_elements_of_a_chain(packing: Any, number: int, position: int) -> None:
    element = CHAIN.element(position)
    is_element = is_element_of_chain(element, number, CHAIN.root)
    assert is_element == (number == position)
    assert may_vote(packing, number, element, low=0, high=2**256 - 1) == is_element


@pytest.mark.parametrize("number", [1, 7, 8, 9, 16, 17, 64, 127, 128, 130])
def test_a_ticket_votes_between_its_thresholds(packing: Any, number: int) -> None:
    element = CHAIN.element(number)
    ticket = compute_ticket(NODE, element, ES_SEED)
    for low, high, is_drawn in (
        (0, ticket, True),
        (0, ticket - 1, False),
        (ticket, 2**256 - 1, True),
        (ticket + 1, 2**256 - 1, False),
        (ticket, ticket, True),
    ):
        assert may_vote(packing, number, element, low=low, high=high) == is_drawn
    assert not may_vote(packing, number, keccak(element), low=0, high=2**256 - 1)
