"""Where a role gets bytes from: its own store first, then the peers that should have them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from d2m_node.errors import JobFailed, PeerUnreachable
from d2m_node.offload import offload
from d2m_node.ports import Ports, Purpose, Reference
from d2m_node.roles.access import covers
from d2m_node.roles.jobs import buyer_of, job_in, terms_of
from d2m_node.roles.sealed_states import WantedState, fetch_sealed
from protocol.aggregation import RoundRules
from protocol.digest import RoundHeader, decode_sampler_state
from protocol.errors import ProtocolError
from protocol.fixed_point import Int32
from protocol.job import JobPhase, JobState
from protocol.metrics import validate_metric
from protocol.model import count_parameters, initial_parameters
from protocol.request import MAX_BODY_BYTES, ModelAccess, RequestBody, decode_body, validate_work
from protocol.round import ModelState, apply_header, compute_initial_state
from protocol.terms import Metric
from protocol.types import NO_DIGEST, Address, Digest, JobId
from protocol.update import TENSOR_HEADER_BYTES, TensorKind, decode_tensor


def peers_of(ports: Ports, accounts: Iterable[Address]) -> list[bytes]:
    """Return the peers of these accounts, by their own word on the chain; never ourselves."""
    book = ports.chain.state.peers
    peers = [book[account].peer_id for account in accounts if account in book]
    return [peer for peer in dict.fromkeys(peers) if peer != ports.network.peer_id]


async def fetch(
    ports: Ports,
    digest: Digest,
    accounts: Iterable[Address],
    *,
    max_bytes: int,
    reference: Reference,
) -> bytes:
    """Return a blob from the store, or fetch, keep and serve it.

    A blob that this node keeps for another job or purpose is fetched all the same: see `covers`.
    Raises PeerUnreachable if none of the accounts' peers delivers it, DiskFull if there is no room.
    """
    peers = peers_of(ports, accounts)
    data, is_kept = await look_up(ports, digest, peers, max_bytes=max_bytes, reference=reference)
    if not is_kept:  # not here, or it would go with the other job
        await ports.store.blobs.put(data, reference, digest=digest)
    return data


async def look_up(
    ports: Ports, digest: Digest, peers: Sequence[bytes], *, max_bytes: int, reference: Reference
) -> tuple[bytes, bool]:
    """Return a blob from the store or from peers, and whether it is kept for just this purpose.

    Nothing is put into the store. Raises as `fetch` does.
    """
    kept_for = await ports.store.blobs.references(digest)
    if any(covers(one, reference) for one in kept_for):
        data = await ports.store.blobs.get(digest)
        if data is not None:
            return data, reference in kept_for
    # Asked before the bytes come: nobody can make us fetch what we cannot keep.
    await ports.store.blobs.check_room(max_bytes)
    return await ports.network.fetch_blob(digest, sources=peers, max_bytes=max_bytes), False


async def load_body(ports: Ports, job: JobState) -> RequestBody:
    """Return the request of a job, from the store or from its buyer.

    Raises
    ------
    TransientError
        If the buyer does not serve it, and it is not too late; or if the auction is open again.
    JobFailed
        If it is too late, or the request is not valid for the job's terms.
    """
    terms, buyer = terms_of(job), buyer_of(job)
    reference = Reference(Purpose.REQUEST, job.job_id)
    try:
        data = await fetch(
            ports, job.body_hash, [buyer], max_bytes=MAX_BODY_BYTES, reference=reference
        )
        body = decode_body(data)
        validate_metric(Metric(terms.metric), body.model)
        validate_work(body, terms.sellers_per_round)
    except PeerUnreachable as error:
        if _is_body_wanted(ports, job.job_id):
            raise  # the buyer may be back before the enrolment is over
        raise JobFailed(job.job_id, f"the buyer does not serve its request: {error}") from error
    except ProtocolError as error:
        raise JobFailed(job.job_id, f"the buyer's request is not valid: {error}") from error
    return body


def _is_body_wanted(ports: Ports, job_id: JobId) -> bool:
    """Tell whether this account has applied for a job, or still can."""
    state, me = ports.chain.state, ports.signer.address
    job = job_in(state, job_id)
    is_open = job.phase is JobPhase.ENROLMENT and state.block_number < job.enrolment_end
    return is_open or job.has_cone_applied(me) or job.has_seller_applied(me)


def round_rules(job: JobState, body: RequestBody) -> RoundRules:
    """Gather what a job fixes for all its rounds from its terms and its request."""
    terms = terms_of(job)
    return RoundRules(
        model=body.model,
        metric=Metric(terms.metric),
        sellers_per_round=terms.sellers_per_round,
        alpha_bps=body.sampling.alpha_bps,
        eta_q16=body.sampling.eta_q16,
        keep_bps=body.sampling.keep_bps,
        step=body.step,
    )


async def load_model_state(ports: Ports, job: JobState, body: RequestBody) -> ModelState:
    """Rebuild the state before the job's next round from the chain and from blobs.

    Late and restarted nodes take this path like all others. Raises PeerUnreachable.
    """
    seller_count = len(job.sellers)
    headers = _read_headers(job)
    if not headers:
        # Under a second, but for the largest models too long to hold up everything else.
        return await offload(
            compute_initial_state, round_rules(job, body), Digest(body.initial_seed), seller_count
        )
    last = headers[-1]
    sampler = await _fetch_state(ports, job, body, last, last.sampler_digest, 8 * seller_count)
    state = ModelState(
        parameters=await _fetch_parameters(ports, job, body, last),
        sampler=decode_sampler_state(sampler, seller_count),
        credits=(0,) * seller_count,
        misses=(0,) * seller_count,
        previous_digest=NO_DIGEST,
    )
    for header in headers:
        state = apply_header(state, header)
    return state


async def load_round_state(ports: Ports, job: JobState, body: RequestBody) -> ModelState:
    """Rebuild what the job's next round is computed from: with momentum, two models.

    The second is named by the decided header before the last one, so a node that joins late or
    checks a decision gets it as it gets the first. Raises PeerUnreachable.
    """
    state = await load_model_state(ports, job, body)
    headers = _read_headers(job)
    if not body.step.momentum_q16 or not headers:
        return state
    if len(headers) == 1:
        previous = await offload(initial_parameters, body.model, Digest(body.initial_seed))
    else:
        previous = await _fetch_parameters(ports, job, body, headers[-2])
    return replace(state, previous_parameters=previous)


def _read_headers(job: JobState) -> list[RoundHeader]:
    return [RoundHeader.decode(one.header) for one in job.decided_rounds]


async def _fetch_parameters(
    ports: Ports, job: JobState, body: RequestBody, header: RoundHeader
) -> Int32:
    """Fetch parameters that a decided header names."""
    size = count_parameters(body.model)
    tensor = await _fetch_state(
        ports, job, body, header, header.model_digest, TENSOR_HEADER_BYTES + 4 * size
    )
    return decode_tensor(tensor, TensorKind.PARAMETERS, size)


async def fetch_result(ports: Ports, job: JobState, body: RequestBody) -> Int32:
    """Fetch the parameters with which training ended, for who asked for them.

    What travels sealed is not kept in the clear. Raises PeerUnreachable.
    """
    assert job.ended is not None
    size = count_parameters(body.model)
    digest, max_bytes = job.ended.model_digest, TENSOR_HEADER_BYTES + 4 * size
    accounts = [cone.account for cone in job.cones]
    if body.model_access is ModelAccess.BUYER_ONLY:
        last = _read_headers(job)[-1].round_index
        wanted = WantedState(
            job_id=job.job_id, round_index=last, digest=digest, max_bytes=max_bytes
        )
        data = await fetch_sealed(ports, wanted, peers_of(ports, accounts))
    else:
        reference = Reference(Purpose.STATE, job.job_id)
        data = await fetch(ports, digest, accounts, max_bytes=max_bytes, reference=reference)
    return decode_tensor(data, TensorKind.PARAMETERS, size)


async def _fetch_state(  # noqa: PLR0913 - one blob of a state, and whose it is
    ports: Ports,
    job: JobState,
    body: RequestBody,
    header: RoundHeader,
    digest: Digest,
    max_bytes: int,
) -> bytes:
    """Fetch one blob of a decided state and keep it, sealed on the way if the job wants that."""
    accounts = [cone.account for cone in job.cones]
    reference = Reference(Purpose.STATE, job.job_id)
    if body.model_access is not ModelAccess.BUYER_ONLY:
        return await fetch(ports, digest, accounts, max_bytes=max_bytes, reference=reference)
    wanted = WantedState(
        job_id=job.job_id, round_index=header.round_index, digest=digest, max_bytes=max_bytes
    )
    data = await fetch_sealed(ports, wanted, peers_of(ports, accounts))
    await ports.store.blobs.put(data, reference, digest=digest)
    return data
