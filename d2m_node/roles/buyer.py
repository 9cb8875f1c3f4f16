"""The buyer role: bid, serve the validation set, take the model.

A buyer's bid is journaled with its salt before its commitment is on the chain, so that it can
always be revealed. What the market owes back, `payday.py` pulls; the model is checked against the
chain before it is kept.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from d2m_node.errors import TransactionReverted, UserError
from d2m_node.model_file import encode_model_file
from d2m_node.ports import Ports, Purpose, Reference, Samples
from d2m_node.request_file import RequestFile
from d2m_node.retry import retry_transient
from d2m_node.roles.auctions import place_bid, see_auction
from d2m_node.roles.bids import (
    Wish,
    find_earlier_bid,
    find_open_auction,
    recall_bid,
    refuse_unknown_bids,
)
from d2m_node.roles.boundary import run_to_failure
from d2m_node.roles.jobs import check_place, job_in
from d2m_node.roles.post import Post
from d2m_node.roles.refusals import Objection
from d2m_node.roles.room import Room
from d2m_node.roles.rooms import OVER, Rooms
from d2m_node.roles.service import serve_jobs
from d2m_node.roles.sources import fetch, load_body
from d2m_node.roles.statements import UNSIGNED
from d2m_node.roles.transitions import (
    close_enrolment_in_turn,
    settle_in_turn,
    turn_after_pool,
)
from d2m_node.roles.turns import Turn
from d2m_node.roles.validation import FINAL_PART, SELECTION_PART, load_split
from protocol.deposits import validate_seller_deposit
from protocol.errors import InvalidParams, RuleViolation
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.model import count_parameters
from protocol.request import (
    RequestBody,
    ValidationSpec,
    compute_tag_hashes,
    encode_body,
    validate_body,
    validate_work,
)
from protocol.samples import encode_samples, validate_labels, validate_samples
from protocol.sortition import BallotKind
from protocol.terms import validate_terms
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Digest, JobId
from protocol.update import TENSOR_HEADER_BYTES, TensorKind, decode_tensor
from protocol.validation_set import compute_validation_root, encode_part, select_part
from protocol.windows import validate_windows
from protocol.wire import messages as wire

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 60.0
NO_JOB = JobId(0)
NUMBER_TAKEN = "number taken"
"""The market's word for an auction that another one came before."""
OUTBID = "raise too small"
"""The market's word for a bid in the clear that another one came before."""


class BuyerDesk:
    """Takes the operator's requests and hands out the models they paid for."""

    def __init__(self, ports: Ports, known_bids: Collection[int] = ()) -> None:
        """``known_bids`` are auctions with bids that the journal need not know."""
        self._ports = ports
        self._known_bids = known_bids
        self._lock = trio.Lock()
        self._pending = 0
        self._idle = trio.Event()
        self._idle.set()

    def is_idle(self) -> bool:
        """Tell whether no request is being taken: else a bid may yet be placed."""
        return self._pending == 0

    async def wait_idle(self) -> None:
        """Return when no request is being taken."""
        await self._idle.wait()

    async def submit(self, request: RequestFile, *, idempotency_key: str) -> JobId:
        """Open an auction for a request, or join the one that is open for its tags.

        The same ``idempotency_key`` never bids twice, across restarts too.

        Raises
        ------
        UserError
            If the market would not take the terms, or the validation set does not fit; or the
            chain has bids of this account that the journal does not know.
        TransactionReverted
            If the market refuses the bid.
        """
        self._pending += 1
        if self._pending == 1:
            self._idle = trio.Event()
        try:
            return await self._submit(request, idempotency_key)
        finally:
            self._pending -= 1
            if self._pending == 0:
                self._idle.set()

    async def _submit(self, request: RequestFile, idempotency_key: str) -> JobId:
        async with self._lock:
            journal = self._ports.store.journal
            placed = await journal.recall("bid-placed", idempotency_key)
            if placed is not None:
                return JobId(int.from_bytes(placed, "big"))
            await refuse_unknown_bids(self._ports, self._known_bids)
            currency = self._find_currency(request)
            self._check_terms(request)
            samples = await self._ports.datasets.load_samples(request.validation_dataset)
            # The same request has the same body after a crash, so that its bid is found again.
            seed = await journal.recall("request-seed", idempotency_key)
            body = self._make_body(request, samples, seed or secrets.token_bytes(32))
            await journal.remember("request-seed", idempotency_key, body.initial_seed)
            reference = Reference(Purpose.OWN_REQUEST, NO_JOB)
            body_hash = await self._ports.store.blobs.put(encode_body(body), reference)
            job_id = await self._place_after_races(request, body_hash, currency)
            await journal.remember("bid-placed", idempotency_key, job_id.to_bytes(8, "big"))
            return job_id

    def _find_currency(self, request: RequestFile) -> Address:
        token = self._ports.chain.params.token
        if not request.is_in_token:
            return NO_ACCOUNT
        if token == NO_ACCOUNT:
            raise UserError('auction.currency: this market has no token; use "ether"')
        return token

    def _check_terms(self, request: RequestFile) -> None:
        """Refuse terms that could not be revealed, or that no node would serve.

        A sealed bid that cannot be revealed would lose its forfeit.
        """
        params, state, terms = self._ports.chain.params, self._ports.chain.state, request.terms
        try:
            validate_terms(terms, params.term_limits)
            validate_windows(terms, params.seed_delay_blocks)
            validate_seller_deposit(terms, request.bid_wei, params)
        except InvalidParams as exc:
            raise UserError(f"terms.{exc}") from exc
        datasets = state.count_datasets(compute_tag_hashes(list(request.tags)))
        if terms.sellers_min > datasets:
            reason = f"is {terms.sellers_min}; datasets with these tags: {datasets}"
            raise UserError(f"terms.sellers_min: {reason}")
        if terms.cones_min > len(state.stakes):
            reason = f"is {terms.cones_min}; accounts with a stake: {len(state.stakes)}"
            raise UserError(f"terms.cones_min: {reason}")

    def _make_body(
        self, request: RequestFile, samples: Samples, initial_seed: bytes
    ) -> RequestBody:
        """Return the request's body, if nodes would take it."""
        try:
            validate_samples(request.model, samples.inputs)
            validate_labels(request.model, samples.labels)
        except RuleViolation as exc:
            raise UserError(f"validation.dataset does not fit the model: {exc}") from exc
        body = RequestBody(
            tags=sorted(request.tags),
            model=request.model,
            initial_seed=initial_seed,
            training=request.training,
            sampling=request.sampling,
            validation=ValidationSpec(
                root=compute_validation_root(encode_samples(samples.inputs), samples.labels),
                sample_count=len(samples.inputs),
                final_count=request.validation_final_count,
                subset_count=request.validation_subset_count,
            ),
        )
        try:
            validate_body(body)
            validate_work(body, request.terms.sellers_per_round)
        except InvalidParams as exc:
            raise UserError(str(exc)) from exc
        return body

    async def _place_after_races(
        self, request: RequestFile, body_hash: Digest, currency: Address
    ) -> JobId:
        """Bid; if another bid or auction came first, look again and join or open the next."""
        chain = self._ports.chain
        refused: set[JobId] = set()
        while True:
            job_id, is_placed = await self._choose_auction(request, body_hash, currency, refused)
            if is_placed:
                return job_id
            try:
                await place_bid(self._ports, request, body_hash, job_id, currency)
            except TransactionReverted as refusal:
                if NUMBER_TAKEN in refusal.reason:
                    refused.add(job_id)
                elif OUTBID not in refusal.reason:
                    raise
                log.info("bid_came_late", job=job_id, reason=refusal.reason)
                await chain.wait_block(BlockNumber(chain.state.block_number + 1))
            else:
                log.info("bid_placed", job=job_id)
                return job_id

    async def _choose_auction(
        self, request: RequestFile, body_hash: Digest, currency: Address, refused: set[JobId]
    ) -> tuple[JobId, bool]:
        """Return the auction to bid in, and whether this request's bid is there already.

        A bid that was on its way when the node stopped goes on under its key, never beside it.
        """
        earlier = await find_earlier_bid(self._ports, body_hash, refused)
        if earlier is not None:
            return earlier
        chain = self._ports.chain
        wish = Wish(
            tags=compute_tag_hashes(list(request.tags)),
            mode=request.mode,
            currency=currency,
            amount_wei=request.bid_wei,
            terms=request.terms,
            bidder=self._ports.signer.address,
        )
        joined = find_open_auction(chain.state, wish)
        return JobId(len(chain.state.jobs) + 1) if joined is None else joined.job_id, False

    async def model(self, job_id: JobId) -> bytes | None:
        """Return a delivered model as a safetensors file, or None if there is none (yet).

        Raises UserError if it was delivered, and the disk has lost it.
        """
        digest = await self._ports.store.journal.recall("model", str(job_id))
        if digest is None:
            return None
        file = await self._ports.store.blobs.get(Digest(digest))
        if file is None:
            raise UserError(
                f"job {job_id}: the model was delivered, and its file is damaged or gone; restart"
                " the node with the buyer role on, and it is fetched from the job's CONE nodes"
            )
        return file


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
    await serve_jobs(post, interest, partial(_follow_bid, post), is_idle=desk.is_idle)


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

    if job().phase in OVER and await _is_delivered(ports, job_id):
        return
    room = await rooms.enter(job_id)
    await close_enrolment_in_turn(chain, job, turn_from)
    if job().phase is JobPhase.CANCELLED:
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle_in_turn, chain, job, turn_from)
        await _serve_job(ports, room)


async def _serve_job(ports: Ports, room: Room) -> None:
    """Serve the validation set for as long as the job runs; then take the model."""
    chain = ports.chain
    bid = await recall_bid(ports, room.job)
    body = await load_body(ports, room.job)
    samples = await ports.datasets.load_samples(bid.dataset_path)
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


async def _is_delivered(ports: Ports, job_id: JobId) -> bool:
    """Tell whether the model is here; one that the disk has lost is fetched again."""
    digest = await ports.store.journal.recall("model", str(job_id))
    return digest is not None and await ports.store.blobs.get(Digest(digest)) is not None


async def _take_model(ports: Ports, job: JobState, body: RequestBody) -> None:
    """Fetch the final parameters by the digest on chain, and keep them as a model file."""
    assert job.ended is not None
    size = count_parameters(body.model)
    data = await fetch(
        ports,
        job.ended.model_digest,
        [cone.account for cone in job.cones],
        max_bytes=TENSOR_HEADER_BYTES + 4 * size,
        reference=Reference(Purpose.STATE, job.job_id),
    )
    parameters = decode_tensor(data, TensorKind.PARAMETERS, size)
    file = encode_model_file(
        parameters, domain=ports.chain.domain, job=job.job_id, model=body.model
    )
    digest = await ports.store.blobs.put(file, Reference(Purpose.MODEL, job.job_id))
    await ports.store.journal.remember("model", str(job.job_id), digest)
    log.info("model_delivered", digest=job.ended.model_digest.hex())
