"""Computes the decided ballots and the payments of a job again, from what a CONE node wrote down.

Needs no chain and no peers: the records and the blobs of one data directory are enough, and every
input is checked against its hash. `compute_round`, `compute_final` and `compute_settlement` are
the rules themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from d2m_node.errors import StoreCorrupted, UserError
from d2m_node.ports import StorePort
from d2m_node.roles.records import (
    DECISION_KIND,
    KIND,
    SETTLEMENT_KIND,
    BallotRecord,
    latest_records,
)
from d2m_node.storage.database import DATABASE_NAME, open_store
from protocol.aggregation import RoundRules
from protocol.digest import decode_sampler_state
from protocol.fixed_point import Int32, Int64
from protocol.hashing import Domain
from protocol.model import count_parameters
from protocol.payment_audit import PaymentAudit, SettledJob, audit_payments
from protocol.request import RequestBody, decode_body
from protocol.round import (
    BallotResult,
    FinalWork,
    ModelState,
    RoundWork,
    compute_final,
    compute_initial_state,
    compute_round,
)
from protocol.samples import SampleArray
from protocol.sortition import BallotKind
from protocol.terms import Metric
from protocol.types import NO_DIGEST, Address, Digest, JobId, RoundIndex
from protocol.update import TensorKind, compute_tensor_digest, decode_tensor
from protocol.validation_set import decode_part, select_samples, verify_part


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedBallot:
    """One ballot: what was decided, and what comes out of its recorded inputs."""

    round_index: RoundIndex
    kind: BallotKind
    attempt: int
    decided: Digest
    computed: Digest

    @property
    def matches(self) -> bool:
        """Tell whether the decision can be computed from the inputs."""
        return self.decided == self.computed


@dataclass(frozen=True, slots=True)
class JobAudit:
    """Everything of a job that one node's records allow to check."""

    ballots: tuple[AuditedBallot, ...]
    payments: PaymentAudit | None
    """None as long as no settlement is recorded."""


async def audit_job(folder: Path, job_id: JobId) -> JobAudit:
    """Compute again every decided ballot that this node recorded, and the payments of the job.

    Raises
    ------
    UserError
        If the folder holds no store, which is then not made, or nothing of the job.
    StoreCorrupted
        If an input is missing or is not what its hash says.
    """
    _check_store(folder)
    async with open_store(folder) as store:
        records = latest_records(await store.journal.recall_all(KIND, f"{job_id}/"))
        decisions = latest_records(await store.journal.recall_all(DECISION_KIND, f"{job_id}/"))
        audited = []
        for key, decided in sorted(decisions.items()):
            if key in records:
                record = msgspec.msgpack.decode(records[key], type=BallotRecord)
                audited.append(await _audit(store, record, Digest(decided)))
        settlement = await store.journal.recall(SETTLEMENT_KIND, str(job_id))
    if not audited and settlement is None:
        raise UserError(f"{folder} holds no record of job {job_id}; give a CONE node's folder")
    return JobAudit(tuple(audited), _audit_payments(settlement))


def _check_store(folder: Path) -> None:
    """Refuse a folder in which opening the store would make one: an audit only looks."""
    if not (folder / DATABASE_NAME).is_file():
        raise UserError(f"{folder} holds no node's store; give a CONE node's folder")


def _audit_payments(settlement: bytes | None) -> PaymentAudit | None:
    if settlement is None:
        return None
    return audit_payments(msgspec.json.decode(settlement, type=SettledJob))


async def _audit(store: StorePort, record: BallotRecord, decided: Digest) -> AuditedBallot:
    kind = BallotKind(record.kind)
    compute = _compute_round if kind is BallotKind.ROUND else _compute_final
    result = await compute(store, record)
    return AuditedBallot(
        round_index=RoundIndex(record.round_index),
        kind=kind,
        attempt=record.attempt,
        decided=decided,
        computed=result.digest,
    )


async def _read(store: StorePort, digest: bytes) -> bytes:
    data = await store.blobs.get(Digest(digest))
    if data is None:
        raise StoreCorrupted(f"blob {digest.hex()} of the record is not in the store")
    return data


def _rules(record: BallotRecord, body: RequestBody) -> RoundRules:
    return RoundRules(
        model=body.model,
        metric=Metric(record.metric),
        sellers_per_round=record.sellers_per_round,
        alpha_bps=record.alpha_bps,
        eta_q16=record.eta_q16,
        keep_bps=record.keep_bps,
        step=body.step,
    )


async def _state(store: StorePort, record: BallotRecord, body: RequestBody) -> ModelState:
    count = len(record.payees)
    initial = compute_initial_state(_rules(record, body), Digest(body.initial_seed), count)
    if record.model_digest == NO_DIGEST:
        return initial
    size = count_parameters(body.model)
    tensor = await _read(store, record.model_digest)
    sampler = await _read(store, record.sampler_digest)
    return ModelState(
        parameters=decode_tensor(tensor, TensorKind.PARAMETERS, size),
        sampler=decode_sampler_state(sampler, count),
        credits=tuple(record.credits),
        misses=tuple(record.misses),
        previous_digest=Digest(record.previous_digest),
        previous_parameters=await _previous_parameters(store, record, initial.parameters),
    )


async def _previous_parameters(
    store: StorePort, record: BallotRecord, initial: Int32
) -> Int32 | None:
    """Read what momentum is measured from; the initial parameters are in no store."""
    if record.previous_model_digest == NO_DIGEST:
        return None
    if record.previous_model_digest == compute_tensor_digest(TensorKind.PARAMETERS, initial):
        return initial
    tensor = await _read(store, record.previous_model_digest)
    return decode_tensor(tensor, TensorKind.PARAMETERS, len(initial))


async def _samples(
    store: StorePort, record: BallotRecord, body: RequestBody
) -> tuple[SampleArray, Int64]:
    part = decode_part(await _read(store, record.part_digest))
    verify_part(part, Digest(body.validation.root))
    return select_samples(part, record.subset or part.indices, body.model)


async def _compute_round(store: StorePort, record: BallotRecord) -> BallotResult:
    body = decode_body(await _read(store, record.body_hash))
    size = count_parameters(body.model)
    updates: Mapping[int, Int32] = {
        index: decode_tensor(await _read(store, digest), TensorKind.UPDATE, size)
        for index, digest in sorted(record.updates.items())
    }
    samples, labels = await _samples(store, record, body)
    return compute_round(
        RoundWork(
            domain=Domain(record.chain_id, Address(record.market)),
            job_id=JobId(record.job_id),
            round_index=RoundIndex(record.round_index),
            rules=_rules(record, body),
            payees=tuple(Address(payee) for payee in record.payees),
            before=await _state(store, record, body),
            sampled=tuple(record.sampled),
            updates=updates,
            samples=samples,
            labels=labels,
        )
    )


async def _compute_final(store: StorePort, record: BallotRecord) -> BallotResult:
    body = decode_body(await _read(store, record.body_hash))
    rules = _rules(record, body)
    state = await _state(store, record, body)
    initial = compute_initial_state(rules, Digest(body.initial_seed), len(record.payees))
    samples, labels = await _samples(store, record, body)
    return compute_final(
        FinalWork(
            domain=Domain(record.chain_id, Address(record.market)),
            job_id=JobId(record.job_id),
            round_index=RoundIndex(record.round_index),
            rules=rules,
            initial=initial.parameters,
            parameters=state.parameters,
            samples=samples,
            labels=labels,
        )
    )
