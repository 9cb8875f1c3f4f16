"""The inputs of a round at a CONE node: updates fetched, availability told, the input set read.

Source: MECHANISM 6.
"""

from dataclasses import dataclass

import msgspec
import structlog
import trio

from d2m_node.calls import LogBitmaps
from d2m_node.errors import PeerUnreachable
from d2m_node.ports import Int32Array, Purpose, Reference
from d2m_node.roles.old_copy import find_said, is_restored_since
from d2m_node.roles.seat import Seat
from d2m_node.roles.sources import fetch
from d2m_node.roles.statements import UNSIGNED, availability_step
from d2m_node.roles.turns import Statement, Window, land, wait_block_or
from protocol.ballot import Ballot
from protocol.bitmap import (
    BitmapStatement,
    compute_input_set,
    decode_bitmap,
    encode_bitmap,
    group_statements,
)
from protocol.errors import InvalidSignature, ProtocolError
from protocol.hashing import word
from protocol.model import count_parameters
from protocol.signatures import Availability, compact, expand, recover_signer
from protocol.types import Address, BlockNumber, Digest
from protocol.update import TENSOR_HEADER_BYTES, TensorKind, decode_tensor
from protocol.wire import messages as wire

log = structlog.get_logger(__name__)

COMMIT_TAG = 1
OPENING_TAG = 2
LACKING_SECONDS = 1.2


@dataclass(slots=True)
class Holdings:
    """The updates of one round that this node holds, by seller index."""

    updates: dict[int, Int32Array]
    digests: dict[int, Digest]


@dataclass(frozen=True, slots=True)
class InputSet:
    """I_t, and this node's copies of it. ``updates`` lacks what the node could not get."""

    available: int
    holdings: Holdings

    @property
    def is_complete(self) -> bool:
        """Tell whether this node holds every update of the set."""
        return set(decode_bitmap(self.available)) <= self.holdings.updates.keys()


async def collect_updates(seat: Seat, ballot: Ballot, sampled: tuple[int, ...]) -> Holdings:
    """Fetch what the sampled sellers commit to and open, until their window and one block end."""
    holdings = Holdings({}, {})
    # A retry has the deadlines of its round's first attempt: it still needs time to fetch.
    last_call = BlockNumber(
        max(ballot.update_open_end + 1, seat.call_end(ballot.availability_end) - 2)
    )

    def is_settled() -> bool:
        """Every commitment of this round is fetched; nothing more can come."""
        committed = _commits(seat, ballot).keys() - seat.equivocators
        wanted = [index for index in sampled if index in committed]
        return seat.head >= ballot.update_open_end and all(i in holdings.updates for i in wanted)

    async with trio.open_nursery() as nursery:
        for index in sampled:
            nursery.start_soon(_hold_update, seat, ballot, index, holdings)
        nursery.start_soon(_pull_at_phase_ends, seat, ballot, sampled)
        await wait_block_or(seat.ports.chain, last_call, is_settled)
        nursery.cancel_scope.cancel()
    return holdings


def _commits(seat: Seat, ballot: Ballot) -> dict[int, wire.UpdateCommit]:
    """Return the commitments that came in time."""
    return seat.room.heard_before(wire.UpdateCommit, ballot.round_index, ballot.update_commit_end)


async def _pull_at_phase_ends(seat: Seat, ballot: Ballot, sampled: tuple[int, ...]) -> None:
    sellers = seat.job.sellers
    await seat.ports.chain.wait_block(BlockNumber(ballot.update_commit_end - 1))
    absent = [i for i in sampled if i not in _commits(seat, ballot)]
    request = wire.MessagesRequest(job_id=seat.job_id, kind=COMMIT_TAG, step=ballot.round_index)
    await seat.room.pull([sellers[i].account for i in absent], request)
    await seat.ports.chain.wait_block(ballot.update_open_end)
    opened = seat.room.heard(wire.UpdateOpening, ballot.round_index)
    silent = [i for i in _commits(seat, ballot) if i not in opened]
    request = wire.MessagesRequest(job_id=seat.job_id, kind=OPENING_TAG, step=ballot.round_index)
    await seat.room.pull([sellers[i].account for i in silent], request)


async def _hold_update(seat: Seat, ballot: Ballot, index: int, holdings: Holdings) -> None:
    """Wait for one seller's opening, then fetch and check the update behind it."""
    round_index = ballot.round_index
    await seat.room.wait_until(
        lambda: (
            seat.room.said(wire.UpdateOpening, round_index, index) is not None
            and index in _commits(seat, ballot)
        )
    )
    opening = seat.room.heard(wire.UpdateOpening, round_index)[index]
    if not seat.room.opens_commitment(opening):
        log.warning("update_opening_mismatch", seller=index)
        return
    while index not in holdings.updates:
        try:
            await _fetch_update(seat, index, Digest(opening.digest), holdings)
        except PeerUnreachable as error:
            log.info("update_fetch_failed", seller=index, error=str(error))
            await seat.ports.chain.wait_block(BlockNumber(seat.head + 1))
        except ProtocolError as error:
            log.warning("update_refused", seller=index, error=str(error))
            return


async def _fetch_update(seat: Seat, index: int, digest: Digest, holdings: Holdings) -> None:
    size = count_parameters(seat.body.model)
    sources: list[Address] = [seat.job.sellers[index].account, *seat.pool]
    data = await fetch(
        seat.ports,
        digest,
        sources,
        max_bytes=TENSOR_HEADER_BYTES + 4 * size,
        reference=Reference(Purpose.UPDATE, seat.job_id),
    )
    holdings.updates[index] = decode_tensor(data, TensorKind.UPDATE, size)
    holdings.digests[index] = digest


class _LoggedBitmaps:
    """What the nodes told about one ballot by the chain; each logged bitmap is checked once."""

    def __init__(self, seat: Seat, ballot: Ballot) -> None:
        self._seat = seat
        self._ballot = ballot
        self._read: tuple[BitmapStatement, ...] = ()
        self._first: dict[int, int] = {}

    def verified(self) -> dict[int, int]:
        """Return each node's first validly signed bitmap; the contract only logs them."""
        logged = self._seat.ballot(self._ballot).bitmaps
        if logged[: len(self._read)] != self._read:  # the chain turned
            self._read, self._first = (), {}
        for one in logged[len(self._read) :]:
            if one.cone_index not in self._first and self._is_signed(one):
                self._first[one.cone_index] = one.bitmap
        self._read = logged
        return self._first

    def _is_signed(self, statement: BitmapStatement) -> bool:
        seat, pool = self._seat, self._seat.pool
        if statement.cone_index >= len(pool):
            return False
        told = Availability(
            job=seat.job_id,
            round_index=self._ballot.round_index,
            attempt=self._ballot.attempt,
            bitmap=statement.bitmap,
        )
        signature = expand(statement.r, statement.vs)
        try:
            signer = recover_signer(told.digest(seat.domain), signature)
        except InvalidSignature:
            return False
        return signer == pool[statement.cone_index]


async def agree_inputs(
    seat: Seat, ballot: Ballot, sampled: tuple[int, ...], holdings: Holdings
) -> InputSet:
    """Tell which updates this node holds, then read from the chain which ones the round uses."""
    logged = _LoggedBitmaps(seat, ballot)
    wanted = encode_bitmap(sampled)
    await _tell_availability(seat, ballot, holdings)
    await _record_lacking(seat, ballot, wanted, logged)
    await seat.ports.chain.wait_block(ballot.availability_end)
    available = compute_input_set(list(logged.verified().values()), wanted, len(seat.pool))
    lacking = [i for i in decode_bitmap(available) if i not in holdings.updates]
    if lacking:
        await _fetch_lacking(seat, ballot, lacking, holdings)
    return InputSet(available, holdings)


async def _tell_availability(seat: Seat, ballot: Ballot, holdings: Holdings) -> None:
    """Sign which updates this node holds, once, and gossip it."""
    key = f"{seat.job_id}/{ballot.ballot_number}"
    journal = seat.ports.store.journal
    if await journal.recall("availability", key) is None:
        if is_restored_since(seat.ports, ballot):
            return
        step = availability_step(ballot.round_index, ballot.attempt)
        said = await find_said(seat, ballot, wire.AvailabilityBitmap, step)
        if said is not None:  # by a life of this node that the journal does not know
            await journal.remember("availability", key, msgspec.msgpack.encode(said.bitmap))
    # An equivocator is lacking: others may hold another update of it under the same bit.
    own = msgspec.msgpack.encode(word(encode_bitmap(holdings.updates.keys() - seat.equivocators)))
    # What was signed first stays: a restarted node must not tell two stories.
    remembered = await journal.remember("availability", key, own)
    bitmap = msgspec.msgpack.decode(remembered, type=bytes)
    await seat.room.sign_and_publish(
        wire.AvailabilityBitmap(
            job_id=seat.job_id,
            round_index=ballot.round_index,
            attempt=ballot.attempt,
            cone_index=seat.index,
            bitmap=bitmap,
            signature=UNSIGNED,
        )
    )


async def _record_lacking(seat: Seat, ballot: Ballot, wanted: int, logged: _LoggedBitmaps) -> None:
    """Put on record what nodes lack, if it changes what the round uses; else nobody pays."""
    step = availability_step(ballot.round_index, ballot.attempt)
    pool_size = len(seat.pool)

    def unrecorded() -> dict[int, wire.AvailabilityBitmap]:
        """Return the statements that would change the input set, by node; none if none would."""
        # Anybody may log anything: only what its node signed counts as recorded.
        recorded = logged.verified()
        heard = seat.room.heard(wire.AvailabilityBitmap, step)
        fresh = {
            index: one
            for index, one in heard.items()
            if index not in recorded and _bitmap_of(one) & wanted != wanted
        }
        now = compute_input_set(list(recorded.values()), wanted, pool_size)
        told = [*recorded.values(), *map(_bitmap_of, fresh.values())]
        return fresh if compute_input_set(told, wanted, pool_size) != now else {}

    def rank() -> int:
        order = _order(seat, ballot, list(unrecorded()))
        return order.index(seat.index) if seat.index in order else pool_size

    async def send() -> None:
        statements = unrecorded()
        if seat.index not in statements:
            return
        groups, signatures = group_statements(
            _state(index, one) for index, one in statements.items()
        )
        call = LogBitmaps(
            job=seat.job_id,
            ballot_number=ballot.ballot_number,
            groups=groups,
            signatures=signatures,
        )
        key = f"bitmaps/{seat.job_id}/{ballot.ballot_number}/{seat.head}"
        await seat.ports.chain.submit(call, key=key)

    async def gather() -> None:
        heard = seat.room.heard(wire.AvailabilityBitmap, step)
        await seat.room.gather(wire.AvailabilityBitmap, step, seat.others(heard))

    call_end = seat.call_end(ballot.availability_end)
    await land(
        seat.ports.chain,
        Window(max(seat.head, call_end - 2), call_end),
        Statement(
            is_recorded=lambda: False,  # more may be heard until the window closes
            gather=gather,
            rank=rank,
            send=send,
            asks_last=True,  # who lacks something says so late
        ),
    )


def _bitmap_of(message: wire.AvailabilityBitmap) -> int:
    return int.from_bytes(message.bitmap, "big")


def _state(index: int, message: wire.AvailabilityBitmap) -> BitmapStatement:
    """Return a gossiped statement as it goes on record."""
    r, vs = compact(message.signature)
    return BitmapStatement(cone_index=index, bitmap=_bitmap_of(message), r=r, vs=vs)


def _order(seat: Seat, ballot: Ballot, indices: list[int]) -> list[int]:
    """Order nodes by a turn that moves with the ballot."""
    return sorted(indices, key=lambda index: seat.rank_of(index, ballot.ballot_number))


async def _fetch_lacking(
    seat: Seat, ballot: Ballot, lacking: list[int], holdings: Holdings
) -> None:
    """Ask the pool for updates that most of it holds; give up when the vote begins."""
    with trio.move_on_after(LACKING_SECONDS):
        for tag in (COMMIT_TAG, OPENING_TAG):
            request = wire.MessagesRequest(job_id=seat.job_id, kind=tag, step=ballot.round_index)
            with trio.move_on_after(LACKING_SECONDS / 4):
                await seat.room.pull(seat.pool, request)
        # A commitment that came late here came in time to most of the pool.
        opened = seat.room.heard(wire.UpdateOpening, ballot.round_index)
        for index in lacking:
            if index in opened and seat.room.opens_commitment(opened[index]):
                try:
                    await _fetch_update(seat, index, Digest(opened[index].digest), holdings)
                except (PeerUnreachable, ProtocolError) as error:
                    log.warning("input_lacking", seller=index, error=str(error))
