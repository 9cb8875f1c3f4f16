"""What relays and those who use them say to each other: circuit relay v2, as libp2p has it.

The messages are py-libp2p's; its relay is not used. It gives places in another's name, and looks at
a circuit's time only when something comes through, so that a silent one stands for ever: the tests
show both. Its transport picks relays by itself, and dials what their answers name.
"""

from typing import Final, TypeVar

import trio
from google.protobuf.message import Message
from libp2p.abc import INetStream
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage
from libp2p.utils.varint import encode_uvarint, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from protocol.errors import InvalidMessage

HOP: Final = TProtocol("/libp2p/circuit/relay/0.2.0/hop")
STOP: Final = TProtocol("/libp2p/circuit/relay/0.2.0/stop")
MAX_MESSAGE_BYTES: Final = 4096
CLOSE_SECONDS: Final = 1.0

M = TypeVar("M", bound=Message)


async def send(stream: INetStream, message: Message) -> None:
    """Send a message behind its length."""
    data = message.SerializeToString()
    await stream.write(encode_uvarint(len(data)) + data)


async def receive_hop(stream: INetStream) -> HopMessage:
    """Read what a relay is asked, or answers. Raises InvalidMessage."""
    return await _receive(stream, HopMessage())


async def receive_stop(stream: INetStream) -> StopMessage:
    """Read what a relay asks of who is reached through it. Raises InvalidMessage."""
    return await _receive(stream, StopMessage())


def name_status(status: int) -> str:
    """Say in words what a relay answered."""
    found = Status.DESCRIPTOR.values_by_number.get(status)
    return found.name.lower().replace("_", " ") if found else f"status {status}"


def make_connection(
    stream: INetStream, *, relay: ID, peer: ID, is_initiator: bool
) -> RawConnection:
    """Make a connection of a stream through a relay; its ends still have to prove themselves."""
    address = Multiaddr(f"/p2p/{relay}/p2p-circuit/p2p/{peer}")
    return RawConnection(
        stream, is_initiator, connection_type=ConnectionType.RELAYED, addresses=[address]
    )


async def end(stream: INetStream) -> None:
    """Give up a stream; never fails and never waits long."""
    with trio.move_on_after(CLOSE_SECONDS, shield=True):
        await stream.reset()


async def _receive(stream: INetStream, message: M) -> M:
    data = await read_varint_prefixed_bytes_limited(stream, MAX_MESSAGE_BYTES)
    try:
        message.ParseFromString(data)
    except Exception as exc:  # protobuf's DecodeError, by whichever of its backends
        raise InvalidMessage("no message of a relay's") from exc
    return message
