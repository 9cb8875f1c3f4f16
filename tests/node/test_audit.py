"""An audit computes rounds with momentum again from what a CONE node wrote down."""

from dataclasses import replace
from pathlib import Path

import pytest

from d2m_node.audit import audit_job
from d2m_node.errors import StoreCorrupted
from d2m_node.ports import Purpose, Reference
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.records import RoundSources, record_round, write_decision
from d2m_node.roles.room import Room
from d2m_node.roles.seat import Seat
from d2m_node.roles.shift import Shift
from d2m_node.storage.database import open_store
from protocol.hashing import keccak
from protocol.request import encode_body
from protocol.round import BallotResult, RoundWork
from protocol.sortition import compute_ticket_chain
from protocol.types import ConeIndex
from protocol.update import TensorKind, encode_tensor
from protocol.validation_set import encode_part
from tests.support.job import JOB, TICKETS, Cast, ticket_secret
from tests.support.momentum import MOMENTUM_BODY, PART, ROUNDS, compute_works

REFERENCE = Reference(Purpose.STATE, JOB)


async def write_down(
    folder: Path, *, without: bytes = b""
) -> tuple[list[RoundWork], list[BallotResult]]:
    """Let a CONE node record some rounds; leave a blob out."""
    cast = Cast()
    cast.start()
    body = encode_body(MOMENTUM_BODY)
    job = replace(cast.market.state.jobs[JOB], body_hash=keccak(body))
    cast.market.state = replace(cast.market.state, jobs={JOB: job})
    works, results = compute_works(job, MOMENTUM_BODY)
    node = cast.cones[0]
    async with open_store(folder) as store:
        ports = replace(node.ports, store=store)
        seat = Seat(
            ports=ports,
            room=Room(ports, JOB),
            job_id=JOB,
            body=MOMENTUM_BODY,
            index=ConeIndex(0),
            tickets=compute_ticket_chain(ticket_secret(node), TICKETS),
            executor=HonestExecutor(),
            shift=Shift("cone"),
            lag_blocks=0,
        )
        part = encode_part(PART)
        for blob in (body, part, *(blob for result in results for blob in result.blobs)):
            if blob != without:
                await store.blobs.put(blob, REFERENCE)
        assert job.ballot is not None
        for work, result in zip(works, results, strict=True):
            digests = {
                index: await store.blobs.put(encode_tensor(TensorKind.UPDATE, update), REFERENCE)
                for index, update in work.updates.items()
            }
            number = work.round_index + 1
            ballot = replace(job.ballot, round_index=work.round_index, ballot_number=number)
            sources = RoundSources(
                update_digests=digests, part_digest=keccak(part), subset=PART.indices
            )
            await record_round(seat, ballot, work, sources)
            await write_decision(store.journal, JOB, number, result.digest)
    return works, results


async def test_rounds_with_momentum_come_out_as_they_were_decided(tmp_path: Path) -> None:
    _, results = await write_down(tmp_path)
    audit = await audit_job(tmp_path, JOB)
    assert [one.decided for one in audit.ballots] == [one.digest for one in results]
    assert all(one.matches for one in audit.ballots)
    assert len(audit.ballots) == ROUNDS


async def test_a_model_that_momentum_needs_and_that_is_gone_is_named(tmp_path: Path) -> None:
    works, _ = await write_down(tmp_path)
    gone = encode_tensor(TensorKind.PARAMETERS, works[1].before.parameters)
    folder = tmp_path / "incomplete"
    await write_down(folder, without=gone)
    with pytest.raises(StoreCorrupted, match=keccak(gone).hex()):
        await audit_job(folder, JOB)
