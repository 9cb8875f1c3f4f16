"""The seller role: register, enrol, train on local data, offer updates.

The data never leaves the node; what leaves it is one signed, committed and quantised update for
each round that it is sampled for, and only to the job's CONE nodes. It never offers two updates
for one round, across crashes too.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from d2m_node.calls import EnrolSeller, RegisterDataset
from d2m_node.errors import DataMismatch, UserError
from d2m_node.logs import log_scope
from d2m_node.ports import Ports, Samples, TrainerPort
from d2m_node.privacy_ledger import PrivacyLedger
from d2m_node.retry import retry_transient
from d2m_node.roles.allowances import allow_taking
from d2m_node.roles.boundary import run_to_failure
from d2m_node.roles.jobs import check_place, job_in, terms_of
from d2m_node.roles.offers import Stall, offer_update, recall_offer
from d2m_node.roles.payday import find_deposit
from d2m_node.roles.policies import SellerPolicy, carries_tags, is_enrolling
from d2m_node.roles.post import Post
from d2m_node.roles.privacy import open_ledger, promise_privacy
from d2m_node.roles.refusals import Objection
from d2m_node.roles.room_need import estimate_seller_bytes, set_room_aside
from d2m_node.roles.rooms import OVER
from d2m_node.roles.service import serve_jobs
from d2m_node.roles.sources import load_body
from d2m_node.roles.transitions import (
    close_enrolment_in_turn,
    settle_in_turn,
    stand_in_for_pool,
    turn_after_pool,
)
from d2m_node.roles.turns import Turn
from protocol.ballot import Ballot
from protocol.deposits import compute_seller_deposit
from protocol.errors import RuleViolation
from protocol.hashing import keccak
from protocol.job import JobPhase, JobState
from protocol.market import Dataset, MarketState
from protocol.request import RequestBody, compute_tag_hashes
from protocol.samples import validate_labels, validate_samples
from protocol.sortition import BallotKind
from protocol.types import BlockNumber, Digest, JobId

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What a seller brings to every job."""

    post: Post
    policy: SellerPolicy
    trainer: TrainerPort
    samples: Samples
    tags: tuple[Digest, ...]
    """Of the data, whether sold under or not."""
    dataset: Dataset
    ledger: PrivacyLedger | None

    def is_bound(self, state: MarketState, job: JobState) -> bool:  # noqa: ARG002
        """Tell whether this seller applied, and the job runs with it or may yet."""
        me = self.post.ports.signer.address
        if job.phase in OVER:  # most jobs of a market that is old
            return False
        return job.has_seller_applied(me) and not job.is_seller_left_out(me)

    def is_offered(self, state: MarketState, job: JobState) -> bool:
        """Tell whether one can apply with these data."""
        return is_enrolling(state, job) and carries_tags(job, self.tags)

    def find_objection(
        self,
        state: MarketState,  # noqa: ARG002
        job: JobState,
        at_work: Collection[JobId],
    ) -> Objection | None:
        """Ask the policy."""
        params = self.post.ports.chain.params
        return self.policy.find_objection(job, self.dataset, params, at_work)


async def run_seller(
    post: Post,
    policy: SellerPolicy,
    trainer: TrainerPort,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve every job whose tags the dataset carries, until cancelled or drained."""
    ports = post.ports
    samples = await ports.datasets.load_samples(policy.dataset_path)
    tags = await ports.datasets.load_tags(policy.dataset_path)
    shop = Shop(
        post=post,
        policy=policy,
        trainer=trainer,
        samples=samples,
        tags=compute_tag_hashes(list(tags)),
        ledger=await open_ledger(ports, policy.privacy, trainer, samples),
        dataset=await _register(ports, policy, tags),
    )
    task_status.started()
    while True:
        await serve_jobs(post, shop, partial(_serve_job, shop))
        if await _wait_deposits(post):
            return


async def _wait_deposits(post: Post) -> bool:
    """Return True when the jobs that are over hold no deposit of this account any more.

    Payday pulls them. False if the drain was undone meanwhile.
    """
    me = post.ports.signer.address

    def look(state: MarketState) -> bool | None:
        if not post.shift.is_draining:
            return False
        return True if find_deposit(state, me) is None else None

    return await post.ports.chain.wait_for(look)


def _choose_tags(policy: SellerPolicy, carried: tuple[str, ...]) -> tuple[Digest, ...]:
    """Return the hashes of the tags that the data are sold under. Raises UserError."""
    unknown = sorted(set(policy.tags) - set(carried))
    if unknown:
        raise UserError(
            f"roles.seller.tags: {unknown[0]!r} is no tag of {policy.dataset_path}; "
            f"it has {', '.join(carried)}"
        )
    return compute_tag_hashes(list(policy.tags or carried))


async def _register(ports: Ports, policy: SellerPolicy, carried: tuple[str, ...]) -> Dataset:
    """Return this account's dataset entry on chain, made if there is none of these tags and prices.

    An entry never changes: with other prices it is another one.
    """
    me = ports.signer.address
    tags = _choose_tags(policy, carried)
    limits = policy.limits
    wanted = (me, tags, limits.min_price_wei, limits.min_price_token)

    def find(state: MarketState) -> Dataset | None:
        own = (
            one
            for one in state.datasets.values()
            if (one.seller, one.tags, one.min_price_wei, one.min_price_token) == wanted
        )
        return next(own, None)

    if find(ports.chain.state) is None:
        metadata_hash = keccak(b"".join(tags))
        call = RegisterDataset(
            tags=tags,
            metadata_hash=metadata_hash,
            min_price_wei=limits.min_price_wei,
            min_price_token=limits.min_price_token,
        )
        prices = f"{limits.min_price_wei}/{limits.min_price_token}"
        await ports.chain.submit(call, key=f"register-dataset/{metadata_hash.hex()}/{prices}")
    return await ports.chain.wait_for(find)


async def _serve_job(shop: Shop, job_id: JobId) -> None:
    async def work() -> None:
        stall = await _take_stall(shop, job_id)
        if stall is not None:
            await _run_job(stall)

    await run_to_failure(shop.post, job_id, work)


async def _take_stall(shop: Shop, job_id: JobId) -> Stall | None:
    """Read the request, apply for the job, and wait for a place in it.

    Returns None if there is no privacy or room left for it, if the job is cancelled, or if the draw
    leaves this seller out: a deposit can be had back then, and there is nothing more to do.
    """
    post, ports = shop.post, shop.post.ports
    chain, me = ports.chain, ports.signer.address
    job = job_in(chain.state, job_id)
    body = await retry_transient(lambda: load_body(ports, job), patience_seconds=PATIENCE_SECONDS)
    try:
        validate_samples(body.model, shop.samples.inputs)
        validate_labels(body.model, shop.samples.labels)
    except RuleViolation as error:
        reason = f"{shop.policy.dataset_path} does not fit the request: {error}"
        raise DataMismatch(job_id, f"{reason}; sell other data under these tags") from error
    if not post.shift.takes_jobs and not job.has_seller_applied(me):
        return None
    objection = await _set_aside(shop, job, body)
    if objection is not None:
        await post.refusals.note(job_id, objection, chain.state.block_number)
        return None
    if not job.has_seller_applied(me):
        await _apply(shop, job)
    await chain.wait_for(lambda state: job_in(state, job_id).has_seller_applied(me) or None)
    log.info("seller_applied")
    room = await post.rooms.enter(job_id)
    await close_enrolment_in_turn(
        chain,
        lambda: job_in(chain.state, job_id),
        lambda block: turn_after_pool(job_in(chain.state, job_id), me, block),
    )
    job = job_in(chain.state, job_id)
    index = job.seller_index(me)
    if index is None:
        check_place(job, is_held=job.phase is JobPhase.CANCELLED or job.is_seller_left_out(me))
        log.info("seller_not_in_job", phase=job.phase.value)
        return None
    log.info("seller_enrolled", index=index)
    return Stall(
        ports=ports,
        room=room,
        shift=post.shift,
        job_id=job_id,
        body=body,
        index=index,
        samples=shop.samples,
        trainer=shop.trainer,
        ledger=shop.ledger,
    )


async def _set_aside(shop: Shop, job: JobState, body: RequestBody) -> Objection | None:
    """Set privacy and room aside for a job, or say of which there is not enough."""
    ports, objection = shop.post.ports, None
    if shop.ledger is not None:
        objection = await promise_privacy(shop.ledger, job, body, len(shop.samples.labels))
    if objection is None and not job.has_seller_applied(ports.signer.address):
        need = estimate_seller_bytes(body, terms_of(job))
        objection = await set_room_aside(ports, job.job_id, need)
    return objection


async def _apply(shop: Shop, job: JobState) -> None:
    """Apply for a place with the deposit that the job asks for."""
    chain, terms = shop.post.ports.chain, terms_of(job)
    deposit_wei = compute_seller_deposit(terms, job.price_wei, chain.params)
    key = f"enrol-seller/{job.job_id}"
    value_wei = await allow_taking(chain, job.currency, "SellerDeposits", deposit_wei, key=key)
    call = EnrolSeller(
        job=job.job_id,
        terms=terms,
        dataset_id=shop.dataset.dataset_id,
        permits=(),
        value_wei=value_wei,
    )
    await chain.submit(call, key=key)


async def _run_job(stall: Stall) -> None:
    """Offer updates until training has ended, and see the job settled."""
    chain, me = stall.ports.chain, stall.ports.signer.address

    def turn_from(block: int) -> Turn:
        return turn_after_pool(stall.job, me, block)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_in_for_pool, chain, lambda: stall.job, turn_from)
        await _offer_updates(stall)
    await settle_in_turn(chain, lambda: stall.job, turn_from)


async def _offer_updates(stall: Stall) -> None:
    """Offer an update in each round this seller is sampled for; none in a round after a drain."""
    chain = stall.ports.chain
    last_seed = BlockNumber(0)
    while True:
        found: Ballot | JobPhase = await chain.wait_for(partial(_next_round, stall, last_seed))
        if isinstance(found, JobPhase):
            return
        last_seed = found.seller_seed_block
        with log_scope(round_index=found.round_index):
            if stall.shift.is_draining and await recall_offer(stall, found) is None:
                log.info("round_left_out")
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(offer_update, stall, found)
                await chain.wait_for(partial(_is_closed, stall, found))
                nursery.cancel_scope.cancel()


def _next_round(stall: Stall, last: BlockNumber, state: MarketState) -> Ballot | JobPhase | None:
    """Return the next round that asks for updates, or the phase once there can be none.

    A round is known by the block of its sellers' seed: retries keep it, and a round that is
    opened again after its predecessor was checked has another one. So has one of another branch of
    the chain, and there it may be an earlier one.
    """
    job = job_in(state, stall.job_id)
    if job.phase in OVER or job.is_training_over(state.block_number):
        return job.phase
    ballot = job.ballot
    is_next = (
        ballot is not None and ballot.kind is BallotKind.ROUND and ballot.seller_seed_block != last
    )
    return ballot if is_next else None


def _is_closed(stall: Stall, ballot: Ballot, state: MarketState) -> bool | None:
    job = job_in(state, stall.job_id)
    is_open = (
        job.phase is JobPhase.TRAINING
        and job.ballot is not None
        and job.ballot.seller_seed_block == ballot.seller_seed_block
        and job.ballot.kind is BallotKind.ROUND
    )
    return None if is_open else True
