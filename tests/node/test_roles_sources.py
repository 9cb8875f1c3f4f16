"""A buyer that is away for a moment costs nobody the job; one that stays away costs nothing else."""

import pytest
import trio
from trio.testing import MockClock

from d2m_node.errors import JobFailed, PeerUnreachable
from d2m_node.roles.cone import ConePolicy, run_cone
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.rooms import Rooms
from d2m_node.roles.sources import load_body
from protocol.hashing import keccak
from protocol.request import encode_body
from protocol.types import Wei
from tests.support.job import BODY, JOB, Cast


def make_cast() -> Cast:
    """A job in enrolment, whose request the first CONE node does not have."""
    cast = Cast()
    cast.open_enrolment()
    node = cast.cones[0]
    del node.store.blobs.data[keccak(encode_body(BODY))]
    cast.buyer.refused.add(node.peer_id)
    return cast


async def test_a_node_applies_once_a_buyer_that_was_away_serves_its_request(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cast = make_cast()
    node = cast.cones[0]
    rooms = Rooms(node.ports, node.rooms, nursery)
    nursery.start_soon(run_cone, node.ports, rooms, ConePolicy(Wei(0)), HonestExecutor())
    await trio.sleep(1)
    assert not cast.market.state.jobs[JOB].has_cone_applied(node.signer.address)
    cast.buyer.refused.clear()
    await trio.sleep(10)
    await cast.market.mine()
    assert cast.market.state.jobs[JOB].has_cone_applied(node.signer.address)


async def test_a_request_that_is_not_served_in_time_ends_the_job_at_the_node() -> None:
    cast = make_cast()
    ports = cast.cones[0].ports
    job = cast.market.state.jobs[JOB]
    with pytest.raises(PeerUnreachable):
        await load_body(ports, job)
    await cast.market.mine_to(job.enrolment_end)
    with pytest.raises(JobFailed, match="the buyer does not serve its request"):
        await load_body(ports, job)
