"""The buyer role: bid, serve the validation set, take the model.

A buyer's bid is journaled with its salt before its commitment is on the chain, so that it can
always be revealed. What the market owes back, `payday.py` pulls; the model is checked against the
chain before it is kept.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from d2m_node.errors import DataMismatch, UserError
from d2m_node.lookup import each_past_job
from d2m_node.model_file import encode_model_file
from d2m_node.offload import offload
from d2m_node.past_jobs import Tie
from d2m_node.ports import Ports, Purpose, Reference, Samples
from d2m_node.retry import retry_transient
from d2m_node.roles.auctions import see_auction
from d2m_node.roles.bids import (
    recall_bid,
)
from d2m_node.roles.boundary import run_to_failure
from d2m_node.roles.delivery import is_delivered, keep_model
from d2m_node.roles.desk import BuyerDesk
from d2m_node.roles.jobs import check_closed, check_place, job_in
from d2m_node.roles.post import Post
from d2m_node.roles.refusals import Objection
from d2m_node.roles.room import Room
from d2m_node.roles.rooms import OVER, Rooms
from d2m_node.roles.service import serve_jobs
from d2m_node.roles.sources import fetch_result, load_body
from d2m_node.roles.statements import UNSIGNED
from d2m_node.roles.transitions import (
    close_enrolment_in_turn,
    settle_in_turn,
    stand_in_for_pool,
    turn_after_pool,
)
from d2m_node.roles.turns import Turn
from d2m_node.roles.validation import FINAL_PART, SELECTION_PART, load_split
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.request import ModelAccess, RequestBody
from protocol.samples import encode_samples
from protocol.sortition import BallotKind
from protocol.types import Address, JobId
from protocol.validation_set import compute_validation_root, encode_part, select_part
from protocol.wire import messages as wire

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Interest:
    """Every auction in which this account bid. A buyer joins none on its own."""

    account: Address

    def is_bound(self, state: MarketState, job: JobState) -> bool:  # noqa: ARG002
        """Tell whether this account bid."""
        return self.account in job.bids

    def is_offered(self, state: MarketState, job: JobState) -> bool:  # noqa: ARG002
        """Tell that nothing is taken without the operator's word."""
        return False

    def find_objection(
        self,
        state: MarketState,  # noqa: ARG002
        job: JobState,  # noqa: ARG002
        at_work: Collection[JobId],  # noqa: ARG002
    ) -> Objection | None:
        """Return None: nothing is offered."""
        return None


async def run_buyer(
    post: Post,
    desk: BuyerDesk,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Follow every bid of this account to its end, until cancelled or drained.

    A buyer that drains leaves when its jobs are delivered, and no bid is on its way any more.
    """
    task_status.started()
    interest = _Interest(post.ports.signer.address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_take_missed_models, post)
        await serve_jobs(post, interest, partial(_follow_bid, post), is_idle=desk.is_idle)


async def _take_missed_models(post: Post) -> None:
    """Take the models of jobs that ended so long ago that they are past already."""
    ports = post.ports
    async with trio.open_nursery() as nursery:
        async for job in each_past_job(ports.chain.state, ports.store, (Tie.BUYER,)):
            is_made = job.ended is not None and job.decided_rounds
            if is_made and not await is_delivered(ports, job.job_id):
                nursery.start_soon(_take_missed_model, post, job)


async def _take_missed_model(post: Post, job: JobState) -> None:
    async def work() -> None:
        body = await load_body(post.ports, job)
        await retry_transient(
            lambda: _take_model(post.ports, job, body), patience_seconds=PATIENCE_SECONDS
        )

    await run_to_failure(post, job.job_id, work)


async def _follow_bid(post: Post, job_id: JobId) -> None:
    ports = post.ports

    async def work() -> None:
        await see_auction(ports, job_id)
        if job_in(ports.chain.state, job_id).buyer == ports.signer.address:
            await _see_job(ports, post.rooms, job_id)

    await run_to_failure(post, job_id, work)


async def _see_job(ports: Ports, rooms: Rooms, job_id: JobId) -> None:
    """See the job's enrolment closed, serve it while it runs, and see it settled."""
    chain, me = ports.chain, ports.signer.address

    def job() -> JobState:
        """Return the job; raise if a reorganisation took it, or its auction's close, back."""
        found = job_in(chain.state, job_id)
        return check_place(found, is_held=found.buyer == me)

    def turn_from(block: int) -> Turn:
        return turn_after_pool(job(), me, block)

    if job().phase in OVER and await is_delivered(ports, job_id):
        return
    room = await rooms.enter(job_id)
    await close_enrolment_in_turn(chain, job, turn_from)
    if job().phase is JobPhase.CANCELLED:
        return

    def closed_job() -> JobState:
        """Return the job; raise too if a reorganisation took the end of its enrolment back.

        Then this starts again: if nobody applies on the new branch, only the buyer closes it.
        """
        return check_closed(job())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_in_for_pool, chain, closed_job, turn_from)
        nursery.start_soon(settle_in_turn, chain, closed_job, turn_from)
        await _serve_job(ports, room)


async def _serve_job(ports: Ports, room: Room) -> None:
    """Serve the validation set for as long as the job runs; then take the model."""
    chain = ports.chain
    bid = await recall_bid(ports, room.job)
    body = await load_body(ports, room.job)
    samples = await _load_promised(ports, room.job, body, bid.dataset_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_part, ports, room, samples, body, SELECTION_PART)
        await chain.wait_for(lambda state: _is_final_or_over(room, state))
        if not _is_over(room, chain.state):
            nursery.start_soon(_serve_part, ports, room, samples, body, FINAL_PART)
        await chain.wait_for(lambda state: True if _is_over(room, state) else None)
        nursery.cancel_scope.cancel()
    job = room.job
    if job.ended is not None and job.decided_rounds:
        await retry_transient(
            lambda: _take_model(ports, job, body), patience_seconds=PATIENCE_SECONDS
        )


async def _load_promised(ports: Ports, job: JobState, body: RequestBody, path: str) -> Samples:
    """Load the validation set, if it is still the one that was bid with.

    Raises DataMismatch: what no CONE node could check would be served in vain, and a job whose
    buyer serves nothing is paid for.
    """
    mend = "put it back, then disable and enable the buyer role"
    try:
        samples = await ports.datasets.load_samples(path)
    except UserError as error:
        raise DataMismatch(job.job_id, f"{error}; {mend}") from error
    rows = encode_samples(samples.inputs)
    if await offload(compute_validation_root, rows, samples.labels) != body.validation.root:
        reason = f"{path} is not the validation set that this job was bid with"
        raise DataMismatch(job.job_id, f"{reason}; {mend}")
    return samples


def _is_over(room: Room, state: MarketState) -> bool:
    job = room.job
    return job.phase in OVER or job.is_training_over(state.block_number)


def _is_final_or_over(room: Room, state: MarketState) -> bool | None:
    ballot = room.job.ballot
    is_final = ballot is not None and ballot.kind is BallotKind.FINAL
    return True if is_final or _is_over(room, state) else None


async def _serve_part(
    ports: Ports, room: Room, samples: Samples, body: RequestBody, part: int
) -> None:
    """Cut one part by the chain's draw, let the pool fetch it, and offer it until cancelled."""
    split = await load_split(ports.chain, room.job, body)
    indices = split.selection if part == SELECTION_PART else split.final
    data = encode_part(select_part(encode_samples(samples.inputs), samples.labels, indices))
    digest = await ports.store.blobs.put(data, Reference(Purpose.VALIDATION, room.job.job_id))
    await room.sign_and_publish(
        wire.ValidationOffer(
            job_id=room.job.job_id,
            part=part,
            digest=digest,
            size_bytes=len(data),
            signature=UNSIGNED,
        )
    )
    log.info("validation_part_offered", part=part, size_bytes=len(data))


async def _take_model(ports: Ports, job: JobState, body: RequestBody) -> None:
    """Fetch the final parameters by the digest on chain, and keep them as a model file."""
    assert job.ended is not None
    parameters = await fetch_result(ports, job, body)
    file = encode_model_file(
        parameters, domain=ports.chain.domain, job=job.job_id, model=body.model
    )
    is_sealed = body.model_access is ModelAccess.BUYER_ONLY
    await keep_model(ports, job.job_id, file, is_sealed=is_sealed)
    log.info("model_delivered", digest=job.ended.model_digest.hex())
