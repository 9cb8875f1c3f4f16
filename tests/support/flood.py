"""A peer that sends without regard to yamux windows, to a server that never reads."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from d2m_node.network.adapter import Libp2pNetwork
from tests.support.network import PATIENCE_SECONDS, Watch, open_raw_stream, start_networks


class Flooded:
    """A server that never reads, and what a flood of 8 MiB without regard to windows does to it."""

    def __init__(self, server: Libp2pNetwork, hostile_seller: Libp2pNetwork) -> None:
        self._server = server
        self._hostile_seller = hostile_seller
        self.most_unread = 0
        self.is_cut_off = False

    async def flood(self, stream_count: int, frame_bytes: int = 65000) -> None:
        """Send until 8 MiB are out or the connection is gone; note what was buffered at most."""
        (connection,) = self._server.stack.host.get_network().connections[
            ID(self._hostile_seller.peer_id)
        ]
        muxed = connection.muxed_conn
        read_body, admit_body = muxed._read_data_body, muxed._admit_body

        def note(length: int) -> None:
            unread = length + sum(map(len, muxed.stream_buffers.values()))
            self.most_unread = max(self.most_unread, unread)

        def measure_admitted(length: int) -> None:
            admit_body(length)
            note(length)

        async def measure_read(length: int) -> bytes:  # which is all that stock does
            data = await read_body(length)
            note(length)
            return bytes(data)

        muxed._admit_body, muxed._read_data_body = measure_admitted, measure_read
        gone = Watch(self._server, self._hostile_seller.peer_id)
        done = trio.Event()
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, stream_count, frame_bytes, done)
                nursery.start_soon(_set_after, gone.disconnected_event, done)
                await done.wait()
                nursery.cancel_scope.cancel()
        # The flooder may have connected again meanwhile.
        self.is_cut_off = gone.disconnected_event.is_set() or muxed.is_closed

    async def _send(self, stream_count: int, frame_bytes: int, done: trio.Event) -> None:
        streams = [
            await open_raw_stream(self._hostile_seller, self._server.peer_id, "/test")
            for _ in range(stream_count)
        ]
        muxed = streams[0].muxed_stream.conn
        with suppress(Exception):
            for number in range(8 * 2**20 // frame_bytes):
                stream_id = streams[number % stream_count].muxed_stream.stream_id
                header = struct.pack("!BBHII", 0, 0, 0, stream_id, frame_bytes)
                await muxed._write_frame(header + bytes(frame_bytes))
            # A stream opened after all of it: its answer says that the rest has been taken in.
            await open_raw_stream(self._hostile_seller, self._server.peer_id, "/test")
            done.set()


async def _set_after(first: trio.Event, second: trio.Event) -> None:
    await first.wait()
    second.set()


@asynccontextmanager
async def start_flooded(folder: Path, **changes: Any) -> AsyncIterator[Flooded]:
    async with start_networks(folder, ["hostile_seller", "cone"], **changes) as (seller, cone):

        async def never_read(_stream: Any) -> None:
            await trio.sleep_forever()

        cone.stack.host.set_stream_handler(TProtocol("/test"), never_read)
        yield Flooded(cone, seller)
