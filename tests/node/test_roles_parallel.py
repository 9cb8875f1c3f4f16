"""Several jobs at once on the same nodes: each goes its own way; one that fails holds up none."""

from dataclasses import replace

import pytest
import trio

from d2m_node.roles.cone import run_cone
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.policies import ConePolicy, SellerPolicy
from d2m_node.roles.seller import run_seller
from protocol.ballot import Ballot
from protocol.events import CourseChanged
from protocol.job import JobPhase, JobState
from protocol.types import JobId, Wei
from protocol.wire import messages as wire
from tests.support.decided import BEFORE
from tests.support.job import CONES, JOB, OPENED, SELLERS, Cast
from tests.support.training import Training

SECOND = JobId(2)


async def begin(nursery: trio.Nursery) -> Training:
    """Let all nodes work on the first rounds of two jobs at the same time."""
    training = Training(nursery)
    training.cast.market.apply(CourseChanged(job=JOB, course=BEFORE))
    await training.start(job_count=2)
    return training


def job_of(training: Training, job_id: JobId) -> JobState:
    return training.cast.market.state.jobs[job_id]


def ballot_of(training: Training, job_id: JobId) -> Ballot:
    ballot = job_of(training, job_id).ballot
    assert ballot is not None
    return ballot


async def test_two_rounds_at_once_have_the_votes_and_updates_of_their_own_draws(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    await training.cast.market.mine_to(OPENED.open_end)
    for job_id in (JOB, SECOND):
        assert ballot_of(training, job_id).opened == await training.draw(job_id)
        room = training.cast.cones[0].rooms[job_id]
        commits = room.heard(wire.UpdateCommit, 0)
        assert len(commits) == 3
        assert commits.keys() == room.heard(wire.UpdateOpening, 0).keys()
        assert room.equivocations == {}
    digests = {
        one.digest for job_id in (JOB, SECOND) for one in ballot_of(training, job_id).openings
    }
    assert len(digests) == 2, "each job has its own result"
    for node in training.cast.cones:
        assert node.refusals() == []


async def test_each_job_has_one_vote_per_node_in_the_journal(nursery: trio.Nursery) -> None:
    training = await begin(nursery)
    await training.cast.market.mine_to(OPENED.open_end)
    for job_id in (JOB, SECOND):
        drawn = await training.draw(job_id)
        for index, node in enumerate(training.cast.cones):
            votes = [
                key
                for kind, key in node.store.journal.values
                if kind == "vote" and key.startswith(f"{job_id}/")
            ]
            assert len(votes) == (index in drawn)


async def test_a_job_that_fails_in_mid_round_holds_up_no_other(nursery: trio.Nursery) -> None:
    training = await begin(nursery)
    market = training.cast.market
    await market.mine_to(OPENED.availability_end - 1)
    # A reorganisation takes the second job's auction back: its work fails at every node.
    market.state = replace(market.state, jobs={JOB: job_of(training, JOB)})
    await market.mine_to(OPENED.open_end)
    assert ballot_of(training, JOB).opened == training.drawn
    assert training.left == []
    for node in (*training.cast.cones, *training.cast.sellers):
        assert {job_id for job_id, _, code in node.refusals() if code == "failed"} == {SECOND}


async def test_a_drain_waits_for_all_jobs(nursery: trio.Nursery) -> None:
    training = await begin(nursery)
    market = training.cast.market
    await market.mine_to(OPENED.seller_seed_block)
    for shift in (*training.cone_shifts, *training.seller_shifts):
        shift.drain()
    for job_id in (JOB, SECOND):
        assert training.left == []
        await market.mine(2)
        settled = replace(job_of(training, job_id), phase=JobPhase.CANCELLED)
        market.state = replace(market.state, jobs={**market.state.jobs, job_id: settled})
        await market.mine(6)
    assert len(training.left) == CONES, "sellers wait for their deposits"
    assert {shift.role for shift in training.left} == {"cone"}


@pytest.mark.parametrize("free_wei", [1, 2])
async def test_nodes_apply_for_as_many_jobs_at_once_as_their_stake_is_for(
    nursery: trio.Nursery, free_wei: int
) -> None:
    cast = Cast()
    cast.open_enrolment()
    job = cast.market.state.jobs[JOB]
    jobs = {JOB: job, SECOND: replace(job, job_id=SECOND)}
    stakes = {
        account: replace(stake, free_wei=Wei(free_wei), since_block=stake.since_block - 1)
        for account, stake in cast.market.state.stakes.items()
    }
    cast.market.state = replace(cast.market.state, jobs=jobs, stakes=stakes)
    for node in cast.cones:
        post = node.post("cone", nursery)
        nursery.start_soon(run_cone, post, ConePolicy(stake_wei=Wei(free_wei)), HonestExecutor())
    for node in cast.sellers:
        policy = SellerPolicy(dataset_path="dataset.toml")
        nursery.start_soon(run_seller, node.post("seller", nursery), policy, None)
    await cast.market.mine()
    applied = [len(cast.market.state.jobs[one].cone_applications) for one in (JOB, SECOND)]
    assert applied == [CONES, CONES if free_wei == 2 else 0]
    assert len(cast.market.state.jobs[SECOND].seller_applications) == SELLERS
