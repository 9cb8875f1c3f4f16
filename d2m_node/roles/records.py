"""What a CONE node writes down of each ballot it computes, so that anyone can compute it again.

A record names its large inputs by hash; they are in the same store. `d2m-node audit` reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from d2m_node.lookup import find_job
from d2m_node.ports import JournalPort, Ports
from d2m_node.roles.seat import Seat
from protocol.ballot import Ballot
from protocol.digest import compute_sampler_digest
from protocol.payment_audit import collect_settled_job
from protocol.round import ModelState, RoundWork
from protocol.types import NO_DIGEST, Digest, JobId
from protocol.update import TensorKind, compute_tensor_digest

KIND = "round-record"
DECISION_KIND = "decision"
SETTLEMENT_KIND = "settlement-record"
TICKET_KIND = "ticket-secret"
"""What a node writes of a job first, and drops with all else of it."""
AGAIN = "/again"
"""Ends the key of what was written of a ballot once its first record was overturned."""


class BallotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of one ballot as this node had them."""

    chain_id: int
    market: bytes
    job_id: int
    round_index: int
    kind: int
    """0: round. 1: final evaluation."""
    attempt: int
    metric: int
    sellers_per_round: int
    alpha_bps: int
    eta_q16: int
    keep_bps: int
    body_hash: bytes
    payees: list[bytes]
    model_digest: bytes
    """Parameters before the ballot; zero bytes for the initial ones."""
    previous_model_digest: bytes = NO_DIGEST
    """With momentum, those before the last decided round; zero bytes if there are none."""
    sampler_digest: bytes
    credits: list[int]
    misses: list[int]
    previous_digest: bytes
    sampled: list[int]
    updates: dict[int, bytes]
    """Digest of each update of the agreed input set, by seller index."""
    part_digest: bytes
    """The part of the validation set that was used."""
    subset: list[int]
    """Indices of the samples used; empty means the whole part."""


def record_key(job_id: int, ballot_number: int) -> str:
    """Return the journal key of a ballot; keys of a job sort by ballot."""
    return f"{job_id}/{ballot_number:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSources:
    """Where the large inputs of a round are."""

    update_digests: Mapping[int, Digest]
    part_digest: Digest
    subset: tuple[int, ...]
    """Indices of V_t."""


async def record_round(seat: Seat, ballot: Ballot, work: RoundWork, sources: RoundSources) -> None:
    """Write the inputs of a round."""
    record = _record(seat, ballot, work.before, sources.part_digest)
    await _write(
        seat,
        ballot,
        msgspec.structs.replace(
            record,
            sampled=list(work.sampled),
            updates={index: sources.update_digests[index] for index in sorted(work.updates)},
            subset=list(sources.subset),
        ),
    )


async def record_final(seat: Seat, ballot: Ballot, state: ModelState, part_digest: Digest) -> None:
    """Write the inputs of a final evaluation; of another model if it is repeated for one."""
    await _write(seat, ballot, _record(seat, ballot, state, part_digest))


def _record(seat: Seat, ballot: Ballot, state: ModelState, part_digest: Digest) -> BallotRecord:
    is_initial = state.previous_digest == NO_DIGEST
    previous = state.previous_parameters
    return BallotRecord(
        chain_id=seat.domain.chain_id,
        market=seat.domain.market,
        job_id=seat.job_id,
        round_index=ballot.round_index,
        kind=ballot.kind,
        attempt=ballot.attempt,
        metric=seat.terms.metric,
        sellers_per_round=seat.terms.sellers_per_round,
        alpha_bps=seat.rules.alpha_bps,
        eta_q16=seat.rules.eta_q16,
        keep_bps=seat.rules.keep_bps,
        body_hash=seat.job.body_hash,
        payees=[seller.account for seller in seat.job.sellers],
        model_digest=NO_DIGEST
        if is_initial
        else compute_tensor_digest(TensorKind.PARAMETERS, state.parameters),
        previous_model_digest=NO_DIGEST
        if previous is None
        else compute_tensor_digest(TensorKind.PARAMETERS, previous),
        sampler_digest=NO_DIGEST if is_initial else compute_sampler_digest(state.sampler),
        credits=list(state.credits),
        misses=list(state.misses),
        previous_digest=state.previous_digest,
        sampled=[],
        updates={},
        part_digest=part_digest,
        subset=[],
    )


def latest_records(written: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what was written last of each ballot, by the ballot's key."""
    return {key.removesuffix(AGAIN): value for key, value in sorted(written.items())}


async def _write(seat: Seat, ballot: Ballot, record: BallotRecord) -> None:
    key = record_key(seat.job_id, ballot.ballot_number)
    await _write_beside(seat.ports.store.journal, KIND, key, msgspec.msgpack.encode(record))


async def _write_beside(journal: JournalPort, kind: str, key: str, value: bytes) -> None:
    """Write a value once, and beside it another one if a decision is overturned."""
    if await journal.remember(kind, key, value) != value:
        await journal.remember(kind, key + AGAIN, value)


async def write_decision(
    journal: JournalPort, job_id: int, ballot_number: int, digest: Digest
) -> None:
    """Write what the execution sets decided, and what the whole pool decided instead."""
    await _write_beside(journal, DECISION_KIND, record_key(job_id, ballot_number), digest)


async def record_settlement(ports: Ports, job_id: JobId) -> None:
    """Write what the chain says of a settled job and its payments, once."""
    job = await find_job(ports.chain, ports.store, job_id)
    if job is None or job.settled is None:
        return
    settled = collect_settled_job(job, ports.chain.params)
    await ports.store.journal.remember(SETTLEMENT_KIND, str(job_id), msgspec.json.encode(settled))


async def record_missed_settlements(ports: Ports) -> None:
    """Write what was settled while this node was down, of jobs of which it keeps other records."""
    kept = await ports.store.journal.recall_all(TICKET_KIND)
    told = await ports.store.journal.recall_all(SETTLEMENT_KIND)
    for job_id in sorted(kept.keys() - told.keys()):
        await record_settlement(ports, JobId(int(job_id)))
