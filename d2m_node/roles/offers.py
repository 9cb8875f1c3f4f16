"""A seller's update in one round: trained, fixed in the journal, committed to, opened."""

from dataclasses import dataclass

import msgspec
import structlog

from d2m_node.errors import PrivacyBudgetSpent
from d2m_node.ports import (
    Int32Array,
    Ports,
    Purpose,
    Reference,
    Samples,
    TrainerPort,
    TrainingTask,
)
from d2m_node.privacy_ledger import PrivacyLedger
from d2m_node.retry import retry_transient
from d2m_node.roles.jobs import check_place, job_in
from d2m_node.roles.old_copy import OLD_COPY, find_said, is_restored_since
from d2m_node.roles.room import Room
from d2m_node.roles.shift import Shift
from d2m_node.roles.sources import load_model_state
from d2m_node.roles.statements import UNSIGNED
from protocol.ballot import Ballot
from protocol.job import JobState
from protocol.osmd import sample_sellers
from protocol.request import RequestBody
from protocol.sortition import compute_seller_seed
from protocol.types import Digest, JobId, SellerIndex
from protocol.update import TensorKind, UpdateSecret, compute_update_commitment, encode_tensor
from protocol.wire import messages as wire

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A seller's place in one job."""

    ports: Ports
    room: Room
    shift: Shift
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


class OfferedUpdate(msgspec.Struct, frozen=True, array_like=True):
    """An update as the journal holds it, before its commitment is signed."""

    digest: bytes
    salt: bytes


async def offer_update(stall: Stall, ballot: Ballot) -> None:
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
    stored = await recall_offer(stall, ballot)
    if stored is None:
        if chain.state.block_number >= ballot.update_commit_end or stall.shift.is_stopping:
            return
        if await _has_committed(stall, ballot):
            return
        stored = await _train(stall, ballot, state.parameters)
    if stored is None:
        return
    offer = msgspec.msgpack.decode(stored, type=OfferedUpdate)
    # A node that stops waits for this: an update that is committed to and not opened is not paid.
    with stall.shift.finishing():
        await _commit(stall, ballot, offer)
        await chain.wait_block(ballot.update_commit_end)
        await _open(stall, ballot, offer)


async def recall_offer(stall: Stall, ballot: Ballot) -> bytes | None:
    """Return the update that an earlier run of the node fixed for this round."""
    return await stall.ports.store.journal.recall("update", _offer_key(stall, ballot))


def _offer_key(stall: Stall, ballot: Ballot) -> str:
    return f"{stall.job_id}/{ballot.round_index}"


async def _has_committed(stall: Stall, ballot: Ballot) -> bool:
    """Tell whether this account may have committed to an update that the journal does not know.

    A second commitment would cost the deposit; a round that is sat out costs the round.
    """
    if is_restored_since(stall.ports, ballot):
        return True
    said = await find_said(stall, ballot, wire.UpdateCommit, ballot.round_index)
    if said is not None:
        log.warning("round_sat_out", reason=f"this account has committed already; {OLD_COPY}")
    return said is not None


async def _train(stall: Stall, ballot: Ballot, parameters: Int32Array) -> bytes | None:
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
        seed=int.from_bytes(stall.ports.entropy.token_bytes(4)),
        round_index=ballot.round_index,
        private=private,
    )
    # A training process that crashed is started again.
    update = await retry_transient(
        lambda: stall.trainer.train(task), patience_seconds=PATIENCE_SECONDS
    )
    data = encode_tensor(TensorKind.UPDATE, update)
    reference = Reference(Purpose.OWN_UPDATE, stall.job_id)
    digest = await stall.ports.store.blobs.put(data, reference)
    fresh = msgspec.msgpack.encode(OfferedUpdate(digest, stall.ports.entropy.token_bytes(32)))
    log.info("update_trained")
    return await stall.ports.store.journal.remember("update", _offer_key(stall, ballot), fresh)


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
