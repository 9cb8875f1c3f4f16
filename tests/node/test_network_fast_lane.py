"""Bytes take the short way whole, in order, and within their windows."""

import os
from pathlib import Path

import pytest
import trio
from libp2p.network.stream.exceptions import StreamError
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.yamux.yamux import YamuxStream

from d2m_node.network import fast_lane
from d2m_node.network.muxing import WINDOW_BYTES
from tests.support.network import PATIENCE_SECONDS, open_raw_stream, start_networks

ECHO = "/test/echo/1"
SIZES = (1, fast_lane.BODY_BYTES, fast_lane.BODY_BYTES + 1, 3 * WINDOW_BYTES + 7)


@pytest.mark.parametrize("size", SIZES)
async def test_bytes_of_every_length_arrive_as_they_were_sent(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    async with start_networks(tmp_path, ["asker", "answerer"]) as (asker, answerer):

        async def echo(stream) -> None:  # type: ignore[no-untyped-def]
            while received := await stream.read(100_000):
                await stream.write(received)

        answerer.stack.host.set_stream_handler(ECHO, echo)
        stream = await open_raw_stream(asker, answerer.peer_id, ECHO)
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.write, data)
                received = bytearray()
                while len(received) < size:
                    received += await stream.read(50_000)
        assert received == data
        await stream.reset()


async def test_a_writer_waits_for_its_window_and_goes_on_when_it_opens(tmp_path: Path) -> None:
    data = os.urandom(2 * WINDOW_BYTES)
    async with start_networks(tmp_path, ["asker", "answerer"]) as (asker, answerer):
        taking, taken = trio.Event(), bytearray()

        async def take(stream) -> None:  # type: ignore[no-untyped-def]
            await taking.wait()
            while len(taken) < len(data):
                taken.extend(await stream.read(100_000))

        answerer.stack.host.set_stream_handler(ECHO, take)
        stream = await open_raw_stream(asker, answerer.peer_id, ECHO)
        muxed: YamuxStream = stream.muxed_stream
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.write, data)
                while muxed.send_window:
                    await trio.lowlevel.checkpoint()
                taking.set()
        with trio.fail_after(PATIENCE_SECONDS):
            while len(taken) < len(data):
                await trio.lowlevel.checkpoint()
        assert taken == data
        await stream.reset()


async def test_a_writer_that_waits_ends_when_its_stream_is_reset(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["asker", "answerer"]) as (asker, answerer):

        async def refuse(stream) -> None:  # type: ignore[no-untyped-def]
            await stream.reset()

        answerer.stack.host.set_stream_handler(ECHO, refuse)
        stream = await open_raw_stream(asker, answerer.peer_id, ECHO)
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(Exception, match=r"^$|[Ss]tream"):
            await stream.write(bytes(2 * WINDOW_BYTES))


class _Messages:
    """A connection that ends behind its messages."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)

    async def read_msg(self) -> bytes:
        return self._messages.pop(0) if self._messages else b""


def _open_session(*messages: bytes) -> SecureSession:
    session = SecureSession.__new__(SecureSession)
    session.conn = _Messages(*messages)  # type: ignore[assignment]
    session._reset_internal_buffer()
    return session


async def test_a_session_gives_what_is_asked_for_across_messages() -> None:
    session = _open_session(b"abcdef", b"gh", b"ijkl")
    read = fast_lane._read_session
    assert [await read(session, 2), await read(session, 5), await read(session, 4)] == [
        b"ab",
        b"cdefg",
        b"hijk",
    ]
    assert await read(session) == b"l"


async def test_a_session_that_ends_gives_the_rest_and_then_says_so() -> None:
    session = _open_session(b"abc")
    assert await fast_lane._read_session(session, 5) == b"abc"
    with pytest.raises(Exception, match="closed"):
        await fast_lane._read_session(session, 1)


async def test_a_reader_of_blocks_is_woken_when_all_is_there_that_may_come(tmp_path: Path) -> None:
    data = os.urandom(3 * WINDOW_BYTES + 7)
    async with start_networks(tmp_path, ["asker", "answerer"]) as (asker, answerer):

        async def give(stream) -> None:  # type: ignore[no-untyped-def]
            await stream.write(data)

        answerer.stack.host.set_stream_handler(ECHO, give)
        stream = await open_raw_stream(asker, answerer.peer_id, ECHO)
        taken, counts = memoryview(bytearray(len(data))), []
        with trio.fail_after(PATIENCE_SECONDS):
            while sum(counts) < len(data):
                counts.append(await fast_lane.receive_into(stream, taken[sum(counts) :]))
        assert taken == data
        await stream.reset()


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_reader_of_blocks_gets_what_came_before_the_end(tmp_path: Path, end: str) -> None:
    async with start_networks(tmp_path, ["asker", "answerer"]) as (asker, answerer):

        async def give_some(stream) -> None:  # type: ignore[no-untyped-def]
            await stream.write(b"some")
            await stream.close()
            if end == "reset":
                await stream.reset()

        answerer.stack.host.set_stream_handler(ECHO, give_some)
        stream = await open_raw_stream(asker, answerer.peer_id, ECHO)
        taken = memoryview(bytearray(100))
        with trio.fail_after(PATIENCE_SECONDS):
            assert await fast_lane.receive_into(stream, taken) == 4
            assert taken[:4] == b"some"
            with pytest.raises(StreamError):
                await fast_lane.receive_into(stream, taken)


async def test_a_reader_of_blocks_does_not_wait_long_for_more_than_a_byte(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["asker", "answerer"]) as (asker, answerer):

        async def give_a_byte(stream) -> None:  # type: ignore[no-untyped-def]
            await stream.write(b"x")
            await trio.sleep_forever()

        answerer.stack.host.set_stream_handler(ECHO, give_a_byte)
        stream = await open_raw_stream(asker, answerer.peer_id, ECHO)
        with trio.fail_after(PATIENCE_SECONDS):
            assert await fast_lane.receive_into(stream, memoryview(bytearray(100))) == 1
        await stream.reset()


async def test_what_opens_a_noise_message_takes_it_from_crumbs(tmp_path: Path) -> None:
    """A peer may send its messages byte by byte, or many at once."""
    async with start_networks(tmp_path, ["asker", "answerer"]) as (asker, answerer):

        async def echo(stream) -> None:  # type: ignore[no-untyped-def]
            while received := await stream.read(100):
                await stream.write(received)

        answerer.stack.host.set_stream_handler(ECHO, echo)
        stream = await open_raw_stream(asker, answerer.peer_id, ECHO)
        noise = stream.muxed_conn.secured_conn.conn
        read = noise.read_writer.read_write_closer.read

        async def read_a_crumb(_count: int) -> bytes:
            return bytes(await read(1))

        noise.read_writer.read_write_closer.read = read_a_crumb
        with trio.fail_after(PATIENCE_SECONDS):
            for word in (b"one", b"two"):
                await stream.write(word)
                assert await stream.read(100) == word
        await stream.reset()
