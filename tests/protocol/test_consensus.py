import math
from fractions import Fraction
from itertools import pairwise

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
    compute_consensus_odds,
    compute_lead,
    decide,
    select_voters,
    select_wrong_voters,
    tally,
)
from protocol.hashing import Stream, keccak, word
from protocol.sortition import compute_set_sizes
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


def test_no_data_is_never_wrong() -> None:
    assert select_wrong_voters(cast((B, NO_TRACE)), A) == frozenset()


@pytest.mark.parametrize(("pair", "lead"), VECTORS["L"].items())
def test_leads_are_the_recorded_ones(pair: str, lead: int) -> None:
    share, error = (float(part) for part in pair.strip("()").split(","))
    # The table means 1/3 and 1e-6 themselves, not their nearest doubles.
    exact = (Fraction(value).limit_denominator(10**9) for value in (share, error))
    assert compute_lead(*exact) == lead


@pytest.mark.parametrize(
    ("share", "error"),
    [
        (Fraction(1, 2), Fraction(1, 10)),
        (Fraction(0), Fraction(1, 10)),
        (Fraction(1, 3), Fraction(0)),
        (Fraction(1, 3), Fraction(1)),
    ],
)
def test_a_lead_without_meaning_is_refused(share: Fraction, error: Fraction) -> None:
    with pytest.raises(ValueError, match="need"):
        compute_lead(share, error)


@pytest.mark.parametrize(
    ("pool_size", "bad", "lead", "first", "name"),
    [
        (50, 15, 17, 25, "N50,B15,L17"),
        (1000, 300, 17, 25, "N1000,B300,L17"),
        (50, 15, 9, 14, "N50,B15,L9,n0=14"),
        (1000, 300, 15, 23, "N1000,B300,L15,n0=23"),
    ],
)
def test_error_probabilities_are_the_recorded_ones(
    pool_size: int, bad: int, lead: int, first: int, name: str
) -> None:
    odds = compute_consensus_odds(pool_size, bad, lead, compute_set_sizes(pool_size, first, 3, 2))
    assert math.isclose(odds.wrong, VECTORS["exact"][name], rel_tol=1e-8, abs_tol=1e-300)


TABLE = [
    # MECHANISM 8.5, standard profile: pool, f, P(wrong), P(undecided), votes, mini-rounds
    (50, 0.0, 0, 0, "25.0", "1.00"),
    (50, 0.1, 0, 0, "25.3", "1.03"),
    (50, 0.2, 0, 0, "33.3", "1.64"),
    (50, 0.3, 0, 0, "40.2", "2.19"),
    (50, 0.4, 0, 0, "49.6", "2.96"),
    (50, 0.5, 1.3e-6, 1.0, "50.0", "3.00"),
    (1000, 0.0, 0, 0, "25.0", "1.00"),
    (1000, 0.1, 1.2e-18, 0, "26.3", "1.10"),
    (1000, 0.2, 5.5e-12, 0, "34.8", "1.70"),
    (1000, 0.3, 6.0e-8, 0, "53.7", "2.70"),
    (1000, 0.35, 3.6e-6, 0, "72.7", "3.38"),
    (1000, 0.4, 1.7e-4, 0, "111", "4.33"),
    (1000, 0.45, 6.9e-3, 0, "219", "5.84"),
    (1000, 0.5, 0.30, 0.40, "589", "8.41"),
]


@pytest.mark.parametrize(
    ("pool_size", "share", "wrong", "undecided", "votes", "mini_rounds"), TABLE
)
def test_the_table_of_the_standard_profile_is_reproduced(
    pool_size: int, share: float, wrong: float, undecided: float, votes: str, mini_rounds: str
) -> None:
    sizes = compute_set_sizes(pool_size, 25, 3, 2)
    odds = compute_consensus_odds(pool_size, round(share * pool_size), 17, sizes)
    assert math.isclose(odds.wrong, wrong, rel_tol=0.05, abs_tol=1e-30)
    assert abs(odds.undecided - undecided) < 0.005
    decimals = len(votes.partition(".")[2])
    assert f"{odds.expected_votes:.{decimals}f}" == votes
    assert f"{odds.expected_mini_rounds:.2f}" == mini_rounds


@given(st.integers(5, 80), st.data())
def test_the_error_stays_below_the_proven_bound(pool_size: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, (pool_size - 1) // 2))
    lead = data.draw(st.integers(1, 20))
    sizes = compute_set_sizes(pool_size, data.draw(st.integers(1, 30)), 3, 2)
    odds = compute_consensus_odds(pool_size, bad, lead, sizes)
    assert odds.wrong <= (bad / (pool_size - bad)) ** lead * (1 + 1e-9) + 1e-300
    # Honest nodes are more than half: the whole pool always decides.
    assert odds.undecided < 1e-9
    assert sizes[0] - 1e-9 <= odds.expected_votes <= pool_size + 1e-9


def test_the_odds_equal_a_simulation() -> None:
    pool_size, bad, lead = 20, 8, 3
    sizes = compute_set_sizes(pool_size, 5, 3, 2)
    odds = compute_consensus_odds(pool_size, bad, lead, sizes)
    trials, wrong, votes_cast = 4000, 0, 0
    for trial in range(trials):
        order = Stream(keccak(word(trial))).draw(pool_size, pool_size)
        for size in sizes:
            hostile = sum(node < bad for node in order[:size])
            counted = Tally({A: size - hostile, B: hostile}, 0)
            decision = decide(counted, lead=lead, pool_size=pool_size, set_size=size)
            if isinstance(decision, Decided):
                wrong += decision.digest == B
                votes_cast += size
                break
    deviation = math.sqrt(odds.wrong * (1 - odds.wrong) / trials)
    assert abs(wrong / trials - odds.wrong) < 4 * deviation
    assert abs(votes_cast / trials - odds.expected_votes) < 4 * 6 / math.sqrt(trials)


def test_a_larger_lead_is_safer() -> None:
    sizes = compute_set_sizes(50, 14, 3, 2)
    errors = [compute_consensus_odds(50, 20, lead, sizes).wrong for lead in range(1, 12)]
    assert all(larger >= smaller for larger, smaller in pairwise(errors))
