"""States of a job whose model is for its buyer only: they leave this node sealed, or not at all.

The store holds them as it holds all others. What is served instead is the sealed blob, made anew
whenever it is asked for: it is the same each time, and at each node. Which one it is, and its key,
a peer learns by a pull (`StateKey`), and only if the table of access gives it the state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from d2m_node.errors import PeerUnreachable, TransientError
from d2m_node.offload import offload
from d2m_node.ports import BlobPort, Ports, Purpose, Reference
from d2m_node.roles.access import covers
from d2m_node.sealing import SealBroken, bind, box_key, count_sealed_bytes, seal, unseal
from protocol.digest import RoundHeader
from protocol.hashing import Domain, keccak
from protocol.job import JobState
from protocol.types import Digest, JobId
from protocol.wire import messages as wire

log = structlog.get_logger(__name__)

STATE_KEY_TAG: Final = 9
MAX_KNOWN: Final = 256
"""Sealed states that are remembered; the one sealed longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class SealedState:
    """Which state a sealed blob is, and its key."""

    digest: Digest
    job_id: JobId
    round_index: int
    sealed_digest: Digest
    key: bytes

    def __repr__(self) -> str:
        """Show no key."""
        return f"SealedState({self.digest.hex()})"


def bind_state(domain: Domain, job_id: JobId, round_index: int, digest: Digest) -> bytes:
    """Return what a state is sealed as."""
    return bind("sealed-state", domain, job_id, round_index, digest)


class SealedStates:
    """What this node has sealed since it started. It can do so again."""

    def __init__(self, blobs: BlobPort, domain: Domain) -> None:
        self._blobs = blobs
        self._domain = domain
        self._known: dict[Digest, SealedState] = {}
        self._by_state: dict[tuple[JobId, int, Digest], SealedState] = {}

    def find(self, sealed_digest: Digest) -> SealedState | None:
        """Return the state behind a sealed blob, if this node has sealed it."""
        return self._known.get(sealed_digest)

    async def seal(self, job_id: JobId, round_index: int, digest: Digest) -> SealedState | None:
        """Seal a state that is in the store; None if it is not."""
        name = (job_id, round_index, digest)
        if name in self._by_state:
            return self._by_state[name]
        data = await self._blobs.get(digest)
        if data is None:
            return None
        sealed = await offload(seal, data, bind_state(self._domain, *name))
        known = SealedState(
            digest, job_id, round_index, await offload(keccak, sealed.data), sealed.key
        )
        self._by_state[name] = self._known[known.sealed_digest] = known
        if len(self._by_state) > MAX_KNOWN:
            oldest = self._by_state.pop(next(iter(self._by_state)))
            self._known.pop(oldest.sealed_digest, None)
        return known

    async def read(self, known: SealedState) -> bytes | None:
        """Return a sealed blob, made anew; None if the state is gone."""
        data = await self._blobs.get(known.digest)
        if data is None:
            return None
        binding = bind_state(self._domain, known.job_id, known.round_index, known.digest)
        return (await offload(seal, data, binding)).data

    def write_key(self, known: SealedState, peer_id: bytes) -> wire.StateKey:
        """Say what a peer needs to open a state. Raises SealBroken if its id holds no key."""
        binding = bind_state(self._domain, known.job_id, known.round_index, known.digest)
        return wire.StateKey(
            job_id=known.job_id,
            round_index=known.round_index,
            digest=known.digest,
            sealed_digest=known.sealed_digest,
            box=box_key(known.key, binding, peer_id),
        )


def list_states(job: JobState, round_index: int) -> list[Digest]:
    """Return the blobs of the states that were decided in a round."""
    headers = [RoundHeader.decode(one.header) for one in job.decided_rounds]
    found = [one for one in headers if one.round_index == round_index]
    return [digest for one in found for digest in (one.model_digest, one.sampler_digest)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedState:
    """One blob of a decided state, and how large it can be."""

    job_id: JobId
    round_index: int
    digest: Digest
    max_bytes: int


async def fetch_sealed(ports: Ports, wanted: WantedState, peers: Sequence[bytes]) -> bytes:
    """Return a state in the clear: from the store, or sealed from peers, opened and checked.

    It is not kept. Raises PeerUnreachable if no peer gives what opens and is right.
    """
    reference = Reference(Purpose.STATE, wanted.job_id)
    if any(covers(one, reference) for one in await ports.store.blobs.references(wanted.digest)):
        held = await ports.store.blobs.get(wanted.digest)
        if held is not None:
            return held
    await ports.store.blobs.check_room(wanted.max_bytes)
    keys = await _pull_keys(ports, wanted, peers)
    failures = []
    for sealed_digest, (key, sources) in sorted(keys.items()):
        try:
            return await _fetch_and_open(ports, wanted, sealed_digest, key, sources)
        except (PeerUnreachable, SealBroken) as error:
            failures.append(str(error))
            log.warning("sealed_state_refused", digest=wanted.digest.hex(), error=str(error))
    reason = "; ".join(failures) or "no peer gave a key that opens it"
    raise PeerUnreachable(f"state {wanted.digest.hex()}: {reason}")


async def _pull_keys(
    ports: Ports, wanted: WantedState, peers: Sequence[bytes]
) -> dict[Digest, tuple[bytes, list[bytes]]]:
    """Ask all peers; return key and sources by sealed blob. Honest peers name the same one."""
    request = wire.MessagesRequest(
        job_id=wanted.job_id, kind=STATE_KEY_TAG, step=wanted.round_index
    )
    binding = bind_state(ports.chain.domain, wanted.job_id, wanted.round_index, wanted.digest)
    found: dict[Digest, tuple[bytes, list[bytes]]] = {}

    async def ask(peer_id: bytes) -> None:
        try:
            told = await ports.network.fetch_messages(peer_id, request)
        except TransientError as error:
            log.info("state_key_missing", peer=peer_id, error=str(error))
            return
        for one in told:
            if not isinstance(one, wire.StateKey) or one.digest != wanted.digest:
                continue
            try:
                key = ports.seal.open_key(one.box, binding)
            except SealBroken as error:
                log.warning("state_key_refused", peer=peer_id, error=str(error))
                continue
            _, sources = found.setdefault(Digest(one.sealed_digest), (key, []))
            sources.append(peer_id)

    async with trio.open_nursery() as nursery:
        for peer_id in peers:
            nursery.start_soon(ask, peer_id)
    return found


async def _fetch_and_open(
    ports: Ports, wanted: WantedState, sealed_digest: Digest, key: bytes, sources: list[bytes]
) -> bytes:
    """Raises PeerUnreachable, SealBroken."""
    data = await ports.network.fetch_blob(
        sealed_digest, sources=sources, max_bytes=count_sealed_bytes(wanted.max_bytes)
    )
    binding = bind_state(ports.chain.domain, wanted.job_id, wanted.round_index, wanted.digest)
    opened = await offload(unseal, data, key, binding)
    if await offload(keccak, opened) != wanted.digest:
        raise SealBroken("what was sealed is not the state that the chain names")
    return opened
