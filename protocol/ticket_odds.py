"""The odds of a vote whose execution sets are drawn by private tickets. Source: MECHANISM 7.2.

MECHANISM 8.5 computes with sets of exactly n_m nodes, as the public draw makes them. A ticket is
below the threshold or not, each on its own, so that the sets have n_m nodes on average only. The
proof of 8.3 covers both, but the exact error differs: a pool of 50 with lead 9, first set 14 and 15
Byzantine nodes accepts a wrong digest with probability 3.2e-7 by public draw, 1.03e-6 by tickets.
"""

from collections.abc import Sequence

import numpy as np

from protocol.consensus_odds import ConsensusOdds, compute_binomial
from protocol.fixed_point import Float64, Int64

NEGLIGIBLE = 1e-40
"""States less likely than this are left out: no allowed error comes near."""


def compute_ticket_odds(
    pool_size: int,
    byzantine_count: int,
    lead: int,
    set_sizes: Sequence[int],
    negligible: float = NEGLIGIBLE,
) -> ConsensusOdds:
    """Follow the votes through mini-rounds of tickets; all honest nodes answer.

    Parameters
    ----------
    pool_size, byzantine_count, lead, set_sizes :
        As in :func:`protocol.consensus_odds.compute_consensus_odds`.
    negligible :
        States less likely than this are left out.
    """
    bad = good = np.zeros(1, np.int64)
    # Entry (i, j): P(bad[i] and good[j] nodes have voted, and the vote is open).
    states: Float64 = np.ones((1, 1))
    wrong = expected_votes = expected_mini_rounds = 0.0
    former_size = 0
    for set_size in set_sizes:
        still_open = float(states.sum())
        if still_open == 0:
            break
        expected_mini_rounds += still_open
        # A ticket above the last threshold is uniform between it and 2**256.
        chance = (set_size - former_size) / (pool_size - former_size)
        voted = float((states * (bad[:, np.newaxis] + good)).sum())
        expected_votes += chance * (pool_size * still_open - voted)
        bad, states = _draw_more(bad, states, byzantine_count, chance, negligible)
        good, flipped = _draw_more(good, states.T, pool_size - byzantine_count, chance, negligible)
        states = flipped.T
        ahead = good - bad[:, np.newaxis]
        is_wrong = (ahead <= -lead) | (2 * bad[:, np.newaxis] > pool_size)
        wrong += float(states[is_wrong].sum())
        is_open = ~is_wrong & (ahead < lead) & (2 * good <= pool_size) & (states >= negligible)
        states = np.where(is_open, states, 0.0)
        former_size = set_size
    return ConsensusOdds(
        wrong=wrong,
        undecided=float(states.sum()),
        expected_votes=expected_votes,
        expected_mini_rounds=expected_mini_rounds,
    )


def _draw_more(
    had: Int64, states: Float64, total: int, chance: float, negligible: float
) -> tuple[Int64, Float64]:
    """Let each of ``total`` nodes that has not voted vote with a chance.

    ``had`` says what the rows of ``states`` stand for, ascending by one; the result likewise.
    """
    likely = np.flatnonzero(states.any(axis=1))
    had, states = had[likely], states[likely]
    left = total - int(had[0])
    more = np.flatnonzero(compute_binomial(left, np.arange(left + 1), chance) >= negligible)
    # Those with more votes have fewer nodes left, and are not likely to draw more of them.
    counts = np.arange(had[0], min(total, int(had[-1] + more[-1])) + 1)
    moves = compute_binomial(total - had[:, np.newaxis], counts - had[:, np.newaxis], chance)
    # Subnormal numbers would slow the product down tenfold.
    return counts, np.where(moves >= negligible, moves, 0.0).T @ states
