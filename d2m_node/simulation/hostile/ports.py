"""Nodes that cheat with what they say or serve: wrappers of a node's network, chain and library."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import msgspec
import trio

from d2m_node.calls import ContractCall, SubmitOpenings
from d2m_node.ports import ChainPort, Library, NetworkPort, SignerPort, Verdict
from d2m_node.roles.statements import UNSIGNED, SignedMessage, signed_part
from protocol.bitmap import decode_bitmap
from protocol.hashing import Domain, hash_domain, word
from protocol.types import Address, Digest, JobId
from protocol.wire import messages as wire
from protocol.wire.messages import GossipMessage, MessagesRequest


class _Around:
    """Stands before a part of the node; what it does not change goes through untouched."""

    def __init__(self, honest: Any) -> None:
        self._honest = honest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)


class TwoFacedNetwork(_Around):
    """Says two things where a node may say one: after each of its signed statements another one.

    Of sellers these are commitments to updates, of CONE nodes those to votes, and bitmaps.
    """

    def __init__(self, honest: NetworkPort, signer: SignerPort, domain: Domain) -> None:
        super().__init__(honest)
        self._signer = signer
        self._domain = domain

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """Gossip a message, and the other side of it if it has one."""
        await self._honest.publish(topic, message)
        other = self._contradict(message)
        if other is not None:
            digest = signed_part(other).digest(self._domain)
            signature = self._signer.sign_digest(digest)
            signed = msgspec.structs.replace(other, signature=signature)
            await self._honest.publish(topic, signed)

    def _contradict(self, message: GossipMessage) -> SignedMessage | None:
        match message:
            case wire.UpdateCommit() | wire.VoteCommit():
                other = hash_domain("equivocation", message.commitment)
                return msgspec.structs.replace(message, commitment=other, signature=UNSIGNED)
            case wire.AvailabilityBitmap():
                return msgspec.structs.replace(message, bitmap=word(0), signature=UNSIGNED)
            case _:
                return None


class SilentNetwork(_Around):
    """Neither gossips nor listens: what it says must be asked for, and so must what it hears."""

    @asynccontextmanager
    async def join_topic(
        self, topic: str, validate: Callable[[GossipMessage], Verdict]
    ) -> AsyncIterator[trio.MemoryReceiveChannel[GossipMessage]]:
        """Wait at a channel that stays empty."""
        del topic, validate
        send, receive = trio.open_memory_channel[GossipMessage](0)
        with send, receive:
            yield receive

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """Say nothing."""


class WithholdingNetwork(_Around):
    """Commits to votes, and tells nobody of its peers what they were."""

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """Gossip everything but openings of votes."""
        if not isinstance(message, wire.VoteOpening):
            await self._honest.publish(topic, message)


class WithholdingChain(_Around):
    """Sends everything but openings of votes."""

    async def submit(self, call: ContractCall, *, key: str) -> None:
        """Send a call, unless it would open votes."""
        if not isinstance(call, SubmitOpenings):
            await self._honest.submit(call, key=key)


class WithholdingLibrary(_Around):
    """Serves everything but openings of votes."""

    async def read_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[GossipMessage]:
        """Return what is kept, but no openings."""
        kept: Sequence[GossipMessage] = await self._honest.read_messages(peer_id, request)
        return [one for one in kept if not isinstance(one, wire.VoteOpening)]


class CopyingChain(_Around):
    """Opens what others opened, whatever it committed to; the contract should refuse it."""

    def __init__(self, honest: ChainPort, find_index: Callable[[JobId], int | None]) -> None:
        """``find_index`` tells this node's CONE index in a job."""
        super().__init__(honest)
        self._find_index = find_index

    async def submit(self, call: ContractCall, *, key: str) -> None:
        """Send a call; in a batch of openings the own one says what the first group says."""
        if isinstance(call, SubmitOpenings) and call.opened:
            index = self._find_index(call.job)
            if index is not None and call.members >> index & 1:
                position = decode_bitmap(call.members).index(index)
                batch = list(call.batch)
                batch[position] = (0, batch[position][1])
                call = replace(call, batch=tuple(batch))
        await self._honest.submit(call, key=key)


class PartialLibrary(_Around):
    """Serves updates to some peers only, always the same ones."""

    async def admits(self, peer_id: bytes, digest: Digest) -> bool:
        """Turn half of the peers away."""
        admitted: bool = _is_favoured(peer_id) and await self._honest.admits(peer_id, digest)
        return admitted

    async def read_blob(self, peer_id: bytes, digest: Digest) -> bytes | None:
        """Return a blob to the other half."""
        if not _is_favoured(peer_id):
            return None
        data: bytes | None = await self._honest.read_blob(peer_id, digest)
        return data


def _is_favoured(peer_id: bytes) -> bool:
    return hash_domain("favour", peer_id)[0] % 2 == 0


def wrap_library(library: Library, kind: str | None) -> Library:
    """Return what a node of a hostile kind serves."""
    match kind:
        case "withhold":
            return cast("Library", WithholdingLibrary(library))
        case "partial":
            return cast("Library", PartialLibrary(library))
        case _:
            return library


def wrap_chain(chain: ChainPort, kind: str | None, account: Address) -> ChainPort:
    """Return the chain that a node of a hostile kind sends to."""
    match kind:
        case "withhold":
            return cast("ChainPort", WithholdingChain(chain))
        case "copy":

            def find_index(job_id: JobId) -> int | None:
                job = chain.state.jobs.get(job_id)
                return None if job is None else job.cone_index(account)

            return cast("ChainPort", CopyingChain(chain, find_index))
        case _:
            return chain


def wrap_network(
    network: NetworkPort, kind: str | None, signer: SignerPort, domain: Domain
) -> NetworkPort:
    """Return the network that a node of a hostile kind speaks to."""
    match kind:
        case "withhold" | "copy":
            return cast("NetworkPort", WithholdingNetwork(network))
        case "equivocate":
            return cast("NetworkPort", TwoFacedNetwork(network, signer, domain))
        case _:
            return network
