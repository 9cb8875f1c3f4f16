"""The buyer's copy of a model: kept as a file, sealed to its peer identity if the job wants that.

The journal names the blob under `KIND`, and beside a sealed one the box with its key, by the peer
that can open it. So whoever gets hold of the store, or of a backup of it, has nothing without the
peer's key; and a node with another key fetches the model again.
"""

from dataclasses import dataclass
from typing import Final

import structlog

from d2m_node.errors import UserError
from d2m_node.offload import offload
from d2m_node.ports import Ports, Purpose, Reference
from d2m_node.sealing import SealBroken, bind, box_key, seal, unseal
from protocol.hashing import Domain
from protocol.types import NO_DIGEST, Digest, JobId

log = structlog.get_logger(__name__)

KIND: Final = "model"
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Copy:
    """What the journal says of a delivered model."""

    digest: Digest
    box: bytes
    """Of the key; empty if the file is in the clear."""


async def keep_model(ports: Ports, job_id: JobId, file: bytes, *, is_sealed: bool) -> None:
    """Keep a delivered model file; nobody else is served it."""
    data, box, name = file, b"", str(job_id)
    if is_sealed:
        name = _name_sealed(ports, job_id)
        binding = _bind(ports.chain.domain, job_id)
        sealed = await offload(seal, file, binding)
        data, box = sealed.data, box_key(sealed.key, binding, ports.network.peer_id)
    digest = await ports.store.blobs.put(data, Reference(Purpose.MODEL, job_id))
    await ports.store.journal.remember(KIND, name, digest + box)


async def is_delivered(ports: Ports, job_id: JobId) -> bool:
    """Tell whether the model is here; one that the disk has lost is fetched again."""
    copy = await _recall(ports, job_id)
    return copy is not None and await ports.store.blobs.get(copy.digest) is not None


async def open_model(ports: Ports, job_id: JobId) -> bytes | None:
    """Return a delivered model file in the clear, or None if there is none (yet).

    None too if the disk has lost it: others may still have the model. Raises UserError if it does
    not open.
    """
    copy = await _recall(ports, job_id)
    if copy is None:
        return None
    data = await ports.store.blobs.get(copy.digest)
    if data is None:
        log.warning("model_copy_lost", job=job_id, digest=copy.digest.hex())
        return None
    if not copy.box:
        return data
    binding = _bind(ports.chain.domain, job_id)
    try:
        return await offload(unseal, data, ports.seal.open_key(copy.box, binding), binding)
    except SealBroken as error:
        raise UserError(
            f"job {job_id}: the sealed model does not open, so the journal is damaged; start with"
            f" an empty data directory and the same keys, and it is fetched again ({error})"
        ) from error


def _name_sealed(ports: Ports, job_id: JobId) -> str:
    return f"{job_id}/{ports.network.peer_id.hex()}"


def _bind(domain: Domain, job_id: JobId) -> bytes:
    return bind("model-file", domain, job_id, 0, NO_DIGEST)


async def _recall(ports: Ports, job_id: JobId) -> _Copy | None:
    journal = ports.store.journal
    stored = await journal.recall(KIND, _name_sealed(ports, job_id))
    if stored is None:
        stored = await journal.recall(KIND, str(job_id))
    if stored is None:
        return None
    return _Copy(Digest(stored[:_DIGEST_BYTES]), stored[_DIGEST_BYTES:])
