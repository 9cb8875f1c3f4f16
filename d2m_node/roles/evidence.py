"""Evidence against sellers at a CONE node: kept across restarts, and reported by one of the pool.

The room finds it and passes it on (`room.py`); the contract burns the deposit. Source: MECHANISM 6.
"""

import msgspec
import structlog
import trio

from d2m_node.calls import ReportEquivocation
from d2m_node.roles.seat import Seat
from d2m_node.roles.statements import Equivocation
from d2m_node.roles.turns import Turn, take_turn
from protocol.deposits import DepositStatus
from protocol.errors import InvalidMessage
from protocol.wire import messages as wire
from protocol.wire.codec import decode_message, encode_message

log = structlog.get_logger(__name__)

KIND = "equivocation"


async def report_equivocations(seat: Seat) -> None:
    """Write down and report, in turn, what this node hears of or has heard of; until cancelled."""
    journal = seat.ports.store.journal
    for stored in (await journal.recall_all(KIND, f"{seat.job_id}/")).values():
        seat.room.keep_equivocation(_decode(stored))
    taken: set[int] = set()
    async with trio.open_nursery() as nursery:
        while True:
            await seat.room.wait_until(lambda: not seat.room.equivocations.keys() <= taken)
            for index in seat.room.equivocations.keys() - taken:
                taken.add(index)
                nursery.start_soon(_report, seat, index)


async def _report(seat: Seat, index: int) -> None:
    """See the deposit of one seller burned; this node sends the evidence if it has the turn."""
    key = f"{seat.job_id}/{index}"
    sellers = seat.job.sellers
    if index >= len(sellers):  # a reorganisation took the enrolment back
        return
    found = seat.room.equivocations[index]
    await seat.ports.store.journal.remember(KIND, key, _encode(found))
    seller = sellers[index].account
    evidence = found.as_evidence(seller)
    call = ReportEquivocation(
        job=evidence.job,
        round_index=evidence.round_index,
        seller=seller,
        first=(evidence.first.commitment, evidence.first.signature),
        second=(evidence.second.commitment, evidence.second.signature),
    )

    def is_done() -> bool:
        deposit = seat.job.deposits.get(seller)
        return deposit is not None and deposit.status is not DepositStatus.HELD

    await take_turn(
        seat.ports.chain,
        Turn(seat.head, seat.rank(index), len(seat.pool)),
        is_done=is_done,
        act=lambda: seat.ports.chain.submit(call, key=f"report-equivocation/{key}"),
    )


def _encode(found: Equivocation) -> bytes:
    return msgspec.msgpack.encode([encode_message(found.first), encode_message(found.second)])


def _decode(stored: bytes) -> Equivocation:
    first, second = map(decode_message, msgspec.msgpack.decode(stored, type=tuple[bytes, bytes]))
    if not isinstance(first, wire.UpdateCommit) or not isinstance(second, wire.UpdateCommit):
        raise InvalidMessage("the journal holds no two commitments")
    return Equivocation(first, second)
