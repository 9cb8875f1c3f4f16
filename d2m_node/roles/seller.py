"""The seller role: register, enrol, train on local data, offer updates.

The data never leaves the node; what leaves it is one signed, committed and quantised update for
each round that it is sampled for, and only to the job's CONE nodes. It never offers two updates
for one round, across crashes too.
"""

import secrets
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog
import trio

from d2m_node.calls import EnrolSeller, RegisterDataset
from d2m_node.errors import JobFailed, PrivacyBudgetSpent
from d2m_node.logs import log_scope
from d2m_node.ports import Int32Array, Ports, Purpose, Reference, Samples, TrainerPort, TrainingTask
from d2m_node.privacy_ledger import (
    Books,
    PrivacyLedger,
    PrivacyPolicy,
    check_delta,
    compute_dataset_id,
)
from d2m_node.retry import retry_transient
from d2m_node.roles.allowances import allow_taking
from d2m_node.roles.boundary import run_to_failure
from d2m_node.roles.jobs import check_place, job_in, serve_jobs
from d2m_node.roles.room import Room
from d2m_node.roles.room_need import estimate_seller_bytes, set_room_aside
from d2m_node.roles.rooms import OVER, Rooms
from d2m_node.roles.sources import load_body, load_model_state
from d2m_node.roles.statements import UNSIGNED
from d2m_node.roles.transitions import (
    close_enrolment_in_turn,
    settle_in_turn,
    turn_after_pool,
)
from d2m_node.roles.turns import Turn
from protocol.ballot import Ballot
from protocol.deposits import compute_seller_deposit
from protocol.errors import RuleViolation
from protocol.hashing import keccak
from protocol.job import JobPhase, JobState
from protocol.market import Dataset, MarketState
from protocol.osmd import sample_sellers
from protocol.request import RequestBody, compute_tag_hashes
from protocol.samples import validate_labels, validate_samples
from protocol.sortition import BallotKind, compute_seller_seed
from protocol.types import BlockNumber, Digest, JobId, SellerIndex, Wei
from protocol.update import TensorKind, UpdateSecret, compute_update_commitment, encode_tensor
from protocol.wire import messages as wire

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SellerPolicy:
    """What this node sells, and for how much at least."""

    dataset_path: str
    min_price_wei: Wei = Wei(0)
    """Least price of a job in ether that this node enrols in."""
    min_price_token: Wei = Wei(0)
    """The same for a job in the deployment's token."""
    privacy: PrivacyPolicy | None = None
    """Trainings keep differential privacy, within a budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A seller's place in one job."""

    ports: Ports
    room: Room
    job_id: JobId
    body: RequestBody
    index: SellerIndex
    samples: Samples
    trainer: TrainerPort
    ledger: PrivacyLedger | None

    @property
    def job(self) -> JobState:
        """The job as the chain tells it now.

        Raises JobFailed, or TransientError if only this stall is gone.
        """
        job = job_in(self.ports.chain.state, self.job_id)
        is_mine = job.seller_index(self.ports.signer.address) == self.index
        return check_place(job, is_held=is_mine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What a seller brings to every job."""

    ports: Ports
    rooms: Rooms
    trainer: TrainerPort
    samples: Samples
    dataset: Dataset
    ledger: PrivacyLedger | None


class OfferedUpdate(msgspec.Struct, frozen=True, array_like=True):
    """An update as the journal holds it, before its commitment is signed."""

    digest: bytes
    salt: bytes


async def run_seller(
    ports: Ports,
    rooms: Rooms,
    policy: SellerPolicy,
    trainer: TrainerPort,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve every job whose tags the dataset carries, until cancelled."""
    samples = await ports.datasets.load_samples(policy.dataset_path)
    ledger = await _open_ledger(ports, policy, trainer, samples)
    dataset = await _register(ports, policy)
    task_status.started()
    me = ports.signer.address

    def concerns(state: MarketState, job: JobState) -> bool:
        is_open = (
            job.phase is JobPhase.ENROLMENT
            and state.block_number < job.enrolment_end
            and set(job.tags) <= set(dataset.tags)
            and job.price_wei >= dataset.min_price(job.currency)
        )
        is_mine = job.has_seller_applied(me) and not job.is_seller_left_out(me)
        return is_open or (is_mine and job.phase not in OVER)

    shop = Shop(
        ports=ports,
        rooms=rooms,
        trainer=trainer,
        samples=samples,
        dataset=dataset,
        ledger=ledger,
    )
    await serve_jobs(ports.chain, concerns, partial(_serve_job, shop))


async def _open_ledger(
    ports: Ports, policy: SellerPolicy, trainer: TrainerPort, samples: Samples
) -> PrivacyLedger | None:
    """Open the dataset's privacy ledger, if its trainings are to be private."""
    if policy.privacy is None:
        return None
    chain, me = ports.chain, ports.signer.address

    def is_over(job_id: JobId) -> bool:
        job = chain.state.jobs.get(job_id)
        return job is None or job.phase in OVER or job.is_seller_left_out(me)

    dataset = await trio.to_thread.run_sync(compute_dataset_id, samples)
    books = Books(dataset=dataset, domain=chain.domain, account=me)
    check_delta(policy.privacy, len(samples.labels))
    return PrivacyLedger(policy.privacy, books, ports.store.journal, trainer, is_over=is_over)


async def _register(ports: Ports, policy: SellerPolicy) -> Dataset:
    """Return this account's dataset entry on chain, made if there is none of these tags and prices.

    An entry never changes: with other prices it is another one.
    """
    me = ports.signer.address
    tags = compute_tag_hashes(list(await ports.datasets.load_tags(policy.dataset_path)))
    wanted = (me, tags, policy.min_price_wei, policy.min_price_token)

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
            min_price_wei=policy.min_price_wei,
            min_price_token=policy.min_price_token,
        )
        prices = f"{policy.min_price_wei}/{policy.min_price_token}"
        await ports.chain.submit(call, key=f"register-dataset/{metadata_hash.hex()}/{prices}")
    return await ports.chain.wait_for(find)


async def _serve_job(shop: Shop, job_id: JobId) -> None:
    async def work() -> None:
        stall = await _take_stall(shop, job_id)
        if stall is not None:
            await _run_job(stall)

    await run_to_failure("seller", job_id, work)


async def _take_stall(shop: Shop, job_id: JobId) -> Stall | None:
    """Read the request, apply for the job, and wait for a place in it.

    Returns None if the job is cancelled, or the draw leaves this seller out: its deposit can be
    had back then, and it has nothing more to do with the job.
    """
    ports, chain, me = shop.ports, shop.ports.chain, shop.ports.signer.address
    job = job_in(chain.state, job_id)
    body = await retry_transient(lambda: load_body(ports, job), patience_seconds=PATIENCE_SECONDS)
    try:
        validate_samples(body.model, shop.samples.inputs)
        validate_labels(body.model, shop.samples.labels)
    except RuleViolation as error:
        raise JobFailed(job_id, f"the dataset does not fit the request: {error}") from error
    await _promise_privacy(shop, job, body)
    if not job.has_seller_applied(me):
        assert job.terms is not None, "a job in enrolment has terms"
        await set_room_aside(ports, job_id, estimate_seller_bytes(body, job.terms))
        await _apply(shop, job)
    await chain.wait_for(lambda state: job_in(state, job_id).has_seller_applied(me) or None)
    log.info("seller_applied")
    room = await shop.rooms.enter(job_id)
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
        job_id=job_id,
        body=body,
        index=index,
        samples=shop.samples,
        trainer=shop.trainer,
        ledger=shop.ledger,
    )


async def _promise_privacy(shop: Shop, job: JobState, body: RequestBody) -> None:
    """Set aside what all rounds of a job may tell of the data.

    Raises JobFailed if the dataset's budget does not allow that: nothing is signed then.
    """
    if shop.ledger is None:
        return
    assert job.terms is not None, "a job has terms once its auction is closed"
    try:
        await shop.ledger.promise(
            job.job_id,
            body.training,
            sample_count=len(shop.samples.labels),
            rounds=job.terms.rounds_max,
        )
    except PrivacyBudgetSpent as error:
        raise JobFailed(job.job_id, f"the privacy budget does not allow it: {error}") from error


async def _apply(shop: Shop, job: JobState) -> None:
    """Apply for a place with the deposit that the job asks for."""
    chain = shop.ports.chain
    assert job.terms is not None, "a job in enrolment has terms"
    deposit_wei = compute_seller_deposit(job.terms, job.price_wei, chain.params)
    key = f"enrol-seller/{job.job_id}"
    value_wei = await allow_taking(chain, job.currency, "SellerDeposits", deposit_wei, key=key)
    call = EnrolSeller(
        job=job.job_id,
        terms=job.terms,
        dataset_id=shop.dataset.dataset_id,
        permits=(),
        value_wei=value_wei,
    )
    await chain.submit(call, key=key)


async def _run_job(stall: Stall) -> None:
    """Offer an update in each round this seller is sampled for."""
    chain, me = stall.ports.chain, stall.ports.signer.address

    def turn_from(block: int) -> Turn:
        return turn_after_pool(stall.job, me, block)

    last_seed = BlockNumber(0)
    while True:
        found: Ballot | JobPhase = await chain.wait_for(partial(_next_round, stall, last_seed))
        if isinstance(found, JobPhase):
            break
        last_seed = found.seller_seed_block
        with log_scope(round_index=found.round_index):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_offer_update, stall, found)
                await chain.wait_for(partial(_is_closed, stall, found))
                nursery.cancel_scope.cancel()
    await settle_in_turn(chain, lambda: stall.job, turn_from)


def _next_round(stall: Stall, after: BlockNumber, state: MarketState) -> Ballot | JobPhase | None:
    """Return the next round that asks for updates, or the phase once there can be none.

    A round is known by the block of its sellers' seed: retries keep it, and a round that is
    opened again after its predecessor was checked has another one.
    """
    job = job_in(state, stall.job_id)
    if job.phase in OVER or job.is_training_over(state.block_number):
        return job.phase
    ballot = job.ballot
    is_next = (
        ballot is not None and ballot.kind is BallotKind.ROUND and ballot.seller_seed_block > after
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


async def _offer_update(stall: Stall, ballot: Ballot) -> None:
    """Train if sampled, commit to the update, and open the commitment in its window."""
    chain = stall.ports.chain
    state = await retry_transient(
        lambda: load_model_state(stall.ports, stall.job, stall.body),
        patience_seconds=PATIENCE_SECONDS,
    )
    await chain.wait_block(ballot.seller_seed_block)
    randomness = await chain.read_randomness(ballot.seller_seed_block)
    seed = compute_seller_seed(chain.domain, stall.job_id, ballot.round_index, randomness)
    if stall.index not in sample_sellers(state.sampler, seed):
        return
    key = f"{stall.job_id}/{ballot.round_index}"
    stored = await stall.ports.store.journal.recall("update", key)
    if stored is None:
        if chain.state.block_number >= ballot.update_commit_end:
            return
        stored = await _train(stall, ballot, state.parameters, key)
    if stored is None:
        return
    offer = msgspec.msgpack.decode(stored, type=OfferedUpdate)
    await _commit(stall, ballot, offer)
    await chain.wait_block(ballot.update_commit_end)
    await _open(stall, ballot, offer)


async def _train(stall: Stall, ballot: Ballot, parameters: Int32Array, key: str) -> bytes | None:
    """Train one update and fix it in the journal before anybody hears of it.

    Returns None if the privacy budget is spent: a training that nobody hears of is not started.
    """
    private = None
    if stall.ledger is not None:
        try:
            private = await stall.ledger.begin(stall.job_id, ballot.round_index)
        except PrivacyBudgetSpent as error:
            log.warning("update_withheld", reason=str(error))
            return None
    task = TrainingTask(
        model=stall.body.model,
        parameters=parameters,
        spec=stall.body.training,
        samples=stall.samples,
        seed=secrets.randbits(32),
        private=private,
    )
    # A training process that crashed is started again.
    update = await retry_transient(
        lambda: stall.trainer.train(task), patience_seconds=PATIENCE_SECONDS
    )
    data = encode_tensor(TensorKind.UPDATE, update)
    reference = Reference(Purpose.OWN_UPDATE, stall.job_id)
    digest = await stall.ports.store.blobs.put(data, reference)
    fresh = msgspec.msgpack.encode(OfferedUpdate(digest, secrets.token_bytes(32)))
    log.info("update_trained")
    return await stall.ports.store.journal.remember("update", key, fresh)


async def _commit(stall: Stall, ballot: Ballot, offer: OfferedUpdate) -> None:
    secret = UpdateSecret(
        job=stall.job_id,
        round_index=ballot.round_index,
        seller=stall.ports.signer.address,
        update_digest=Digest(offer.digest),
        salt=offer.salt,
    )
    await stall.room.sign_and_publish(
        wire.UpdateCommit(
            job_id=stall.job_id,
            round_index=ballot.round_index,
            seller_index=stall.index,
            commitment=compute_update_commitment(stall.ports.chain.domain, secret),
            signature=UNSIGNED,
        )
    )


async def _open(stall: Stall, ballot: Ballot, offer: OfferedUpdate) -> None:
    await stall.room.sign_and_publish(
        wire.UpdateOpening(
            job_id=stall.job_id,
            round_index=ballot.round_index,
            seller_index=stall.index,
            digest=offer.digest,
            salt=offer.salt,
            signature=UNSIGNED,
        )
    )
