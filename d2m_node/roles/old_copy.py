"""What this account has said before, where chain or peers know it and the journal does not.

A data directory may be an old copy: restored from a backup, or made anew beside the old keys. Its
journal cannot keep it from saying a second, different thing. So a node that was not there when a
ballot opened asks before it signs anything new in it:

- The chain records commitments, ticket roots and bids.
- Peers keep what was gossiped in the latest rounds.
- A backup carries a mark: in what was open when it was restored, nothing new is signed at all.

What turns up and is not what would be said now ends the work in this job. Other jobs go on.
"""

from typing import Protocol

import structlog
import trio

from d2m_node.errors import JobFailed
from d2m_node.ports import Ports
from d2m_node.roles.room import M, Room
from d2m_node.roles.seat import Seat
from d2m_node.roles.statements import tag_of
from protocol.ballot import Ballot
from protocol.job import JobState
from protocol.sortition import TicketChain
from protocol.types import Address, Digest
from protocol.wire import messages as wire

ASK_SECONDS = 1.5
"""Peers that do not answer by then are not waited for: a round has only seconds."""

OLD_COPY = "this data directory is an old copy, or another node uses the same account"
NOTHING_MORE = f"{OLD_COPY}; this node signs nothing more in this job, and goes on in all others"

log = structlog.get_logger(__name__)


class Place(Protocol):
    """A seat or a stall: where an account speaks."""

    @property
    def ports(self) -> Ports:
        """The node's ports."""

    @property
    def room(self) -> Room:
        """The job's messages."""

    @property
    def index(self) -> int:
        """Of the account in its role."""


def check_tickets(job: JobState, account: Address, tickets: TicketChain | None) -> None:
    """Raise JobFailed if this account has registered another ticket chain, or one that is gone."""
    for applied in job.cone_applications:
        if applied.account == account and (tickets is None or tickets.root != applied.ticket_root):
            lacks = "lacks the secret of" if tickets is None else "has another secret than"
            raise JobFailed(
                job.job_id, f"the journal {lacks} the ticket root on the chain: {NOTHING_MORE}"
            )


def is_restored_since(ports: Ports, ballot: Ballot) -> bool:
    """Tell whether a ballot was open already when this directory was restored from a backup."""
    if ballot.opened_at[0] >= ports.store.trusted_from:
        return False
    log.warning("ballot_sat_out", reason="it was open when a backup was restored")
    return True


async def find_said(place: Place, ballot: Ballot, kind: type[M], step: int) -> M | None:
    """Return what this account gossiped in a step, as it or its peers remember.

    Peers are asked only about ballots that this process did not see open.
    """
    room, index = place.room, place.index
    if ballot.opened_at[0] <= room.since and index not in room.heard(kind, step):
        request = wire.MessagesRequest(job_id=room.job.job_id, kind=tag_of(kind), step=step)
        me = place.ports.signer.address
        with trio.move_on_after(ASK_SECONDS):
            await room.pull([one.account for one in room.job.cones if one.account != me], request)
    return room.heard(kind, step).get(index)


async def may_vote(seat: Seat, ballot: Ballot, step: int, commitment: Digest) -> bool:
    """Tell whether a vote that the journal does not have yet may be signed.

    Raises JobFailed if another one of this node is known.
    """
    if is_restored_since(seat.ports, ballot):
        return False
    said = await find_said(seat, ballot, wire.VoteCommit, step)
    known = {
        recorded
        for batch in seat.ballot(ballot).batches
        for index, recorded in batch.entries
        if index == seat.index
    }
    if said is not None:
        known.add(Digest(said.commitment))
    if known - {commitment}:
        raise JobFailed(
            seat.job_id,
            f"in round {ballot.round_index} this account has committed to a vote that the journal"
            f" does not know: {NOTHING_MORE}",
        )
    return True
