"""Frames as a hostile peer would send them: real ones, real ones damaged, and noise."""

import random
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.pb import kademlia_pb2
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.relay.circuit_v2.pb import circuit_pb2, dcutr_pb2
from libp2p.utils.varint import encode_uvarint

from protocol.hashing import keccak
from protocol.wire.codec import encode_message
from protocol.wire.messages import (
    AvailabilityBitmap,
    BlobHeader,
    BlobRequest,
    ChunkHeader,
    ChunkList,
    ChunkListRequest,
    ChunkRequest,
    DialBackAnswer,
    DialBackRequest,
    Message,
    MessageBatch,
    MessagesRequest,
)

BLOB: Final = bytes(range(256)) * 40_000
DIGEST: Final = keccak(BLOB)
TOPIC: Final = "d2m/1/31337/market/1/votes"
MAX_NOISE_BYTES: Final = 400
INTERESTING: Final = (0, 1, 0x7F, 0x80, 0xFF)


def prefix_length(payload: bytes) -> bytes:
    """Put four bytes of length in front, as our own protocols do."""
    return len(payload).to_bytes(4, "big") + payload


def prefix_varint(payload: bytes) -> bytes:
    """Put a varint of the length in front, as libp2p's protocols do."""
    return bytes(encode_uvarint(len(payload))) + payload


def _build_own() -> list[bytes]:
    """Every message of our stream protocols, in both directions: the wrong way round is hostile."""
    messages: list[Message] = [
        BlobRequest(digest=DIGEST, offset=len(BLOB) - 100),
        BlobRequest(digest=bytes(32), offset=0),
        BlobHeader(available=True, size_bytes=2**31),
        ChunkListRequest(digest=DIGEST),
        ChunkList(available=True, size_bytes=100, hashes=bytes(32)),
        ChunkRequest(digest=DIGEST, first=9, count=2048),
        ChunkRequest(digest=DIGEST, first=2048, count=2048),
        ChunkHeader(available=True, size_bytes=2**31),
        DialBackRequest(),
        DialBackAnswer(outcome=2),
        MessagesRequest(job_id=1, kind=3, step=0),
        MessageBatch(messages=[encode_message(DialBackRequest())]),
    ]
    return [prefix_length(encode_message(one)) for one in messages]


def _build_gossip(dice: random.Random) -> list[bytes]:
    """RPCs with subscriptions, control messages, and messages rightly and wrongly signed."""
    key_pair = create_new_key_pair(dice.randbytes(32))
    sender = ID.from_pubkey(key_pair.public_key).to_bytes()
    rpcs = [
        rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=one, topicid=TOPIC)])
        for one in (True, False)
    ]
    control = rpc_pb2.ControlMessage(
        ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[b"x"] * 20)],
        iwant=[rpc_pb2.ControlIWant(messageIDs=[b"x"] * 20)],
        graft=[rpc_pb2.ControlGraft(topicID=TOPIC)],
        prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=2**63)],
    )
    rpcs.append(rpc_pb2.RPC(control=control))
    for number in range(200):
        bitmap = AvailabilityBitmap(
            job_id=1,
            round_index=number,
            attempt=0,
            cone_index=0,
            bitmap=bytes(32),
            signature=bytes(65),
        )
        body = encode_message(bitmap)
        message = rpc_pb2.Message(
            data=body if number % 2 else damage(body, dice),
            topicIDs=[TOPIC],
            from_id=sender,
            seqno=dice.randbytes(8),
        )
        signed = b"libp2p-pubsub:" + message.SerializeToString()
        message.signature = key_pair.private_key.sign(signed)
        if number % 5 == 0:
            message.signature = dice.randbytes(64)
        if number % 7 == 0:
            message.key = dice.randbytes(dice.randrange(60))
        if number % 11 == 0:
            message.from_id = dice.randbytes(dice.randrange(60))
        rpcs.append(rpc_pb2.RPC(publish=[message]))
    return [prefix_varint(one.SerializeToString()) for one in rpcs]


def _build_lookups() -> list[bytes]:
    kinds = kademlia_pb2.Message.MessageType.values()
    found = [
        kademlia_pb2.Message(type=kind, key=key)
        for kind in kinds
        for key in (b"", bytes(38), bytes.fromhex("002408011220") + bytes(32))
    ]
    return [prefix_varint(one.SerializeToString()) for one in found]


def _build_relay() -> list[bytes]:
    peer = circuit_pb2.PeerId(id=bytes(38), addrs=[bytes(8)])
    found = [circuit_pb2.HopMessage(type=kind, peer=peer) for kind in range(3)]
    found += [circuit_pb2.StopMessage(type=kind, peer=peer) for kind in range(2)]
    return [prefix_varint(one.SerializeToString()) for one in found]


def _build_punches() -> list[bytes]:
    found = [
        dcutr_pb2.HolePunch(type=kind, ObsAddrs=[bytes.fromhex("047f000001060009")] * count)
        for kind in (dcutr_pb2.HolePunch.CONNECT, dcutr_pb2.HolePunch.SYNC)
        for count in (0, 1, 100)
    ]
    return [prefix_varint(one.SerializeToString()) for one in found]


def _build_identities() -> list[bytes]:
    told = Identify(
        protocol_version="x" * 100,
        agent_version="y" * 100,
        public_key=bytes(36),
        listen_addrs=[bytes.fromhex("047f000001060009")] * 50,
        protocols=[f"/{number}" for number in range(100)],
        signedPeerRecord=bytes(100),
    )
    return [prefix_varint(told.SerializeToString()), told.SerializeToString()]


class Arsenal:
    """Frames for every protocol, drawn by one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        names = (b"/multistream/1.0.0\n", b"ls\n", b"na\n", b"/noise\n", b"/yamux/1.0.0\n")
        self._by_part: Mapping[str, Sequence[bytes]] = MappingProxyType(
            {
                "/d2m/kad": _build_lookups(),
                "/d2m/": _build_own(),
                "/meshsub/": _build_gossip(dice),
                "/ipfs/id": _build_identities(),
                "/ipfs/ping": [bytes(32)],
                "circuit": _build_relay(),
                "dcutr": _build_punches(),
                "multistream": [prefix_varint(name) for name in names],
            }
        )
        self._all = [one for frames in self._by_part.values() for one in frames]

    @property
    def parts(self) -> list[str]:
        """Parts of protocol ids that have frames of their own."""
        return list(self._by_part)

    def draw(self, protocol: str) -> bytes:
        """Draw a frame for a protocol: mostly its own, whole or damaged, else noise."""
        dice, own = self.dice, self._find(protocol)
        match dice.randrange(10):
            case 0:
                return dice.randbytes(dice.randrange(MAX_NOISE_BYTES))
            case 1:
                return prefix_length(dice.randbytes(dice.randrange(128)))
            case 2:
                return prefix_varint(dice.randbytes(dice.randrange(128)))
            case 3:
                return dice.choice(self._all)
            case 4 | 5 | 6:
                return damage(dice.choice(own), dice)
            case _:
                return dice.choice(own)

    def draw_whole(self, protocol: str) -> bytes:
        """Draw a frame of a protocol that can be read to its end, though its content may be bad."""
        return self.dice.choice(self._find(protocol))

    def _find(self, protocol: str) -> Sequence[bytes]:
        found = (frames for part, frames in self._by_part.items() if part in protocol)
        return next(found, self._all)

    def draw_muxed(self, stream_ids: Sequence[int]) -> bytes:
        """Draw a yamux frame whose length is true, so that the next one is read as a frame too."""
        dice = self.dice
        body = dice.randbytes(dice.choice((0, 0, 1, 12, 300)))
        kind = dice.choice((0, 0, 1, 1, 2, dice.randrange(256)))
        flags = dice.choice((0, 0, 1, 2, 4, 8, dice.randrange(2**16)))
        stream_id = dice.choice((*stream_ids, 0, dice.randrange(1000), dice.getrandbits(32)))
        length = len(body) if kind == 0 else dice.choice((0, 1, 2**18, 2**32 - 1))
        version = 0 if dice.randrange(20) else dice.randrange(256)
        header = struct.pack("!BBHII", version, kind, flags, stream_id, length)
        return header + (body if kind == 0 else b"")


def damage(frame: bytes, dice: random.Random) -> bytes:
    """Change a frame here and there: bytes, lengths, order, halves."""
    data = bytearray(frame or b"\x00")
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(data)) if data else 0
        match dice.randrange(6):
            case 0:
                data[at : at + 1] = bytes([dice.choice(INTERESTING)])
            case 1:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 2:
                del data[at : at + dice.randrange(1, 20)]
            case 3:
                data[at:at] = dice.randbytes(dice.randrange(1, 20))
            case 4:
                data[at:at] = data[at : at + 20]
            case _:
                data[at : at + 4] = dice.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"))
    return bytes(data)
