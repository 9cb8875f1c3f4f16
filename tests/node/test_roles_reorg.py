"""A reorganisation that takes a job, or a place in it, ends the work in the job, never the node."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import trio

from d2m_node.errors import JobFailed, TransientError
from d2m_node.ports import Int32Array, Verdict
from d2m_node.roles.cone import run_cone
from d2m_node.roles.evidence import report_equivocations
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.payday import run_payday
from d2m_node.roles.policies import ConePolicy, SellerPolicy
from d2m_node.roles.seller import run_seller
from d2m_node.roles.service import serve_jobs
from protocol.events import CourseChanged, StakeLocked
from protocol.job import JobState
from protocol.types import BlockNumber, Digest, JobId, Wei
from protocol.wire import messages as wire
from tests.support.decided import BEFORE
from tests.support.job import JOB, OPENED, Cast, Offer, ticket_secret
from tests.support.market import Node
from tests.support.training import Training


@pytest.fixture
def cast() -> Cast:
    started = Cast()
    started.start()
    return started


def show(cast: Cast, jobs: Mapping[JobId, JobState]) -> None:
    """Let the chain turn to a branch with these jobs."""
    cast.market.state = replace(cast.market.state, jobs=jobs)


class IdleTrainer:
    """Never has an update."""

    async def train(self, *_arguments: Any, **_options: Any) -> Int32Array:
        await trio.sleep_forever()
        raise AssertionError


class Everything:
    """Wants every job."""

    def is_bound(self, *_: object) -> bool:
        return True

    def is_offered(self, *_: object) -> bool:
        return False

    def find_objection(self, *_: object) -> None:
        return None


async def work(node: Node, role: str) -> None:
    """Run one role as a node does, until cancelled."""
    async with trio.open_nursery() as nursery:
        post = node.post(role, nursery)
        if role == "cone":
            await run_cone(post, ConePolicy(stake_wei=Wei(0)), HonestExecutor())
        else:
            await run_seller(post, SellerPolicy(dataset_path="dataset.toml"), IdleTrainer())


@pytest.mark.parametrize("role", ["cone", "seller"])
async def test_a_job_that_is_taken_back_and_comes_again_is_served_again(
    cast: Cast, nursery: trio.Nursery, role: str
) -> None:
    node = cast.cones[0] if role == "cone" else cast.sellers[0]
    node.store.journal.values["ticket-secret", str(JOB)] = ticket_secret(cast.cones[0])
    nursery.start_soon(work, node, role)
    await cast.market.mine()
    former, jobs = node.rooms[JOB], cast.market.state.jobs
    show(cast, {})
    await cast.market.mine()
    assert node.rooms == {}
    show(cast, jobs)
    await cast.market.mine()
    assert node.rooms[JOB] is not former


@pytest.mark.parametrize(("vanishes", "runs"), [(False, 1), (True, 2)])
async def test_a_job_that_failed_is_served_again_only_if_it_was_gone(
    cast: Cast, nursery: trio.Nursery, vanishes: bool, runs: int
) -> None:
    served = []

    async def fail(job_id: JobId) -> None:
        served.append(job_id)
        await cast.market.wait_for(lambda state: True if JOB not in state.jobs else None)

    async def fail_at_once(job_id: JobId) -> None:
        served.append(job_id)

    nursery.start_soon(
        serve_jobs,
        cast.buyer.post("buyer", nursery),
        Everything(),
        fail if vanishes else fail_at_once,
    )
    await cast.market.mine()
    jobs = cast.market.state.jobs
    show(cast, {} if vanishes else jobs)
    await cast.market.mine()
    show(cast, jobs)
    await cast.market.mine(3)
    assert served == [JOB] * runs


async def test_a_message_for_a_job_that_is_gone_is_ignored_and_none_is_served(
    cast: Cast, nursery: trio.Nursery
) -> None:
    node = cast.cones[0]
    room = await cast.open_room(node, nursery)
    commit = Offer(cast.sellers[1], 1).commit
    assert room.validate(commit) is Verdict.ACCEPT
    request = wire.MessagesRequest(job_id=JOB, kind=1, step=0)
    assert await node.library.read_messages(cast.cones[1].peer_id, request) == [commit]
    show(cast, {})
    assert room.validate(Offer(cast.sellers[2], 2).commit) is Verdict.IGNORE
    assert await node.library.read_messages(cast.cones[1].peer_id, request) == []
    with pytest.raises(JobFailed, match="a reorganisation took its auction back"):
        _ = room.job


async def test_a_second_commitment_of_a_seller_whose_enrolment_is_gone_is_ignored(
    cast: Cast, nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    first, second = (Offer(cast.sellers[3], 3, value=value) for value in (1, 2))
    assert room.validate(first.commit) is Verdict.ACCEPT
    job = cast.market.state.jobs[JOB]
    show(cast, {JOB: replace(job, sellers=job.sellers[:3])})
    assert room.validate(second.commit) is Verdict.IGNORE
    assert not room.opens_commitment(first.opening)


async def test_evidence_waits_for_a_deposit_that_is_gone(cast: Cast, nursery: trio.Nursery) -> None:
    seat = await cast.take_seat(0, nursery)
    job = cast.market.state.jobs[JOB]
    show(cast, {JOB: replace(job, deposits={})})
    nursery.start_soon(report_equivocations, seat)
    for value in (1, 2):
        seat.room.validate(Offer(cast.sellers[1], 1, value=value).commit)
    await cast.market.mine(8)
    assert cast.market.calls == []
    show(cast, {JOB: job})
    await cast.market.mine(8)
    assert len(cast.market.calls) == 1


async def test_a_seat_that_is_gone_is_looked_for_again(cast: Cast, nursery: trio.Nursery) -> None:
    seat = await cast.take_seat(0, nursery)
    job = cast.market.state.jobs[JOB]
    assert seat.job == job
    show(cast, {JOB: replace(job, cones=job.cones[1:])})
    with pytest.raises(TransientError, match="took this node's place back"):
        _ = seat.job


async def test_a_stake_that_is_locked_in_a_job_that_is_gone_stays(
    cast: Cast, nursery: trio.Nursery
) -> None:
    node = cast.cones[0]
    account = node.signer.address
    cast.market.apply(StakeLocked(job=JOB, account=account, amount_wei=Wei(1)))
    show(cast, {})
    nursery.start_soon(run_payday, node.ports)
    await cast.market.mine(3)
    assert cast.market.calls == []


async def test_a_ballot_that_another_branch_opened_earlier_is_voted_in(
    nursery: trio.Nursery,
) -> None:
    training = Training(nursery)
    market = training.cast.market
    market.apply(CourseChanged(job=JOB, course=BEFORE))
    await training.start()
    await market.mine_to(OPENED.seed_block - 1)
    earlier = replace(training.ballot, opened_at=(BlockNumber(0), 1))
    assert earlier.opened_at < training.ballot.opened_at
    show(training.cast, {JOB: replace(training.job, ballot=earlier)})
    await market.mine_to(OPENED.commit_end)
    assert training.ballot.committed == training.drawn


async def test_a_round_that_another_branch_begins_earlier_gets_its_updates(
    nursery: trio.Nursery,
) -> None:
    training = Training(nursery)
    market = training.cast.market
    market.apply(CourseChanged(job=JOB, course=BEFORE))
    later = OPENED.availability_end
    ballot = training.ballot
    show(
        training.cast, {JOB: replace(training.job, ballot=replace(ballot, seller_seed_block=later))}
    )
    await training.start()
    await market.mine_to(OPENED.seller_seed_block + 1)
    assert sum(trainer.runs for trainer in training.trainers) == 0
    show(training.cast, {JOB: replace(training.job, ballot=ballot)})
    await market.mine_to(OPENED.update_commit_end)
    assert sum(trainer.runs for trainer in training.trainers) > 0


def list_commitments(training: Training) -> dict[int, Digest]:
    """Return what is on record for the open ballot, by CONE index."""
    return {index: told for batch in training.ballot.batches for index, told in batch.entries}


async def test_a_vote_that_is_taken_back_is_given_again_and_never_another_one(
    nursery: trio.Nursery,
) -> None:
    training = Training(nursery)
    market = training.cast.market
    market.apply(CourseChanged(job=JOB, course=BEFORE))
    await training.start()
    await market.mine_to(OPENED.seed_block + 2)
    before = list_commitments(training)
    assert before.keys() == training.drawn
    # The other branch has another seed: the same nodes would draw and trace otherwise.
    market.randomness[OPENED.seed_block] = bytes(32)
    again = replace(training.ballot, batches=(), opened_at=(BlockNumber(1), 1))
    show(training.cast, {JOB: replace(training.job, ballot=again)})
    await market.mine_to(OPENED.commit_end)
    after = list_commitments(training)
    assert before.items() <= after.items()
    await market.mine_to(OPENED.open_end)
    assert before.keys() <= training.ballot.opened
