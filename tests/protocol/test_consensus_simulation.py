"""Votes played out in random orders, against the odds and the claims of MECHANISM 8.5."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from protocol.consensus import Decided, Tally, decide
from protocol.consensus_odds import compute_consensus_odds, compute_sequential_odds
from protocol.hashing import Stream, keccak, word
from protocol.sortition import compute_set_sizes
from protocol.ticket_odds import compute_ticket_odds
from protocol.types import Digest

RIGHT, WRONG = Digest(b"R" * 32), Digest(b"W" * 32)


@dataclass(frozen=True)
class Played:
    """One entry per trial."""

    wrong: npt.NDArray[np.bool_]
    undecided: npt.NDArray[np.bool_]
    votes: npt.NDArray[np.float64]
    mini_rounds: npt.NDArray[np.float64]


def play(
    pool_size: int,
    bad_count: int,
    *,
    trials: int,
    lead: int = 17,
    first: int = 25,
    silent: float = 0.0,
    strategy: str = "collude",
    tickets: bool = False,
) -> Played:
    """Let nodes enter in random orders; the first ``bad_count`` are Byzantine."""
    generator = np.random.default_rng(pool_size + bad_count)
    places = generator.random((trials, pool_size))
    sizes = compute_set_sizes(pool_size, first, 3, 2)
    answers = np.ones((trials, pool_size), np.bool_)
    answers[:, bad_count:] = generator.random((trials, pool_size - bad_count)) >= silent
    ordered = np.sort(places, axis=1)
    is_open = np.ones(trials, np.bool_)
    wrong = np.zeros(trials, np.bool_)
    votes, mini_rounds = np.zeros(trials), np.zeros(trials)
    for size in sizes:
        limit = np.full(trials, size / pool_size) if tickets else ordered[:, size - 1]
        drawn = places <= limit[:, np.newaxis]
        bad = drawn[:, :bad_count].sum(axis=1)
        good = (drawn & answers)[:, bad_count:].sum(axis=1)
        # Of hostile nodes that do not collude each has a digest of its own, or none.
        rival = {"collude": bad, "scatter": np.minimum(bad, 1), "abstain": 0 * bad}[strategy]
        is_wrong = (rival - good >= lead) | (2 * rival > pool_size)
        is_right = (good - rival >= lead) | (2 * good > pool_size)
        votes[is_open] = drawn.sum(axis=1)[is_open]
        mini_rounds += is_open
        wrong |= is_open & is_wrong
        is_open &= ~(is_wrong | is_right)
    return Played(wrong, is_open, votes, mini_rounds)


def assert_within_four_sigma(samples: npt.NDArray[np.generic], expected: float) -> None:
    deviation = float(np.std(samples.astype(np.float64)))
    if samples.dtype == np.bool_:  # a rare event may not happen at all: its chance tells more
        deviation = math.sqrt(expected * (1 - expected))
    # What happens once in 10,000 trials need not happen here.
    allowed = 4 * deviation / math.sqrt(len(samples)) + 1e-4
    assert abs(float(np.mean(samples)) - expected) <= allowed


ROWS = [(50, 5), (50, 10), (50, 15), (50, 20), (50, 25), (1000, 300), (1000, 450), (1000, 500)]


@pytest.mark.parametrize(("pool_size", "bad"), ROWS)
@pytest.mark.parametrize("tickets", [False, True])
def test_played_votes_have_the_odds(pool_size: int, bad: int, tickets: bool) -> None:
    played = play(pool_size, bad, trials=100_000 // pool_size, tickets=tickets)
    sizes = compute_set_sizes(pool_size, 25, 3, 2)
    compute = compute_ticket_odds if tickets else compute_consensus_odds
    odds = compute(pool_size, bad, 17, sizes)
    assert_within_four_sigma(played.wrong, odds.wrong)
    assert_within_four_sigma(played.undecided, odds.undecided)
    assert_within_four_sigma(played.votes, odds.expected_votes)
    assert_within_four_sigma(played.mini_rounds, odds.expected_mini_rounds)


@pytest.mark.parametrize("tickets", [False, True])
def test_wrong_decisions_are_as_frequent_as_computed(tickets: bool) -> None:
    # With a short lead wrong decisions are frequent enough to count.
    played = play(20, 8, trials=20_000, lead=3, first=5, tickets=tickets)
    compute = compute_ticket_odds if tickets else compute_consensus_odds
    odds = compute(20, 8, 3, compute_set_sizes(20, 5, 3, 2))
    assert odds.wrong > 0.05
    assert_within_four_sigma(played.wrong, odds.wrong)
    assert_within_four_sigma(played.votes, odds.expected_votes)


@pytest.mark.parametrize(
    ("pool_size", "bad", "silent"),
    [(50, 15, 0.05), (50, 15, 0.1), (50, 20, 0.05), (50, 20, 0.1), (1000, 300, 0.1)],
)
def test_silent_honest_nodes_are_as_harmful_as_computed(
    pool_size: int, bad: int, silent: float
) -> None:
    played = play(pool_size, bad, trials=200_000 // pool_size, silent=silent)
    sizes = compute_set_sizes(pool_size, 25, 3, 2)
    odds = compute_consensus_odds(pool_size, bad, 17, sizes, silent)
    assert_within_four_sigma(played.undecided, odds.undecided)
    assert_within_four_sigma(played.votes, odds.expected_votes)
    assert_within_four_sigma(played.mini_rounds, odds.expected_mini_rounds)


@pytest.mark.parametrize("strategy", ["scatter", "abstain"])
def test_hostile_nodes_that_do_not_collude_never_win(strategy: str) -> None:
    for bad in (10, 15, 20, 25):
        played = play(50, bad, trials=4000, strategy=strategy)
        assert not played.wrong.any()
        assert not played.undecided.any()
    # At one half, "about 40 votes, 2.3 mini-rounds".
    assert abs(played.votes.mean() - 40) < 2
    assert 2 < played.mini_rounds.mean() < 2.5


def test_a_stale_digest_that_all_hostile_nodes_send_counts_as_collusion() -> None:
    assert play(50, 25, trials=2000).undecided.mean() > 0.99


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4])
def test_walks_end_as_an_unlimited_pool_does(share: float) -> None:
    lead, trials, longest = 4, 20_000, 400
    generator = np.random.default_rng(int(share * 10))
    steps = np.where(generator.random((trials, longest)) < share, -1, 1).cumsum(axis=1)
    ends = np.abs(steps) >= lead
    assert ends.any(axis=1).all()
    first = ends.argmax(axis=1)
    odds = compute_sequential_odds(share, lead)
    assert_within_four_sigma(steps[np.arange(trials), first] < 0, odds.wrong)
    assert_within_four_sigma(first + 1.0, odds.expected_votes)


def test_the_rule_that_nodes_use_has_the_odds_too() -> None:
    pool_size, bad, lead = 20, 8, 3
    sizes = compute_set_sizes(pool_size, 5, 3, 2)
    odds = compute_consensus_odds(pool_size, bad, lead, sizes)
    trials = 2000
    wrong, votes = np.zeros(trials, np.bool_), np.zeros(trials)
    for trial in range(trials):
        order = Stream(keccak(word(trial))).draw(pool_size, pool_size)
        for size in sizes:
            hostile = sum(node < bad for node in order[:size])
            counted = Tally({RIGHT: size - hostile, WRONG: hostile}, 0)
            decision = decide(counted, lead=lead, pool_size=pool_size, set_size=size)
            if isinstance(decision, Decided):
                wrong[trial] = decision.digest == WRONG
                votes[trial] = size
                break
    assert_within_four_sigma(wrong, odds.wrong)
    assert_within_four_sigma(votes, odds.expected_votes)
