"""Opened votes to a decided digest, or to a larger execution set. Source: MECHANISM 8, 9.2."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from protocol.commitment import NO_TRACE
from protocol.fixed_point import Float64, Int64
from protocol.types import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedVote:
    """One vote of an attempt, as the contract recorded it."""

    node_index: int
    mini_round_index: int
    digest: Digest
    trace: Digest


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes that count for each digest, and those of nodes that lacked an input."""

    votes: dict[Digest, int]
    no_data: int


@dataclass(frozen=True, slots=True)
class Decided:
    """The digest is accepted."""

    digest: Digest
    votes: int


@dataclass(frozen=True, slots=True)
class GrowSet:
    """Nothing is decided yet: open the next mini-round."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The attempt ends without a decision."""


Decision = Decided | GrowSet | Undecided


def tally(votes: Iterable[OpenedVote]) -> Tally:
    """Count the votes of an attempt.

    In each mini-round only the largest group with equal traces counts for a digest, so that a
    copied digest with an invented trace adds nothing. A zero trace means "no data", whatever the
    digest. Of several votes of one node the first counts.

    Source: MECHANISM 9.2.
    """
    groups, no_data = _group(votes)
    counted: Counter[Digest] = Counter()
    for (_, digest), by_trace in groups.items():
        counted[digest] += max(len(nodes) for nodes in by_trace.values())
    return Tally(dict(counted), no_data)


def decide(counted: Tally, *, lead: int, pool_size: int, set_size: int) -> Decision:
    """Decide on the votes so far.

    Parameters
    ----------
    counted :
        All mini-rounds of the attempt up to now.
    lead :
        L, the votes that the leader must be ahead of the runner-up and "no data" together.
    pool_size :
        N at enrolment; more than half of it decides at once.
    set_size :
        n_m, the cumulative size of the mini-round just closed.

    Source: MECHANISM 8.4.
    """
    ranked = sorted(counted.votes.items(), key=lambda item: (-item[1], item[0]))
    leader = ranked[0][1] if ranked else 0
    runner_up = ranked[1][1] if len(ranked) > 1 else 0
    if leader and (leader - runner_up - counted.no_data >= lead or 2 * leader > pool_size):
        return Decided(ranked[0][0], leader)
    if counted.no_data - leader >= lead or 2 * counted.no_data > pool_size:
        return Undecided()
    return GrowSet() if set_size < pool_size else Undecided()


def select_voters(votes: Iterable[OpenedVote], digest: Digest) -> frozenset[int]:
    """Choose the nodes that are paid for the accepted digest.

    In each mini-round those of the largest group with equal traces; on a tie all tied groups,
    because nobody loses pay for a trace that cannot be told right from wrong.

    Source: MECHANISM 9.2, 14.
    """
    groups, _ = _group(votes)
    paid: set[int] = set()
    for (_, candidate), by_trace in groups.items():
        if candidate == digest:
            largest = max(len(nodes) for nodes in by_trace.values())
            paid.update(*(nodes for nodes in by_trace.values() if len(nodes) == largest))
    return frozenset(paid)


def select_wrong_voters(votes: Iterable[OpenedVote], digest: Digest) -> frozenset[int]:
    """Choose the nodes that voted for another digest than the accepted one; never "no data"."""
    return frozenset(
        vote.node_index
        for vote in _select_first_votes(votes)
        if vote.trace != NO_TRACE and vote.digest != digest
    )


def compute_lead(byzantine_share: Fraction, allowed_error: Fraction) -> int:
    """Compute L: the smallest lead with (f / (1-f))**L <= beta0.

    Parameters
    ----------
    byzantine_share :
        f_max, below one half.
    allowed_error :
        beta0, the probability of accepting a wrong digest that one round may have.

    Source: MECHANISM 8.2.
    """
    if not (0 < byzantine_share < Fraction(1, 2) and 0 < allowed_error < 1):
        raise ValueError(f"need 0 < f < 1/2 and 0 < beta < 1: {byzantine_share}, {allowed_error}")
    ratio = byzantine_share / (1 - byzantine_share)
    lead, probability = 0, Fraction(1)
    while probability > allowed_error:
        lead += 1
        probability *= ratio
    return lead


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusOdds:
    """What to expect of one attempt when all Byzantine nodes vote for one wrong digest."""

    wrong: float
    undecided: float
    expected_votes: float
    expected_mini_rounds: float


def compute_consensus_odds(
    pool_size: int, byzantine_count: int, lead: int, set_sizes: Sequence[int]
) -> ConsensusOdds:
    """Follow the distribution of Byzantine votes through the mini-rounds.

    Honest nodes all answer. The order in which nodes enter is a uniformly random permutation, so
    the number of Byzantine ones among the newly drawn is hypergeometric. Floats: this plans a
    job, it feeds no digest.

    Parameters
    ----------
    pool_size, byzantine_count, lead :
        N, B, L.
    set_sizes :
        Cumulative sizes, as ``sortition.compute_set_sizes`` lists them.

    Source: MECHANISM 8.5.
    """
    wrong = expected_votes = expected_mini_rounds = 0.0
    log_factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, pool_size + 1)))))
    open_states: Float64 = np.zeros(byzantine_count + 1)
    open_states[0] = 1.0
    former_size = 0
    for set_size in set_sizes:
        still_open = float(open_states.sum())
        expected_votes += still_open * (set_size - former_size)
        expected_mini_rounds += still_open
        open_states = _draw_more(
            open_states, pool_size - former_size, set_size - former_size, log_factorials
        )
        bad = np.arange(byzantine_count + 1)
        good = set_size - bad
        is_wrong = (bad - good >= lead) | (2 * bad > pool_size)
        is_right = (good - bad >= lead) | (2 * good > pool_size)
        wrong += float(open_states[is_wrong].sum())
        open_states = np.where(is_wrong | is_right, 0.0, open_states)
        former_size = set_size
    return ConsensusOdds(
        wrong=wrong,
        undecided=float(open_states.sum()),
        expected_votes=expected_votes,
        expected_mini_rounds=expected_mini_rounds,
    )


def _draw_more(states: Float64, remaining: int, drawn: int, log_factorials: Float64) -> Float64:
    """Draw from the remaining pool; entry b of the result is P(b Byzantine ones so far)."""
    total = len(states) - 1
    after = np.zeros_like(states)
    log_all = _log_choose(remaining, np.array([drawn]), log_factorials)
    for bad, probability in enumerate(states):
        if probability == 0.0:
            continue
        bad_left = total - bad
        good_left = remaining - bad_left
        new = np.arange(max(0, drawn - good_left), min(bad_left, drawn) + 1)
        log_ways = _log_choose(bad_left, new, log_factorials) + _log_choose(
            good_left, drawn - new, log_factorials
        )
        after[bad + new] += probability * np.exp(log_ways - log_all)
    return after


def _log_choose(total: int, chosen: Int64, log_factorials: Float64) -> Float64:
    result: Float64 = (
        log_factorials[total] - log_factorials[chosen] - log_factorials[total - chosen]
    )
    return result


def _select_first_votes(votes: Iterable[OpenedVote]) -> list[OpenedVote]:
    first: dict[int, OpenedVote] = {}
    for vote in votes:
        first.setdefault(vote.node_index, vote)
    return list(first.values())


def _group(
    votes: Iterable[OpenedVote],
) -> tuple[dict[tuple[int, Digest], dict[Digest, set[int]]], int]:
    """Group nodes by (mini-round, digest) and trace; count the "no data" votes apart."""
    groups: dict[tuple[int, Digest], dict[Digest, set[int]]] = {}
    no_data = 0
    for vote in _select_first_votes(votes):
        if vote.trace == NO_TRACE:
            no_data += 1
            continue
        by_trace = groups.setdefault((vote.mini_round_index, vote.digest), {})
        by_trace.setdefault(vote.trace, set()).add(vote.node_index)
    return groups, no_data
