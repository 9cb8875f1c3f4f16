"""CONE nodes that commit to two votes: it costs nobody else its own."""

from dataclasses import replace

import trio

from d2m_node.calls import ContractCall, SubmitOpenings
from protocol.ballot import CommitBatch
from protocol.bitmap import decode_bitmap
from protocol.events import CourseChanged
from protocol.types import Digest
from tests.support.decided import BEFORE
from tests.support.job import JOB, OPENED
from tests.support.training import Training

OTHER = Digest(b"other".ljust(32))


def record_other_commitment(training: Training, index: int) -> None:
    """Let the chain have recorded another commitment of a node than its peers have heard."""

    def change(batch: CommitBatch) -> CommitBatch:
        entries = tuple((one, OTHER if one == index else told) for one, told in batch.entries)
        return replace(batch, entries=entries)

    market, job, ballot = training.cast.market, training.job, training.ballot
    changed = replace(ballot, batches=tuple(change(one) for one in ballot.batches))
    market.state = replace(market.state, jobs={JOB: replace(job, ballot=changed)})


def is_opened(call: SubmitOpenings, index: int) -> bool:
    """Tell whether a call opens the entry of a node, and does not leave it as it is recorded."""
    members = decode_bitmap(call.members)
    return index in members and call.batch[members.index(index)][0] < len(call.opened)


async def test_an_opening_of_another_commitment_than_the_recorded_one_spoils_no_batch(
    nursery: trio.Nursery,
) -> None:
    training = Training(nursery)
    market = training.cast.market
    market.apply(CourseChanged(job=JOB, course=BEFORE))
    await training.start()
    await market.mine_to(OPENED.seed_block + 2)
    assert training.ballot.committed == training.drawn
    hostile, *honest = sorted(training.drawn)
    record_other_commitment(training, hostile)

    def is_not_this_batch(call: ContractCall) -> bool:
        return isinstance(call, SubmitOpenings) and is_opened(call, hostile)

    market.refuses = is_not_this_batch
    await market.mine_to(OPENED.open_end)
    assert training.ballot.opened == frozenset(honest)
