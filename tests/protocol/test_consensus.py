from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.commitment import NO_TRACE
from protocol.consensus import (
    Decided,
    Decision,
    GrowSet,
    OpenedVote,
    Tally,
    Undecided,
    decide,
    find_majority,
    select_voters,
    select_wrong_voters,
    tally,
)
from protocol.hashing import keccak
from protocol.types import Digest
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
A, B, C = (Digest(bytes([letter]) * 32) for letter in b"ABC")
W1, W2 = keccak(b"trace 1"), keccak(b"trace 2")
COUNTS = st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 30))


def cast(*votes: tuple[Digest, Digest], mini_round: int = 0, start: int = 0) -> list[OpenedVote]:
    return [
        OpenedVote(node_index=node, mini_round_index=mini_round, digest=digest, trace=trace)
        for node, (digest, trace) in enumerate(votes, start)
    ]


@pytest.mark.parametrize(("votes", "lead", "pool_size", "accepted"), VECTORS["decide"])
def test_decisions_are_the_recorded_ones(
    votes: dict[str, int], lead: int, pool_size: int, accepted: str | None
) -> None:
    names = {"A": A, "B": B}
    counted = Tally({names[name]: count for name, count in votes.items()}, no_data=0)
    decision = decide(counted, lead=lead, pool_size=pool_size, set_size=pool_size)
    expected: Decision = Decided(names[accepted], votes[accepted]) if accepted else Undecided()
    assert decision == expected


def test_the_set_grows_until_it_is_the_pool() -> None:
    counted = Tally({A: 3, B: 2}, no_data=0)
    assert decide(counted, lead=3, pool_size=7, set_size=6) == GrowSet()
    assert decide(counted, lead=3, pool_size=7, set_size=7) == Undecided()


def test_no_votes_at_all_grow_the_set() -> None:
    assert decide(Tally({}, 0), lead=1, pool_size=5, set_size=4) == GrowSet()


def test_no_data_counts_against_the_leader() -> None:
    votes = {A: 6, B: 1}
    assert isinstance(decide(Tally(votes, 2), lead=3, pool_size=20, set_size=9), Decided)
    assert decide(Tally(votes, 3), lead=3, pool_size=20, set_size=10) == GrowSet()


def test_a_majority_of_the_pool_decides_despite_no_data() -> None:
    decision = decide(Tally({A: 6}, 5), lead=3, pool_size=11, set_size=11)
    assert decision == Decided(A, 6)


def test_no_data_in_the_lead_ends_the_attempt() -> None:
    assert decide(Tally({A: 1}, 4), lead=3, pool_size=20, set_size=5) == Undecided()
    assert decide(Tally({A: 3}, 6), lead=9, pool_size=11, set_size=9) == Undecided()


@given(COUNTS, st.integers(0, 20), st.integers(1, 20), st.integers(0, 40))
def test_a_digest_is_accepted_exactly_by_lead_or_majority(
    votes: dict[Digest, int], no_data: int, lead: int, silent: int
) -> None:
    pool_size = sum(votes.values()) + no_data + silent
    if pool_size == 0:
        return
    decision = decide(Tally(votes, no_data), lead=lead, pool_size=pool_size, set_size=pool_size)
    winners = [
        digest
        for digest, count in votes.items()
        if 2 * count > pool_size
        or count - max([0, *(v for d, v in votes.items() if d != digest)]) - no_data >= lead
    ]
    assert len(winners) <= 1
    assert (decision.digest if isinstance(decision, Decided) else None) == (
        winners[0] if winners else None
    )


@given(COUNTS.filter(bool), st.integers(0, 5), st.integers(1, 10), st.integers(1, 10))
def test_more_votes_for_an_accepted_digest_keep_it_accepted(
    votes: dict[Digest, int], no_data: int, lead: int, more: int
) -> None:
    pool_size = sum(votes.values()) + no_data + more
    before = decide(Tally(votes, no_data), lead=lead, pool_size=pool_size, set_size=pool_size)
    if isinstance(before, Decided):
        votes[before.digest] += more
        after = decide(Tally(votes, no_data), lead=lead, pool_size=pool_size, set_size=pool_size)
        assert after == Decided(before.digest, votes[before.digest])


def test_a_copier_without_the_trace_adds_nothing() -> None:
    votes = cast((A, W1), (A, W1), (A, W1), (A, W2), (B, W1))
    assert tally(votes) == Tally({A: 3, B: 1}, 0)
    assert (
        tally(votes).votes
        == {A: 3, B: 1}
        == {{"D1": A, "D2": B}[name]: count for name, count in VECTORS["tally"][0].items()}
    )


def test_traces_are_compared_inside_a_mini_round_only() -> None:
    votes = cast((A, W1), (A, W1)) + cast((A, W2), mini_round=1, start=2)
    assert tally(votes).votes == {A: 3}


def test_a_zero_trace_is_no_data_whatever_the_digest() -> None:
    votes = cast((A, W1), (A, NO_TRACE), (B, NO_TRACE))
    assert tally(votes) == Tally({A: 1}, no_data=2)


def test_the_second_vote_of_a_node_is_ignored() -> None:
    votes = cast((A, W1)) + cast((B, W1), mini_round=1)
    assert tally(votes) == Tally({A: 1}, 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([A, B]), st.sampled_from([W1, W2, NO_TRACE])),
        max_size=15,
    ),
    st.randoms(use_true_random=False),
)
def test_the_tally_does_not_depend_on_the_order_of_votes(
    rows: list[tuple[int, Digest, Digest]], random
) -> None:
    votes = [
        OpenedVote(node_index=node, mini_round_index=mini, digest=digest, trace=trace)
        for node, (mini, digest, trace) in enumerate(rows)
    ]
    shuffled = votes.copy()
    random.shuffle(shuffled)
    assert tally(shuffled) == tally(votes)
    assert select_voters(shuffled, A) == select_voters(votes, A)


def test_only_voters_with_the_majority_trace_are_paid() -> None:
    votes = cast((A, W1), (A, W1), (A, W2), (B, W1), (A, NO_TRACE))
    assert select_voters(votes, A) == {0, 1}
    assert select_wrong_voters(votes, A) == {3}


def test_all_tied_traces_are_paid() -> None:
    votes = cast((A, W1), (A, W2)) + cast((A, W1), mini_round=1, start=2)
    assert select_voters(votes, A) == {0, 1, 2}


def test_copiers_who_outnumber_a_small_set_take_its_pay_and_not_its_decision() -> None:
    # The known weakness of `select_voters`: W2 is invented, and two copiers share it.
    votes = cast((A, W1), (A, W1), (A, W1)) + cast((A, W1), (A, W2), (A, W2), mini_round=1, start=3)
    assert tally(votes).votes == {A: 5}
    assert select_voters(votes, A) == {0, 1, 2, 4, 5}


def test_no_data_is_never_wrong() -> None:
    assert select_wrong_voters(cast((B, NO_TRACE)), A) == frozenset()


VOTES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([A, B]), st.sampled_from([W1, W2, NO_TRACE])),
    max_size=15,
).map(
    lambda rows: [
        OpenedVote(node_index=node, mini_round_index=mini, digest=digest, trace=trace)
        for node, (mini, digest, trace) in enumerate(rows)
    ]
)


@given(VOTES)
def test_who_is_paid_voted_for_the_digest_with_a_trace_that_nobody_outvoted(
    votes: list[OpenedVote],
) -> None:
    groups = Counter((vote.mini_round_index, vote.digest, vote.trace) for vote in votes)
    paid = select_voters(votes, A)
    for vote in votes:
        own = groups[vote.mini_round_index, vote.digest, vote.trace]
        others = max(groups[vote.mini_round_index, A, trace] for trace in (W1, W2))
        earns = vote.digest == A and vote.trace != NO_TRACE and own == others
        assert (vote.node_index in paid) == earns
    # Nobody is both paid and slashed.
    assert not paid & select_wrong_voters(votes, A)


@given(VOTES, st.integers(0, 14), st.sampled_from([A, B]))
def test_a_second_vote_of_a_node_changes_nothing(
    votes: list[OpenedVote], node: int, digest: Digest
) -> None:
    if node < len(votes):
        again = OpenedVote(node_index=node, mini_round_index=9, digest=digest, trace=W1)
        assert tally([*votes, again]) == tally(votes)
        assert select_voters([*votes, again], A) == select_voters(votes, A)
        assert select_wrong_voters([*votes, again], A) == select_wrong_voters(votes, A)


@given(VOTES, st.sampled_from([0, 1, 2]))
def test_a_copier_with_a_trace_of_its_own_adds_nothing_beside_honest_voters(
    votes: list[OpenedVote], mini: int
) -> None:
    honest = any(
        vote.digest == A and vote.mini_round_index == mini and vote.trace != NO_TRACE
        for vote in votes
    )
    copier = OpenedVote(node_index=99, mini_round_index=mini, digest=A, trace=keccak(b"invented"))
    before, after = tally(votes).votes.get(A, 0), tally([*votes, copier]).votes[A]
    assert after == before + (not honest)


@given(COUNTS.filter(bool), st.integers(1, 12), st.integers(1, 12))
def test_a_digest_with_a_lead_of_one_less_is_not_accepted(
    votes: dict[Digest, int], lead: int, no_data: int
) -> None:
    ranked = sorted(votes.values(), reverse=True)
    ahead = ranked[0] - (ranked[1] if len(ranked) > 1 else 0) - no_data
    pool_size = 2 * sum(votes.values()) + 2 * no_data
    decision = decide(Tally(votes, no_data), lead=lead, pool_size=pool_size, set_size=1)
    assert isinstance(decision, Decided) == (ahead >= lead)


def test_a_tie_for_the_lead_goes_to_the_smaller_digest_and_never_to_both() -> None:
    # Only a pool smaller than its votes could decide a tie; the rule must still name one digest.
    decision = decide(Tally({B: 2, A: 2}, 0), lead=5, pool_size=3, set_size=3)
    assert decision == Decided(A, 2)


@given(COUNTS, st.integers(1, 20), st.integers(0, 20))
def test_an_honest_majority_that_answers_is_always_decided(
    wrong: dict[Digest, int], lead: int, spare: int
) -> None:
    right = sum(wrong.values()) + 1 + spare
    digest = keccak(b"right")
    pool_size = right + sum(wrong.values())
    counted = Tally({**wrong, digest: right}, 0)
    decision = decide(counted, lead=lead, pool_size=pool_size, set_size=pool_size)
    assert decision == Decided(digest, right)


def test_half_of_the_pool_is_no_majority() -> None:
    assert find_majority(Tally({A: 2, B: 1}, 0), 4) is None
    assert find_majority(Tally({A: 1, B: 3}, 0), 5) == B
    assert find_majority(Tally({}, 5), 5) is None
