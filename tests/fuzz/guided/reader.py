"""What is fuzzed: one way by which hostile bytes come in, and what may come of them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar

import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import YamuxStream
from trio._core._run import _r as scheduling
from trio.testing import MockClock

from tests.fuzz.guided.forms import ChangeBytes, Form, change

T = TypeVar("T")

MAX_READERS = 256
"""The first byte of an input chooses one."""
BUGS = (AssertionError, AttributeError, NameError)
"""No bytes may lead to these, whatever the error is that they are turned into."""
PEER = bytes.fromhex("002408011220") + bytes(range(32))
"""Who sends all that is read."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One reader of hostile bytes."""

    name: str
    read: Callable[[bytes], object]
    """Read them, and check what came of it; what it raises beyond ``refusals`` is a finding."""
    refusals: tuple[type[Exception], ...] = ()
    """What it may say of bytes that are none of its own."""
    seeds: Sequence[bytes] = ()
    """What to begin with: real ones."""
    form: Form = Form.PLAIN
    own_bytes: int = 0
    """At the beginning, before what has that form: they choose what is read, and how."""


def choose_reader(readers: Sequence[Reader], data: bytes) -> Reader:
    """Return the reader that an input is for."""
    return readers[(data[0] if data else 0) % len(readers)]


def run_input(readers: Sequence[Reader], data: bytes) -> tuple[Reader, bool]:
    """Give an input to the reader that its first byte chooses; say whether that took it."""
    reader = choose_reader(readers, data)
    try:
        reader.read(data[1:])
    except reader.refusals as refusal:
        if isinstance(refusal.__cause__, BUGS):  # behind "errors of any layer"
            raise refusal.__cause__ from refusal
        return reader, False
    return reader, True


def change_input(
    readers: Sequence[Reader], data: bytes, dice: Random, change_bytes: ChangeBytes
) -> bytes:
    """Change an input somewhere, or within the form that its reader reads."""
    if len(data) < 2 or dice.randrange(2):
        return change_bytes(data)
    reader = choose_reader(readers, data)
    at = 1 + reader.own_bytes
    return data[:at] + change(data[at:], reader.form, dice, change_bytes)


def list_seeds(readers: Sequence[Reader]) -> list[bytes]:
    """Return the inputs to begin with."""
    assert len(readers) <= MAX_READERS
    return [bytes([index]) + seed for index, one in enumerate(readers) for seed in one.seeds]


def run_alone(call: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run a call with trio: its tasks take turns in the same order each time, and none waits.

    The clock jumps whenever all tasks wait, also for a thread: so there are no threads.
    """
    scheduling.seed(0)
    in_thread = trio.to_thread.run_sync
    trio.to_thread.run_sync = _run_inline  # type: ignore[assignment]
    try:
        return trio.run(call, *args, clock=MockClock(autojump_threshold=0))
    finally:
        trio.to_thread.run_sync = in_thread


async def _run_inline(call: Callable[..., T], *args: Any, **_options: Any) -> T:
    """Stand for `trio.to_thread.run_sync`."""
    await trio.lowlevel.checkpoint()
    return call(*args)


class HostileStream:
    """A libp2p stream whose other end has sent all that it ever will; nothing on it waits."""

    def __init__(self, data: bytes, peer_id: bytes = PEER) -> None:
        self.muxed_conn = SimpleNamespace(peer_id=ID(peer_id))
        self.written = bytearray()
        self.is_ended = False
        self._left = memoryview(data)
        # Who reads blocks waits for them below the stream; there nothing more comes.
        self.muxed_stream = YamuxStream.__new__(YamuxStream)
        self.muxed_stream.conn = SimpleNamespace(stream_buffers={})  # type: ignore[assignment]
        self.muxed_stream.stream_id = 1
        self.muxed_stream.recv_closed = True

    async def read(self, count: int | None = None) -> bytes:
        size = len(self._left) if count is None else count
        piece, self._left = self._left[:size], self._left[size:]
        return bytes(piece)

    async def write(self, data: bytes) -> None:
        self.written += data

    async def close(self) -> None:
        self.is_ended = True

    async def reset(self) -> None:
        self.is_ended = True
