"""What a CONE node votes for: a round's inputs gathered, its result or a final one computed."""

from dataclasses import replace

import structlog

from d2m_node.offload import offload
from d2m_node.retry import retry_transient
from d2m_node.roles.inputs import agree_inputs, collect_updates
from d2m_node.roles.records import RoundSources, record_final, record_round
from d2m_node.roles.seat import Seat
from d2m_node.roles.sources import load_model_state, load_round_state
from d2m_node.roles.validation import FINAL_PART, SELECTION_PART, Parts
from d2m_node.roles.vote import Finding
from protocol.ballot import Ballot
from protocol.bitmap import decode_bitmap
from protocol.job import JobState
from protocol.model import initial_parameters
from protocol.osmd import sample_sellers
from protocol.round import BallotResult, FinalWork, ModelState, RoundWork
from protocol.sortition import BallotKind, compute_seller_seed, compute_subset_seed
from protocol.types import BlockNumber, Digest
from protocol.validation_set import ValidationPart, select_round_subset, select_samples

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 30.0


async def find_result(seat: Seat, ballot: Ballot, parts: Parts) -> Finding:
    """Compute what a ballot asks for, from the inputs that this node can get."""
    find = _find_round if ballot.kind is BallotKind.ROUND else _find_final
    return await find(seat, ballot, parts)


async def _load_state(seat: Seat, ballot: Ballot) -> ModelState:
    """Load the state that a ballot starts from: of one that is checked, without its decision."""

    def job() -> JobState:
        if ballot.is_pool_called:
            return replace(seat.job, decided=seat.job.decided[:-1])
        return seat.job

    is_round = ballot.kind is BallotKind.ROUND
    load = load_round_state if is_round else load_model_state
    return await retry_transient(
        lambda: load(seat.ports, job(), seat.body), patience_seconds=PATIENCE_SECONDS
    )


async def _find_round(seat: Seat, ballot: Ballot, parts: Parts) -> Finding:
    """Gather a round's inputs and compute its result."""
    chain = seat.ports.chain
    before = await _load_state(seat, ballot)
    await chain.wait_block(ballot.seller_seed_block)
    randomness = await chain.read_randomness(ballot.seller_seed_block)
    seed = compute_seller_seed(seat.domain, seat.job_id, ballot.round_index, randomness)
    sampled = sample_sellers(before.sampler, seed)
    holdings = await collect_updates(seat, ballot, sampled)
    inputs = await agree_inputs(seat, ballot, sampled, holdings)
    if not inputs.is_complete:
        log.warning("inputs_incomplete")
        return Finding(None, inputs.available)
    held = await parts.wait(SELECTION_PART)
    subset = await _draw_subset(seat, ballot, held.part)
    samples, labels = select_samples(held.part, subset, seat.body.model)
    work = RoundWork(
        domain=seat.domain,
        job_id=seat.job_id,
        round_index=ballot.round_index,
        rules=seat.rules,
        payees=tuple(seller.account for seller in seat.job.sellers),
        before=before,
        sampled=sampled,
        updates={i: holdings.updates[i] for i in decode_bitmap(inputs.available)},
        samples=samples,
        labels=labels,
    )
    sources = RoundSources(update_digests=holdings.digests, part_digest=held.digest, subset=subset)
    await record_round(seat, ballot, work, sources)
    result = await offload(seat.executor.compute_round, work)
    _log_result(ballot, result)
    return Finding(result, inputs.available)


async def _draw_subset(seat: Seat, ballot: Ballot, part: ValidationPart) -> tuple[int, ...]:
    """Draw V_t. Its seed is of a block after the sellers' commitments, and kept by retries."""
    block = BlockNumber(ballot.update_commit_end + ballot.seed_delay_blocks)
    randomness = await seat.ports.chain.read_randomness(block)
    seed = compute_subset_seed(seat.domain, seat.job_id, ballot.round_index, randomness)
    return select_round_subset(seed, part.indices, seat.body.validation.subset_count)


async def _find_final(seat: Seat, ballot: Ballot, parts: Parts) -> Finding:
    """Evaluate the first and the last parameters on V_fin."""
    state = await _load_state(seat, ballot)
    held = await parts.wait(FINAL_PART)
    samples, labels = select_samples(held.part, held.part.indices, seat.body.model)
    initial = await offload(initial_parameters, seat.body.model, Digest(seat.body.initial_seed))
    work = FinalWork(
        domain=seat.domain,
        job_id=seat.job_id,
        round_index=ballot.round_index,
        rules=seat.rules,
        initial=initial,
        parameters=state.parameters,
        samples=samples,
        labels=labels,
    )
    await record_final(seat, ballot, state, held.digest)
    result = await offload(seat.executor.compute_final, work)
    _log_result(ballot, result)
    return Finding(result, 0)


def _log_result(ballot: Ballot, result: BallotResult) -> None:
    log.info(
        "ballot_computed",
        kind=ballot.kind.name.lower(),
        digest=result.digest.hex(),
    )
