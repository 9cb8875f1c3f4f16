"""The validation set at a CONE node: fetched from the buyer in proven parts, and receipted."""

from dataclasses import dataclass

import structlog
import trio

from d2m_node.calls import SubmitReceipts
from d2m_node.errors import PeerUnreachable
from d2m_node.offload import offload
from d2m_node.ports import ChainPort, Purpose, Reference
from d2m_node.roles.jobs import buyer_of
from d2m_node.roles.seat import Seat
from d2m_node.roles.sources import fetch
from d2m_node.roles.statements import UNSIGNED
from d2m_node.roles.turns import SILENCE_BLOCKS, Statement, Window, land, wait_block_or
from protocol.bitmap import decode_bitmap
from protocol.errors import ProtocolError
from protocol.job import JobState
from protocol.request import RequestBody
from protocol.samples import count_sample_bytes
from protocol.signatures import compact
from protocol.sortition import compute_fin_seed
from protocol.types import BlockNumber, Digest
from protocol.validation_set import (
    ValidationPart,
    ValidationSplit,
    bound_part_bytes,
    decode_part,
    split_validation_set,
    validate_part_contents,
    verify_part,
)
from protocol.wire import messages as wire

log = structlog.get_logger(__name__)

SELECTION_PART = 0
FINAL_PART = 1
MAX_PART_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class HeldPart:
    """A part of the validation set, proven, and the hash it is stored under."""

    part: ValidationPart
    digest: Digest


async def load_split(chain: ChainPort, job: JobState, body: RequestBody) -> ValidationSplit:
    """Draw which samples are kept for the final evaluation, by the chain's word (MECHANISM 12)."""
    seed_block = BlockNumber(job.enrolment_end + chain.params.seed_delay_blocks)
    await chain.wait_block(seed_block)
    randomness = await chain.read_randomness(seed_block)
    seed = compute_fin_seed(chain.domain, job.job_id, randomness)
    return split_validation_set(seed, body.validation.sample_count, body.validation.final_count)


async def obtain_part(seat: Seat, split: ValidationSplit, part: int) -> HeldPart:
    """Fetch one part from the buyer, check every sample of it, keep and serve it.

    Waits for as long as the buyer does not offer a valid one; the caller bounds the wait.
    """
    indices = split.selection if part == SELECTION_PART else split.final
    buyer = buyer_of(seat.job)
    request = wire.MessagesRequest(job_id=seat.job_id, kind=6, step=part)
    while True:
        offers = seat.room.heard(wire.ValidationOffer, part)
        if 0 not in offers:
            await seat.room.pull([buyer], request)
            offers = seat.room.heard(wire.ValidationOffer, part)
        if 0 in offers and (held := await _fetch_part(seat, offers[0], indices)) is not None:
            return held
        # Nothing valid yet: ask again after the next block.
        await seat.ports.chain.wait_block(BlockNumber(seat.head + 1))


async def _fetch_part(
    seat: Seat, offer: wire.ValidationOffer, indices: tuple[int, ...]
) -> HeldPart | None:
    digest = Digest(offer.digest)
    buyer = buyer_of(seat.job)
    reference = Reference(Purpose.VALIDATION, seat.job_id)
    sample_bytes = count_sample_bytes(seat.body.model)
    most = bound_part_bytes(seat.body.validation.sample_count, sample_bytes)
    try:
        data = await fetch(
            seat.ports,
            digest,
            [buyer, *seat.pool],
            max_bytes=min(offer.size_bytes, most),
            reference=reference,
        )
        part = await offload(_check_part, data, seat.body, indices)
    except PeerUnreachable as error:
        log.info("validation_fetch_failed", part=offer.part, error=str(error))
        return None
    except ProtocolError as error:
        # An offer is final. Without a receipt the job ends at its buyer's cost.
        log.warning("validation_part_refused", part=offer.part, error=str(error))
        await trio.sleep_forever()
    return HeldPart(part, digest)


def _check_part(data: bytes, body: RequestBody, indices: tuple[int, ...]) -> ValidationPart:
    part = decode_part(data)
    verify_part(part, Digest(body.validation.root))
    validate_part_contents(part, indices, body.model)
    return part


async def give_receipt(seat: Seat, part: int, deadline: BlockNumber) -> None:
    """Sign that this node holds a part, and see the receipt on record at ``deadline``.

    The receipts of the whole pool go on record as soon as all are heard. Those of a part of it wait
    for the others, and leave room for a reorganisation that takes them back.
    """
    await seat.room.sign_and_publish(
        wire.ValidationReceipt(
            job_id=seat.job_id, part=part, cone_index=seat.index, signature=UNSIGNED
        )
    )

    def unrecorded() -> dict[int, wire.ValidationReceipt]:
        recorded = decode_bitmap(seat.job.receipts.get(part, 0))
        heard = seat.room.heard(wire.ValidationReceipt, part)
        return {index: one for index, one in heard.items() if index not in recorded}

    def is_missing() -> bool:
        return seat.index in unrecorded()

    def is_ready() -> bool:
        heard = seat.room.heard(wire.ValidationReceipt, part)
        return len(heard) == len(seat.pool) or not is_missing()

    def rank() -> int:
        return sorted(unrecorded(), key=lambda i: (i - seat.job_id) % 256).index(seat.index)

    async def gather() -> None:
        """Ask nobody: the window is short, and in the end each node records its own receipt."""

    async def send() -> None:
        entries = tuple((index, *compact(one.signature)) for index, one in unrecorded().items())
        call = SubmitReceipts(job=seat.job_id, part=part, entries=entries)
        await seat.ports.chain.submit(call, key=f"receipts/{seat.job_id}/{part}/{seat.head}")

    chain, call_end = seat.ports.chain, seat.call_end(deadline)
    await wait_block_or(chain, call_end - seat.lag_blocks - SILENCE_BLOCKS, is_ready)
    while seat.head < call_end:
        await land(
            chain,
            Window(seat.head, call_end, seat.lag_blocks),
            Statement(is_recorded=lambda: not is_missing(), gather=gather, rank=rank, send=send),
        )
        # It is recorded, and a reorganisation may take it back. Or the window is almost over.
        await chain.wait_block(BlockNumber(seat.head + 1))
        await wait_block_or(chain, call_end, is_missing)


class Parts:
    """The parts of the validation set, obtained in the background, waited for by the ballots."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._held: dict[int, HeldPart] = {}
        self._arrived = {SELECTION_PART: trio.Event(), FINAL_PART: trio.Event()}
        self._asked: set[int] = set()

    async def obtain(self, part: int, deadline: BlockNumber) -> None:
        """Fetch a part once, and give the receipt for it by ``deadline``, if there is none yet.

        Every ballot that needs the part asks for both: the one before may have been closed with no
        receipt recorded, by a call of the whole pool to the decision that led to it.
        """
        seat = self._seat
        if part not in self._asked:
            self._asked.add(part)
            split = await load_split(seat.ports.chain, seat.job, seat.body)
            self._held[part] = await obtain_part(seat, split, part)
            self._arrived[part].set()
        await self._arrived[part].wait()
        if seat.index not in decode_bitmap(seat.job.receipts.get(part, 0)):
            await give_receipt(seat, part, deadline)

    async def wait(self, part: int) -> HeldPart:
        """Return a part when it is here."""
        await self._arrived[part].wait()
        return self._held[part]
