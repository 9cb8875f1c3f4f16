"""The odds of a vote: exact in small pools, and as printed in the tables of MECHANISM 8."""

import math
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.consensus_odds import (
    compute_consensus_odds,
    compute_error_bound,
    compute_lead,
    compute_sequential_odds,
)
from protocol.sortition import compute_set_sizes
from protocol.ticket_odds import compute_ticket_odds
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()

SMALL_VOTES = st.integers(1, 14).flatmap(
    lambda pool_size: st.tuples(
        st.just(pool_size),
        st.integers(0, pool_size),
        st.integers(1, 8),
        st.lists(st.integers(1, pool_size), unique=True, max_size=4).map(
            lambda sizes: tuple(sorted({*sizes, pool_size}))
        ),
    )
)
"""Pool, Byzantine nodes, lead, and any growing sizes up to the pool."""


def judge(bad: int, good: int, lead: int, pool_size: int) -> str | None:
    if bad - good >= lead or 2 * bad > pool_size:
        return "wrong"
    if good - bad >= lead or 2 * good > pool_size:
        return "right"
    return None


def count_orders(
    pool_size: int, bad_count: int, lead: int, sizes: tuple[int, ...]
) -> tuple[Fraction, Fraction]:
    """P(wrong) and P(undecided), by counting hypergeometric draws exactly."""
    states, former, wrong = {0: Fraction(1)}, 0, Fraction(0)
    for size in sizes:
        after: dict[int, Fraction] = defaultdict(Fraction)
        for bad, probability in states.items():
            left, bad_left, drawn = pool_size - former, bad_count - bad, size - former
            for new in range(max(0, drawn - left + bad_left), min(bad_left, drawn) + 1):
                ways = math.comb(bad_left, new) * math.comb(left - bad_left, drawn - new)
                after[bad + new] += probability * Fraction(ways, math.comb(left, drawn))
        verdicts = {bad: judge(bad, size - bad, lead, pool_size) for bad in after}
        wrong += sum((p for bad, p in after.items() if verdicts[bad] == "wrong"), Fraction(0))
        states = {bad: p for bad, p in after.items() if verdicts[bad] is None}
        former = size
    return wrong, sum(states.values(), Fraction(0))


@given(SMALL_VOTES)
@example((5, 2, 1, (5,)))
@example((6, 0, 3, (1, 6)))
def test_the_odds_are_those_of_counted_orders(vote: tuple[int, int, int, tuple[int, ...]]) -> None:
    odds = compute_consensus_odds(*vote)
    wrong, undecided = count_orders(*vote)
    assert math.isclose(odds.wrong, wrong, rel_tol=1e-11, abs_tol=1e-15)
    assert math.isclose(odds.undecided, undecided, rel_tol=1e-11, abs_tol=1e-15)


@pytest.mark.parametrize(
    ("pool_size", "bad_count", "lead", "sizes"),
    [(5, 2, 1, (2, 3, 5)), (6, 2, 2, (3, 5, 6)), (6, 3, 1, (1, 6)), (4, 0, 2, (2, 4))],
)
def test_ticket_odds_are_those_of_all_ways_to_be_drawn(
    pool_size: int, bad_count: int, lead: int, sizes: tuple[int, ...]
) -> None:
    shares = [Fraction(b - a, pool_size) for a, b in pairwise((0, *sizes))]
    wrong = undecided = votes = Fraction(0)
    for places in product(range(len(sizes)), repeat=pool_size):
        probability = math.prod((shares[place] for place in places), start=Fraction(1))
        for mini in range(len(sizes)):
            bad = sum(place <= mini for place in places[:bad_count])
            good = sum(place <= mini for place in places[bad_count:])
            verdict = judge(bad, good, lead, pool_size)
            if verdict is not None:
                break
        wrong += probability * (verdict == "wrong")
        undecided += probability * (verdict is None)
        votes += probability * (bad + good)
    odds = compute_ticket_odds(pool_size, bad_count, lead, sizes)
    assert math.isclose(odds.wrong, wrong, rel_tol=1e-11, abs_tol=1e-15)
    assert math.isclose(odds.undecided, undecided, rel_tol=1e-11, abs_tol=1e-15)
    assert math.isclose(odds.expected_votes, votes, rel_tol=1e-11)


@pytest.mark.parametrize(("pair", "lead"), VECTORS["L"].items())
def test_leads_are_the_recorded_ones(pair: str, lead: int) -> None:
    share, error = (float(part) for part in pair.strip("()").split(","))
    # The table means 1/3 and 1e-6 themselves, not their nearest doubles.
    exact = (Fraction(value).limit_denominator(10**9) for value in (share, error))
    assert compute_lead(*exact) == lead


def test_a_lead_may_reach_the_allowed_error_exactly() -> None:
    assert compute_lead(Fraction(1, 3), Fraction(1, 8)) == 3  # (1/2)**3
    assert compute_lead(Fraction(1, 3), Fraction(1, 8) - Fraction(1, 10**20)) == 4


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
    ("share", "bound"), [(0.30, "5.6e-07"), (0.35, "2.7e-05"), (0.4, "1.0e-03")]
)
def test_bounds_of_the_standard_lead_are_the_printed_ones(share: float, bound: str) -> None:
    assert f"{compute_error_bound(share, 17):.1e}" == bound


@pytest.mark.parametrize(
    ("share", "wrong", "votes"),
    # MECHANISM 8.3 prints 6.62 and 0.1650; its formulas give 6.6148 and 0.16495.
    [(0.2, "0.0039", "6.61"), (0.3, "0.0326", "9.35"), (0.4, "0.1649", "13.40")],
)
def test_an_unlimited_pool_behaves_as_printed(share: float, wrong: str, votes: str) -> None:
    odds = compute_sequential_odds(share, 4)
    assert (f"{odds.wrong:.4f}", f"{odds.expected_votes:.2f}") == (wrong, votes)


def test_an_honest_unlimited_pool_takes_as_many_votes_as_the_lead() -> None:
    odds = compute_sequential_odds(0, 17)
    assert (odds.wrong, odds.expected_votes) == (0, 17)


@pytest.mark.parametrize("share", [-0.1, 0.5, 0.7])
def test_no_bound_holds_without_an_honest_majority(share: float) -> None:
    with pytest.raises(ValueError, match="f < 1/2"):
        compute_error_bound(share, 17)
    with pytest.raises(ValueError, match="f < 1/2"):
        compute_sequential_odds(share, 17)


@pytest.mark.parametrize(("bad", "silent"), [(-1, 0.0), (51, 0.0), (5, 1.0), (5, -0.1)])
def test_a_pool_that_cannot_be_is_refused(bad: int, silent: float) -> None:
    with pytest.raises(ValueError, match="of 50 nodes"):
        compute_consensus_odds(50, bad, 17, (25, 50), silent)


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
    assert math.isclose(odds.wrong, VECTORS["exact"][name], rel_tol=1e-11)


TABLE = [
    # MECHANISM 8.5, standard profile: pool, Byzantine, P(wrong), P(undecided), votes, mini-rounds
    (50, 0, "0", "0.00", "25.0", "1.00"),
    (50, 5, "0", "0.00", "25.3", "1.03"),
    (50, 10, "0", "0.00", "33.3", "1.64"),
    (50, 15, "0", "0.00", "40.2", "2.19"),
    (50, 20, "0", "0.00", "49.6", "2.96"),
    (50, 22, "3.6e-9", "0.00", "50.0", "3.00"),
    (50, 25, "1.3e-6", "1.00", "50.0", "3.00"),
    (1000, 0, "0", "0.00", "25.0", "1.00"),
    (1000, 100, "1.2e-18", "0.00", "26.3", "1.10"),
    (1000, 200, "5.5e-12", "0.00", "34.8", "1.70"),
    (1000, 300, "6.0e-8", "0.00", "53.7", "2.70"),
    (1000, 350, "3.6e-6", "0.00", "72.7", "3.38"),
    # The table prints 1.7e-4. It is 1.646e-4, as its own 8.2e-3 for 50 rounds in 15.3 says.
    (1000, 400, "1.6e-4", "0.00", "111", "4.33"),
    (1000, 450, "6.9e-3", "0.00", "219", "5.84"),
    (1000, 500, "3.0e-1", "0.40", "589", "8.41"),
]


@pytest.mark.parametrize(("pool_size", "bad", "wrong", "undecided", "votes", "mini_rounds"), TABLE)
def test_the_table_of_the_standard_profile_is_reproduced(
    pool_size: int, bad: int, wrong: str, undecided: str, votes: str, mini_rounds: str
) -> None:
    odds = compute_consensus_odds(pool_size, bad, 17, compute_set_sizes(pool_size, 25, 3, 2))
    printed = "0" if odds.wrong == 0 else f"{odds.wrong:.1e}".replace("e-0", "e-")
    assert printed == wrong
    assert f"{odds.undecided:.2f}" == undecided
    assert f"{odds.expected_votes:.{len(votes.partition('.')[2])}f}" == votes
    assert f"{odds.expected_mini_rounds:.2f}" == mini_rounds


def test_the_line_on_doubling_is_reproduced() -> None:
    sizes = compute_set_sizes(1000, 25, 2, 1)
    odds = compute_consensus_odds(1000, 300, 17, sizes)
    assert f"{odds.wrong:.1e}" == "3.6e-08"
    assert f"{odds.expected_votes:.1f}, {odds.expected_mini_rounds:.2f}" == "63.8, 2.23"
    assert f"{compute_consensus_odds(1000, 100, 17, sizes).expected_votes:.1f}" == "27.4"


@pytest.mark.parametrize(
    ("pool_size", "lead", "first", "wrong", "votes"),
    [
        (50, 9, 14, "3.2e-07", ["14.0", "14.9", "18.6", "26.6"]),
        (1000, 15, 23, "6.0e-07", ["23.0", "23.9", "30.3", "46.3"]),
    ],
)
def test_the_lines_on_the_economy_profiles_are_reproduced(
    pool_size: int, lead: int, first: int, wrong: str, votes: list[str]
) -> None:
    sizes = compute_set_sizes(pool_size, first, 3, 2)
    odds = [compute_consensus_odds(pool_size, pool_size * f // 10, lead, sizes) for f in range(4)]
    assert f"{odds[3].wrong:.1e}" == wrong
    assert [f"{one.expected_votes:.1f}" for one in odds] == votes


def test_the_economy_profile_is_thin_above_its_share() -> None:
    odds = compute_consensus_odds(50, 20, 9, compute_set_sizes(50, 14, 3, 2))
    assert f"{odds.wrong:.1e}" == "2.0e-04"


@pytest.mark.parametrize(
    ("pool_size", "bad", "silent", "votes", "undecided"),
    [
        # "44-47 votes, undecided 0 / 0.25 %": the second was simulated, and is 0.174 % exactly.
        (50, 15, 0.05, "44", "0.000"),
        (50, 15, 0.10, "47", "0.002"),
        (50, 20, 0.05, "50", "0.016"),
        (50, 20, 0.10, "50", "0.175"),
        # "59-65 votes, never undecided"
        (1000, 300, 0.05, "59", "0.000"),
        (1000, 300, 0.10, "66", "0.000"),
    ],
)
def test_the_lines_on_silent_honest_nodes_are_reproduced(
    pool_size: int, bad: int, silent: float, votes: str, undecided: str
) -> None:
    sizes = compute_set_sizes(pool_size, 25, 3, 2)
    odds = compute_consensus_odds(pool_size, bad, 17, sizes, silent)
    assert f"{odds.expected_votes:.0f}" == votes
    assert f"{odds.undecided:.3f}" == undecided


def test_a_share_of_silent_nodes_averages_over_their_number() -> None:
    # With one honest node: it is silent, and two hostile ones of three win, or it is not.
    odds = compute_consensus_odds(3, 1, 2, (3,), 0.25)
    # Two honest nodes: both answer (majority), or at least one is silent (nothing leads by two).
    assert math.isclose(odds.undecided, 1 - 0.75**2)


@given(st.integers(5, 80), st.data())
def test_the_error_stays_below_the_proven_bound(pool_size: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, (pool_size - 1) // 2))
    lead = data.draw(st.integers(1, 20))
    growth = data.draw(st.sampled_from([(5, 4), (3, 2), (2, 1), (7, 1)]))
    sizes = compute_set_sizes(pool_size, data.draw(st.integers(1, 30)), *growth)
    bound = compute_error_bound(bad / pool_size, lead)
    for odds in (
        compute_consensus_odds(pool_size, bad, lead, sizes),
        compute_ticket_odds(pool_size, bad, lead, sizes),
    ):
        assert odds.wrong <= bound * (1 + 1e-9)
        # Honest nodes are more than half: the whole pool always decides.
        assert odds.undecided < 1e-9
        assert odds.expected_votes <= pool_size + 1e-9
        assert 1 - 1e-9 <= odds.expected_mini_rounds <= len(sizes) + 1e-9


def test_a_larger_lead_is_safer() -> None:
    sizes = compute_set_sizes(50, 14, 3, 2)
    errors = [compute_consensus_odds(50, 20, lead, sizes).wrong for lead in range(1, 12)]
    assert all(larger >= smaller for larger, smaller in pairwise(errors))


def test_tickets_err_where_exact_sizes_never_do() -> None:
    # Six of ten hold at most three hostile nodes: never in the lead. Two that tickets draw may be.
    sizes = compute_set_sizes(10, 6, 4, 3)
    assert compute_consensus_odds(10, 3, 2, sizes).wrong == 0
    assert f"{compute_ticket_odds(10, 3, 2, sizes).wrong:.4f}" == "0.0049"


def test_what_is_left_out_as_negligible_changes_nothing_that_counts() -> None:
    sizes = compute_set_sizes(200, 25, 3, 2)
    full = compute_ticket_odds(200, 60, 14, sizes)
    short = compute_ticket_odds(200, 60, 14, sizes, 1e-18)
    assert math.isclose(full.wrong, short.wrong, rel_tol=1e-6)
    assert math.isclose(full.expected_votes, short.expected_votes, rel_tol=1e-9)
