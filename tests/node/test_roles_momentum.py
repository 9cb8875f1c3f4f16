"""With momentum a round starts from two models, and a node that comes late gets both."""

from dataclasses import fields, replace

import numpy as np

from d2m_node.ports import Purpose, Reference
from d2m_node.roles.sources import load_model_state, load_round_state
from protocol.events import RoundDecided
from protocol.hashing import keccak
from protocol.job import DecidedBallot, JobState
from protocol.round import BallotResult, ModelState
from protocol.types import BlockNumber
from tests.support.job import BODY, JOB, Cast
from tests.support.momentum import MOMENTUM_BODY, ROUNDS, compute_works, follow_all


async def decide(cast: Cast, results: list[BallotResult]) -> JobState:
    """Let rounds be decided, whose blobs the second CONE node has."""
    decided = []
    for index, result in enumerate(results):
        for blob in result.blobs:
            await cast.cones[1].store.blobs.put(blob, Reference(Purpose.STATE, JOB))
        decision = RoundDecided(
            job=JOB, round_index=index, ballot_number=index + 1, digest=result.digest, votes=5,
            voters=0b11111, wrong=0, unopened=0, appeal_end=BlockNumber(0), header=result.opening,
        )  # fmt: skip
        ballot = cast.market.state.jobs[JOB].ballot
        assert ballot is not None
        decided.append(DecidedBallot(ballot=ballot, decision=decision, block_number=BlockNumber(0)))
    job = replace(cast.market.state.jobs[JOB], decided=tuple(decided))
    cast.market.state = replace(cast.market.state, jobs={JOB: job})
    return job


def start() -> tuple[Cast, JobState]:
    cast = Cast()
    cast.start()
    return cast, cast.market.state.jobs[JOB]


async def test_a_late_node_gets_the_models_before_and_after_the_last_decided_round() -> None:
    cast, job = start()
    works, results = compute_works(job, MOMENTUM_BODY)
    states = follow_all(works, results)
    decided = await decide(cast, results)
    found = await load_round_state(cast.cones[0].ports, decided, MOMENTUM_BODY)
    assert same(found, states[ROUNDS])
    assert found.previous_parameters is not None
    assert (found.previous_parameters != found.parameters).any()


async def test_a_decision_that_is_checked_starts_from_the_two_models_before_it() -> None:
    cast, job = start()
    works, results = compute_works(job, MOMENTUM_BODY)
    states = follow_all(works, results)
    decided = await decide(cast, results)
    before = replace(decided, decided=decided.decided[:-1])
    assert same(
        await load_round_state(cast.cones[0].ports, before, MOMENTUM_BODY), states[ROUNDS - 1]
    )


async def test_the_model_before_the_first_decided_round_is_computed() -> None:
    cast, job = start()
    works, results = compute_works(job, MOMENTUM_BODY)
    states = follow_all(works, results)
    first = await decide(cast, results[:1])
    assert same(await load_round_state(cast.cones[0].ports, first, MOMENTUM_BODY), states[1])
    nothing = await load_round_state(cast.cones[0].ports, job, MOMENTUM_BODY)
    assert nothing.previous_parameters is None


async def test_without_momentum_and_for_sellers_one_model_is_fetched() -> None:
    cast, job = start()
    _, results = compute_works(job, MOMENTUM_BODY)
    decided = await decide(cast, results)
    for load, body in ((load_round_state, BODY), (load_model_state, MOMENTUM_BODY)):
        late = cast.cones[0] if body is BODY else cast.sellers[0]
        found = await load(late.ports, decided, body)
        assert found.previous_parameters is None
        assert keccak(results[-1].blobs[0]) in late.store.blobs.data
        assert keccak(results[-2].blobs[0]) not in late.store.blobs.data


def same(one: ModelState, other: ModelState) -> bool:
    """Compare all fields, arrays by their values."""
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(ModelState)
    )
