"""Whole ballots of a pool of 50: tickets, real digests, hostile votes, the decision.

Source: MECHANISM 18, items 19 and 20. All honest nodes share one computation: that they would all
get its digest is shown by ``tests/integration/test_determinism.py``.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from protocol.consensus import Decided, Undecided, select_voters, select_wrong_voters
from protocol.fixed_point import Int32
from protocol.hashing import Stream, keccak, word
from protocol.linear_algebra import compute_rounded_mean, measure_update
from protocol.round import BallotResult, ModelState, RoundWork, compute_round
from protocol.update import MAX_UPDATE, apply_update
from tests.support.federation import (
    PER_ROUND,
    ROUNDS,
    SELLERS,
    START,
    make_wrong_result,
    measure_accuracy,
    prepare_round,
    train,
)
from tests.support.pool import (
    ATTEMPTS,
    POOL_SIZE,
    Ballot,
    Strategy,
    assign,
    collude,
    copy_the_digest,
    hold_ballot,
    lack_data,
    stay_silent,
    vote_at_random,
    vote_honestly,
    vote_stale,
)
from tests.support.rounds import follow

FIRST_WORK = prepare_round(START, 0)
FIRST = compute_round(FIRST_WORK)
FIRST_WRONG = make_wrong_result(FIRST_WORK, FIRST)


def iter_ballots(count: int = 12) -> Iterator[Ballot]:
    """The same results under other tickets."""
    for index in range(count):
        yield Ballot(
            round_index=index,
            attempt=0,
            honest=FIRST,
            wrong=FIRST_WRONG,
            stale=keccak(b"the digest of the round before"),
        )


# --- 18.19: ballots -----------------------------------------------------------------------------


def test_fifty_honest_nodes_decide_one_digest_in_the_first_mini_round() -> None:
    for ballot in iter_ballots():
        decision, votes = hold_ballot(ballot, assign(vote_honestly, 100))
        assert decision == Decided(FIRST.digest, len(votes))
        assert {vote.mini_round_index for vote in votes} == {0}
        assert select_voters(votes, FIRST.digest) == {vote.node_index for vote in votes}


@pytest.mark.parametrize("strategy", [vote_at_random, vote_stale, collude])
@pytest.mark.parametrize("percent", [10, 20, 30, 40])
def test_up_to_forty_percent_hostile_nodes_change_nothing(strategy: Strategy, percent: int) -> None:
    for ballot in iter_ballots():
        decision, votes = hold_ballot(ballot, assign(strategy, percent))
        assert isinstance(decision, Decided)
        assert decision.digest == FIRST.digest
        hostile = range(POOL_SIZE * percent // 100)
        assert select_voters(votes, decision.digest).isdisjoint(hostile)
        voted = {vote.node_index for vote in votes}
        assert select_wrong_voters(votes, decision.digest) == voted & set(hostile)


@pytest.mark.parametrize("strategy", [collude, vote_stale])
def test_half_of_the_pool_with_one_wrong_digest_ends_undecided(strategy: Strategy) -> None:
    for ballot in iter_ballots():
        decision, votes = hold_ballot(ballot, assign(strategy, 50))
        assert decision == Undecided()
        assert len(votes) == POOL_SIZE


def test_half_of_the_pool_with_random_digests_is_outvoted() -> None:
    for ballot in iter_ballots():
        decision, _ = hold_ballot(ballot, assign(vote_at_random, 50))
        assert isinstance(decision, Decided)
        assert decision.digest == FIRST.digest


def test_copiers_without_the_trace_cannot_decide_what_few_have_computed() -> None:
    for ballot in iter_ballots():
        decision, votes = hold_ballot(ballot, assign(copy_the_digest, 80))
        assert {vote.digest for vote in votes} == {FIRST.digest}
        assert decision == Undecided()


def test_silent_nodes_delay_a_decision_but_do_not_prevent_it() -> None:
    for ballot in iter_ballots():
        decision, votes = hold_ballot(ballot, assign(stay_silent, 40))
        assert isinstance(decision, Decided)
        assert decision.votes == len(votes)


def test_a_pool_that_mostly_lacks_an_input_ends_the_attempt() -> None:
    for ballot in iter_ballots():
        decision, votes = hold_ballot(ballot, assign(lack_data, 90))
        assert decision == Undecided()
        assert len(votes) < POOL_SIZE


# --- 18.19 and 18.20: jobs ----------------------------------------------------------------------

Selection = Callable[[Ballot, list[Strategy]], BallotResult | None]


def select_by_consensus(ballot: Ballot, pool: list[Strategy]) -> BallotResult | None:
    """Follow the rules: as many attempts as there are, then a void round."""
    results = {one.digest: one for one in (ballot.honest, ballot.wrong)}
    for attempt in range(ATTEMPTS):
        decision, _ = hold_ballot(replace(ballot, attempt=attempt), pool)
        if isinstance(decision, Decided):
            return results[decision.digest]
    return None


def select_one_node(ballot: Ballot, pool: list[Strategy]) -> BallotResult | None:
    """Ablation without YODA: whatever one random node says is accepted."""
    node = Stream(ballot.compute_seed(0), "one-node").below(POOL_SIZE)
    return ballot.wrong if pool[node] is collude else ballot.honest


def run_job(select: Selection, pool: list[Strategy]) -> ModelState:
    state = START
    for round_index in range(ROUNDS):
        work = prepare_round(state, round_index)
        honest = compute_round(work)
        ballot = Ballot(
            round_index=round_index,
            attempt=0,
            honest=honest,
            wrong=make_wrong_result(work, honest),
            stale=state.previous_digest,
        )
        if (result := select(ballot, pool)) is not None:
            state = follow(state, result)
    return state


HONEST_END = run_job(select_by_consensus, assign(vote_honestly, 100))


def test_an_honest_pool_learns() -> None:
    assert measure_accuracy(START) < 0.5
    assert measure_accuracy(HONEST_END) > 0.9


@pytest.mark.parametrize("strategy", [vote_at_random, vote_stale, collude])
def test_a_job_with_forty_percent_hostile_nodes_ends_as_the_honest_one(strategy: Strategy) -> None:
    end = run_job(select_by_consensus, assign(strategy, 40))
    assert end.previous_digest == HONEST_END.previous_digest
    assert (end.parameters == HONEST_END.parameters).all()


def test_a_job_with_half_of_the_pool_colluding_stands_still() -> None:
    end = run_job(select_by_consensus, assign(collude, 50))
    assert (end.parameters == START.parameters).all()
    assert end.credits == START.credits


def test_without_yoda_the_same_colluders_ruin_the_job() -> None:
    end = run_job(select_one_node, assign(collude, 40))
    assert measure_accuracy(end) < measure_accuracy(HONEST_END) - 0.2


def aggregate_plainly(work: RoundWork, round_index: int, attack: Callable[[Int32], Int32]) -> Int32:
    """Ablation without Corrected OSMD: uniform sampling and the plain mean."""
    drawn = Stream(keccak(word(round_index)), "uniform").draw(PER_ROUND, SELLERS)
    honest = {seller: train(work.before.parameters, seller, round_index) for seller in drawn}
    sent = [attack_if_hostile(honest[seller], seller, attack) for seller in drawn]
    return compute_rounded_mean([measure_update(one) for one in sent])


HOSTILE_SELLERS = range(SELLERS * 2 // 5)


def reverse(update: Int32) -> Int32:
    return np.clip(-2 * update, -MAX_UPDATE, MAX_UPDATE).astype(np.int32)


def attack_if_hostile(update: Int32, seller: int, attack: Callable[[Int32], Int32]) -> Int32:
    return attack(update) if seller in HOSTILE_SELLERS else update


def test_without_corrected_osmd_reversed_updates_ruin_the_job() -> None:
    corrected, plain = START, START
    for round_index in range(ROUNDS):
        work = prepare_round(corrected, round_index)
        updates = {
            seller: attack_if_hostile(update, seller, reverse)
            for seller, update in work.updates.items()
        }
        corrected = follow(corrected, compute_round(replace(work, updates=updates)))
        step = aggregate_plainly(prepare_round(plain, round_index), round_index, reverse)
        plain = replace(plain, parameters=apply_update(plain.parameters, step))
    assert sum(corrected.credits[seller] for seller in HOSTILE_SELLERS) == 0
    assert measure_accuracy(corrected) > 0.9
    assert measure_accuracy(plain) < measure_accuracy(corrected) - 0.2
