"""A buyer that is away for a moment costs nobody the job."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from d2m_node.errors import JobFailed, PeerUnreachable
from d2m_node.ports import Int32Array, Purpose, Reference
from d2m_node.roles.policies import SellerPolicy
from d2m_node.roles.seller import run_seller
from d2m_node.roles.sources import fetch, load_body
from protocol.hashing import keccak
from protocol.request import encode_body
from protocol.types import JobId
from tests.support.job import BODY, JOB, Cast

OTHER = JobId(JOB + 1)


class IdleTrainer:
    """Never has an update."""

    async def train(self, *_arguments: Any) -> Int32Array:
        await trio.sleep_forever()
        raise AssertionError


def make_cast() -> Cast:
    """A job in enrolment, whose request the first seller does not have."""
    cast = Cast()
    cast.open_enrolment()
    node = cast.sellers[0]
    del node.store.blobs.data[keccak(encode_body(BODY))]
    cast.buyer.refused.add(node.peer_id)
    return cast


async def test_a_node_applies_once_a_buyer_that_was_away_serves_its_request(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    cast = make_cast()
    node = cast.sellers[0]
    policy = SellerPolicy(dataset_path="dataset.toml")
    nursery.start_soon(run_seller, node.post("seller", nursery), policy, IdleTrainer())
    await trio.sleep(1)
    body = encode_body(BODY)
    await cast.buyer.store.blobs.put(body, Reference(Purpose.REQUEST, JOB))
    cast.buyer.refused.clear()
    await trio.sleep(10)
    await cast.market.mine()
    assert cast.market.state.jobs[JOB].has_seller_applied(node.signer.address)


async def test_a_request_that_is_not_served_in_time_ends_the_job_at_the_node() -> None:
    cast = make_cast()
    ports = cast.sellers[0].ports
    job = cast.market.state.jobs[JOB]
    with pytest.raises(PeerUnreachable):
        await load_body(ports, job)
    await cast.market.mine_to(job.enrolment_end)
    with pytest.raises(JobFailed, match="the buyer does not serve its request"):
        await load_body(ports, job)


async def test_a_request_that_is_kept_for_one_job_is_kept_for_another_that_needs_it_too() -> None:
    """Or it would go when the first job is over, in the middle of the second."""
    ports = Cast().sellers[0].ports
    first, second = Reference(Purpose.OWN_REQUEST, JOB), Reference(Purpose.REQUEST, OTHER)
    digest = await ports.store.blobs.put(b"body", first)
    data = await fetch(ports, digest, [], max_bytes=4, reference=second)
    assert data == b"body"
    assert await ports.store.blobs.references(digest) == {first, second}


@pytest.mark.parametrize("kept", [Purpose.STATE, Purpose.UPDATE, Purpose.VALIDATION])
@pytest.mark.parametrize("named", [Purpose.REQUEST, Purpose.UPDATE, Purpose.VALIDATION])
async def test_whoever_names_the_hash_of_another_jobs_blob_does_not_make_a_node_serve_it(
    kept: Purpose, named: Purpose
) -> None:
    """A buyer could name it as its request, which everybody may have."""
    cast = Cast()
    cast.start()
    node = cast.cones[0]
    digest = await node.store.blobs.put(b"secret", Reference(kept, JOB))
    wanted = Reference(named, OTHER)
    with pytest.raises(PeerUnreachable):
        await fetch(node.ports, digest, [], max_bytes=64, reference=wanted)
    assert await node.store.blobs.references(digest) == {Reference(kept, JOB)}


async def test_an_own_update_is_found_by_the_cone_role_of_the_same_node() -> None:
    ports = Cast().cones[0].ports
    own, wanted = Reference(Purpose.OWN_UPDATE, JOB), Reference(Purpose.UPDATE, JOB)
    digest = await ports.store.blobs.put(b"update", own)
    assert await fetch(ports, digest, [], max_bytes=6, reference=wanted) == b"update"
