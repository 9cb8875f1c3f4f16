"""Where the operator gets the model of a job: the delivered copy, or what peers still have.

The buyer may have it first, as soon as training has ended. Others may have it once the job is
settled, if its request says so. Whatever comes from a peer is checked against the digest on the
chain. Nothing is kept here: the operator's file is the copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from d2m_node.errors import PeerUnreachable, UserError
from d2m_node.lookup import find_job
from d2m_node.model_file import encode_model_file
from d2m_node.offload import offload
from d2m_node.ports import Ports, Purpose, Reference
from d2m_node.roles.access import find_standings, may_be_handed
from d2m_node.roles.delivery import open_model
from d2m_node.roles.sealed_states import WantedState, fetch_sealed
from d2m_node.roles.sources import look_up, peers_of
from protocol.digest import RoundHeader
from protocol.errors import ProtocolError
from protocol.job import JobPhase, JobState
from protocol.model import count_parameters
from protocol.request import MAX_BODY_BYTES, ModelAccess, RequestBody, decode_body
from protocol.types import Address, Digest, JobId
from protocol.update import TENSOR_HEADER_BYTES, TensorKind, decode_tensor

log = structlog.get_logger(__name__)

_FOR_WHOM: Final = {
    ModelAccess.PARTICIPANTS: "the job's buyer, sellers and CONE nodes",
    ModelAccess.BUYER_ONLY: "the job's buyer only",
    ModelAccess.PUBLIC: "everybody",
}
FETCH_SECONDS: Final = 300.0
"""For the request and the model together: the operator waits. A large model goes on next time."""
MAX_REASON: Final = 300
"""Characters of why peers gave nothing: there may be hundreds of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    """A job that has a model, and who may still hold what is of it."""

    job: JobState
    digest: Digest
    round_index: int
    """Of the round that made it."""
    accounts: Sequence[Address]


class ModelDesk:
    """Hands out models of the market's jobs."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def delivered(self, job_id: JobId) -> bytes | None:
        """Return the model that a job delivered to this buyer, or None if there is none (yet).

        None too if the disk has lost it. Raises UserError if it does not open.
        """
        return await open_model(self._ports, job_id)

    async def fetch(self, job_id: JobId) -> bytes:
        """Return the model of a job as a safetensors file, from the store or from peers.

        Raises
        ------
        UserError
            If there is no such job, or it has no model (yet), or its request does not give the
            model to this account.
        PeerUnreachable
            If nobody who can be reached has the request or the model any more, or it takes long.
        DiskFull
            If the disk could not take it.
        """
        finished = await self._find_finished(job_id)
        with trio.move_on_after(FETCH_SECONDS):
            body = await self._load_body(finished)
            self._check_policy(finished.job, body)
            file = await self._fetch(finished, body)
            log.info("model_handed_out", job=job_id, digest=finished.digest.hex())
            return file
        raise PeerUnreachable(
            f"job {job_id}: its model did not come within {FETCH_SECONDS:.0f} s; ask again, and a"
            " large one goes on where it was"
        )

    async def _find_finished(self, job_id: JobId) -> _Finished:
        """Find a job, and that this account may have its model now. Raises UserError."""
        job = await find_job(self._ports.chain, self._ports.store, job_id)
        if job is None:
            raise UserError(f"job {job_id}: the market has no such job")
        if job.phase is JobPhase.CANCELLED:
            raise UserError(f"job {job_id}: it was cancelled, so it has no model")
        if job.phase is JobPhase.SETTLED and not job.decided_rounds:
            raise UserError(f"job {job_id}: no round of it was decided, so it has no model")
        if job.ended is None or not job.decided_rounds:
            raise UserError(
                f"job {job_id}: its phase is {job.phase.value}; there is no final model before its"
                " training has ended"
            )
        if job.phase is not JobPhase.SETTLED and job.buyer != self._ports.signer.address:
            raise UserError(
                f"job {job_id}: its phase is {job.phase.value}; the model is its buyer's alone"
                " until the job is settled"
            )
        members = [one.account for one in job.cones] + [one.account for one in job.sellers]
        return _Finished(
            job=job,
            digest=job.ended.model_digest,
            round_index=RoundHeader.decode(job.decided_rounds[-1].header).round_index,
            accounts=members if job.buyer is None else [*members, job.buyer],
        )

    async def _load_body(self, finished: _Finished) -> RequestBody:
        """Return the request: it says what the model is, and whose. Everybody may have it."""
        job = finished.job
        try:
            data = await self._load(finished, job.body_hash, Purpose.REQUEST, MAX_BODY_BYTES)
            return decode_body(data)
        except PeerUnreachable as error:
            raise PeerUnreachable(
                f"job {job.job_id}: nobody who can be reached has its request any more, and only"
                f" that says what its model is, and who may have it ({_shorten(error)})"
            ) from error
        except ProtocolError as error:
            raise UserError(f"job {job.job_id}: its request is not valid: {error}") from error

    def _check_policy(self, job: JobState, body: RequestBody) -> None:
        """Raises UserError if the request does not give the model to this account."""
        standings = find_standings(job, (self._ports.signer.address,))
        if not may_be_handed(standings, body.model_access):
            raise UserError(
                f"job {job.job_id}: its request gives the model to"
                f" {_FOR_WHOM[body.model_access]}, and this account is not among them"
            )

    async def _fetch(self, finished: _Finished, body: RequestBody) -> bytes:
        """Return the model as a file, from the store or from peers."""
        job_id, size = finished.job.job_id, count_parameters(body.model)
        max_bytes = TENSOR_HEADER_BYTES + 4 * size
        try:
            if body.model_access is ModelAccess.BUYER_ONLY:
                data = await self._fetch_sealed(finished, max_bytes)
            else:
                data = await self._load(finished, finished.digest, Purpose.STATE, max_bytes)
        except PeerUnreachable as error:
            raise PeerUnreachable(
                f"job {job_id}: nobody who can be reached has its model any more"
                f" ({_shorten(error)})"
            ) from error

        def write() -> bytes:
            parameters = decode_tensor(data, TensorKind.PARAMETERS, size)
            return encode_model_file(
                parameters, domain=self._ports.chain.domain, job=job_id, model=body.model
            )

        return await offload(write)

    async def _fetch_sealed(self, finished: _Finished, max_bytes: int) -> bytes:
        wanted = WantedState(
            job_id=finished.job.job_id,
            round_index=finished.round_index,
            digest=finished.digest,
            max_bytes=max_bytes,
        )
        return await fetch_sealed(self._ports, wanted, self._list_sources(finished))

    async def _load(
        self, finished: _Finished, digest: Digest, purpose: Purpose, max_bytes: int
    ) -> bytes:
        """Return a blob that the store has for this job, or fetch it. Raises PeerUnreachable."""
        data, _ = await look_up(
            self._ports,
            digest,
            self._list_sources(finished),
            max_bytes=max_bytes,
            reference=Reference(purpose, finished.job.job_id),
        )
        return data

    def _list_sources(self, finished: _Finished) -> list[bytes]:
        """List the peers of all who took part, those first that need no dialling."""
        connected = {one.peer_id for one in self._ports.network.peers() if one.connected}
        sources = peers_of(self._ports, finished.accounts)
        return sorted(sources, key=lambda peer_id: peer_id not in connected)


def _shorten(error: PeerUnreachable) -> str:
    text = str(error)
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
