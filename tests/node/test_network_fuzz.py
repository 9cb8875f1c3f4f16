"""A hostile peer that writes anything on every protocol: the node serves others as before."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from libp2p.exceptions import BaseLibp2pError

from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.hardening import GOSSIP_PROTOCOL
from protocol.hashing import keccak
from protocol.wire.codec import encode_message
from protocol.wire.messages import (
    BlobRequest,
    ChunkListRequest,
    ChunkRequest,
    DialBackRequest,
    MessagesRequest,
)
from protocol.wire.topics import (
    BLOB_PROTOCOL,
    CHUNKS_PROTOCOL,
    DIAL_BACK_PROTOCOL,
    MESSAGES_PROTOCOL,
)
from tests.support.network import (
    PATIENCE_SECONDS,
    Shelf,
    Watch,
    connect,
    open_raw_stream,
    start_network,
)

BLOB = b"weights" * 1000
DIGEST = keccak(BLOB)
PROTOCOLS = [
    BLOB_PROTOCOL,
    CHUNKS_PROTOCOL,
    DIAL_BACK_PROTOCOL,
    MESSAGES_PROTOCOL,
    GOSSIP_PROTOCOL,
    "/multistream/1.0.0",
    "/d2m/kad/1",
    "/libp2p/circuit/relay/0.2.0/stop",
    "/libp2p/dcutr",
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/ping/1.0.0",
]
VALID = [
    encode_message(message)
    for message in (
        BlobRequest(digest=DIGEST, offset=3),
        ChunkListRequest(digest=DIGEST),
        ChunkRequest(digest=DIGEST, first=0, count=2048),
        DialBackRequest(),
        MessagesRequest(job_id=1, kind=3, step=0),
    )
]


def prefix(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def damage(encoded: bytes, where: int, value: int) -> bytes:
    at = where % len(encoded)
    return encoded[:at] + bytes([value]) + encoded[at + 1 :]


frames = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(prefix),
    st.sampled_from(VALID).map(prefix),
    st.builds(damage, st.sampled_from(VALID), st.integers(0, 200), st.integers(0, 255)).map(prefix),
    st.binary(max_size=127).map(lambda rpc: bytes([len(rpc)]) + rpc),
)
attacks = st.lists(
    st.tuples(st.sampled_from(PROTOCOLS), st.lists(frames, max_size=4), st.booleans()),
    min_size=20,
    max_size=60,
)
Attack = list[tuple[str, list[bytes], bool]]


@given(attack=attacks)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_no_bytes_on_any_protocol_harm_the_node(attack: Attack) -> None:
    trio.run(survive, attack)


@pytest.mark.slow
@given(attack=attacks)
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bytes_on_any_protocol_harm_the_node_for_long(attack: Attack) -> None:
    trio.run(survive, attack)


async def survive(attack: Attack) -> None:
    """Send all frames, then let an honest peer fetch a blob from the same stack."""
    library = Shelf()
    library.blobs[DIGEST] = BLOB
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (  # the hostile peer is blamed all the time, but never banned
            start_network(folder / "cone", library, max_penalty=1e9, io_seconds=0.5) as cone,
            start_network(folder / "hostile_seller") as hostile_seller,
            start_network(folder / "honest_cone") as honest_cone,
        ):
            await connect(hostile_seller, cone)
            await connect(honest_cone, cone)
            gone = Watch(cone, hostile_seller.peer_id)
            for protocol, payloads, is_closed in attack:
                await send(hostile_seller, cone.peer_id, protocol, payloads, is_closed)
            with trio.fail_after(PATIENCE_SECONDS):
                got = await honest_cone.fetch_blob(
                    DIGEST, sources=[cone.peer_id], max_bytes=len(BLOB)
                )
            assert got == BLOB
            assert cone.measure().restarts == 0
            assert honest_cone.stack.peers.is_connected(cone.peer_id)
            assert not gone.disconnected_event.is_set(), "bytes on a stream cost the stream alone"


async def send(
    sender: Libp2pNetwork, peer_id: bytes, protocol: str, payloads: list[bytes], is_closed: bool
) -> None:
    with trio.move_on_after(1.0), suppress(BaseLibp2pError):  # the node resets the stream
        stream: Any = await open_raw_stream(sender, peer_id, protocol)
        for payload in payloads:
            await stream.write(payload)
        await (stream.close() if is_closed else stream.reset())


async def test_a_thousand_connection_attempts_leave_room_for_peers(tmp_path: Path) -> None:
    async with start_network(tmp_path / "node", max_connections=32) as node:
        port = int(node.listening[0].rpartition("/")[2])

        async def knock() -> None:
            with suppress(OSError, trio.BrokenResourceError):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(b"\x13/multistream/1.0.0\n")
                await stream.aclose()

        for _ in range(40):
            async with trio.open_nursery() as nursery:
                for _ in range(25):
                    nursery.start_soon(knock)
        async with start_network(tmp_path / "peer") as peer:
            await connect(peer, node)
        assert node.measure().restarts == 0
