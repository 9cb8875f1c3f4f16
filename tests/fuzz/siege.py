"""Attackers that send frame after frame on every protocol, and an honest peer that wants a blob."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import trio
from libp2p.peer.id import ID

from d2m_node.errors import TransientError
from d2m_node.network.adapter import Libp2pNetwork
from tests.fuzz.frames import BLOB, DIGEST, Arsenal
from tests.fuzz.target import Target, start_target
from tests.support.network import open_raw_stream, start_network

Number = TypeVar("Number", int, float)

ATTACKERS = 5
MUXING_ATTACKERS = 1
WARM_UP_SHARE = 0.1
"""Of the frames: then the memory is taken that later is compared with."""
SETTLE_SECONDS = 20.0
HONEST_SECONDS = 60.0
"""For one fetch of the honest peer, on a machine that does nothing but attack."""
GROWTH_BYTES = 32 * 2**20
GROWTH_FDS = 16
BURSTS = {"/meshsub/": 400, "/d2m/chunks": 40, "/ipfs/ping": 100, "multistream": 100}
"""Frames on one stream at most, where the node reads on after the first."""
MUXED, RAW, NEGOTIATION = "yamux", "bytes on the port", "multistream"
SHARES = {MUXED: 0.3, "/meshsub/": 0.3, "/d2m/chunks": 0.15, "/ipfs/ping": 0.1, NEGOTIATION: 0.1}
"""Of all frames. The other ways, on which each frame costs a stream, share what is left."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the node takes at one moment."""

    rss_bytes: int
    fds: int
    threads: int


@dataclass
class Report:
    """What was sent, and what it did to the node."""

    seed: int
    frames: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    start: Usage | None = None
    warm: Usage | None = None
    end: Usage | None = None
    most_rss_bytes: int = 0
    most_fds: int = 0
    honest_fetches: int = 0
    honest_failures: list[str] = field(default_factory=list)
    restarts: int = 0
    faults: int = 0
    died: bool = False

    @property
    def total(self) -> int:
        return sum(self.frames.values())

    def find_harm(self) -> list[str]:
        """Say what a node that is well would not show."""
        assert self.end is not None
        warm = self.warm or self.start
        assert warm is not None
        harm = {
            "the process ended": self.died,
            "the network was restarted": self.restarts > 0,
            "an honest peer got nothing": bool(self.honest_failures),
            "memory grew": self.end.rss_bytes - warm.rss_bytes > GROWTH_BYTES,
            "descriptors grew": self.end.fds - warm.fds > GROWTH_FDS,
        }
        return [what for what, is_so in harm.items() if is_so]

    def describe(self) -> dict[str, Any]:
        """Return all of it for a file."""
        told = asdict(replace(self, frames=Counter()))
        return told | {"frames": dict(self.frames), "total": self.total, "harm": self.find_harm()}


async def run_siege(
    folder: Path, *, frames: int, seed: int, settle_seconds: float, say: Callable[[str], None]
) -> Report:
    """Send so many frames to a new node, and look at it afterwards."""
    report = Report(seed)
    async with (
        start_target(folder) as target,
        start_network(folder / "honest", redial_seconds=0.2) as honest,
    ):
        honest.set_address_book({target.peer_id: target.address})
        await _fetch(honest, target, report)
        began = time.monotonic()
        report.start = _measure(target, report)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, target, honest, report, frames, say)
            async with trio.open_nursery() as attack:
                for number in range(ATTACKERS):
                    attacker = _Attacker(
                        folder / f"hostile_{number}",
                        target,
                        report,
                        frames,
                        is_muxing=number < MUXING_ATTACKERS,
                    )
                    attack.start_soon(attacker.run, seed * ATTACKERS + number)
            nursery.cancel_scope.cancel()
        report.seconds = round(time.monotonic() - began, 1)
        await trio.sleep(settle_seconds)
        for _ in range(3):
            await _fetch(honest, target, report)
        report.died = target.process.poll() is not None
        report.end = _measure(target, report)
        report.restarts = target.told.get("restarts", 0)
        report.faults = target.told.get("faults", 0)
    return report


async def _watch(
    target: Target,
    honest: Libp2pNetwork,
    report: Report,
    frames: int,
    say: Callable[[str], None],
) -> None:
    """Measure, and let the honest peer have its blob again and again."""
    while True:
        await trio.sleep(2.0)
        usage = _measure(target, report)
        if report.warm is None and report.total >= WARM_UP_SHARE * frames:
            report.warm = usage
        await _fetch(honest, target, report)
        say(
            f"{report.total} frames, {usage.rss_bytes / 2**20:.0f} MB, {usage.fds} descriptors, "
            f"{report.honest_fetches} honest fetches, {len(report.honest_failures)} failed"
        )


def _measure(target: Target, report: Report) -> Usage:
    process = psutil.Process(target.process.pid)
    with process.oneshot():
        usage = Usage(process.memory_info().rss, process.num_fds(), process.num_threads())
    report.most_rss_bytes = max(report.most_rss_bytes, usage.rss_bytes)
    report.most_fds = max(report.most_fds, usage.fds)
    return usage


async def _fetch(honest: Libp2pNetwork, target: Target, report: Report) -> None:
    failure = "too slow"
    with trio.move_on_after(HONEST_SECONDS):
        while True:
            try:
                got = await honest.fetch_blob(DIGEST, sources=[target.peer_id], max_bytes=len(BLOB))
            except TransientError as exc:  # as a role does, try again
                failure = str(exc)
                await trio.sleep(0.5)
                continue
            assert got == BLOB
            report.honest_fetches += 1
            return
    report.honest_failures.append(failure)


class _Attacker:
    """One hostile peer with a connection of its own."""

    def __init__(
        self, folder: Path, target: Target, report: Report, frames: int, *, is_muxing: bool
    ) -> None:
        """Attack below the streams, or on them: whoever does the first spoils its connection."""
        self._folder = folder
        self._target = target
        self._report = report
        self._frames = frames
        self._is_muxing = is_muxing
        self._ways = [RAW, NEGOTIATION, *target.protocols]
        self._shares = {way: _find(SHARES, way, 0.0) for way in self._ways}
        rest = 1.0 - sum(SHARES.values())
        few = [way for way, share in self._shares.items() if not share]
        self._shares |= dict.fromkeys(few, rest / len(few))

    async def run(self, seed: int) -> None:
        """Attack until all attackers together have sent enough."""
        arsenal = Arsenal(seed)
        dice = random.Random(seed)
        async with start_network(
            self._folder, redial_seconds=0.05, max_penalty=1e12, max_redial_seconds=0.2
        ) as network:
            network.set_address_book({self._target.peer_id: self._target.address})
            while self._report.total < self._frames:
                with trio.move_on_after(5.0), suppress(Exception):
                    if self._is_muxing:
                        await self._send_muxed(network, arsenal)
                        continue
                    way = self._choose(dice)
                    if way == RAW:
                        await self._send_raw(arsenal)
                    else:
                        await self._send(network, arsenal, way)
                await trio.lowlevel.checkpoint()

    def _choose(self, dice: random.Random) -> str:
        """Choose a way that has had less than its share so far."""
        sent, total = self._report.frames, self._report.total
        behind = [way for way in self._ways if sent[way] <= self._shares[way] * total]
        return dice.choice(behind if behind and dice.randrange(4) else self._ways)

    async def _send(self, network: Libp2pNetwork, arsenal: Arsenal, protocol: str) -> None:
        """Send a burst of frames on a stream, whatever comes last being damaged or noise."""
        await network.stack.peers.reach(self._target.peer_id)
        if protocol == NEGOTIATION:
            stream: Any = await self._find_connection(network).open_stream()
        else:
            stream = await open_raw_stream(network, self._target.peer_id, protocol)
        longest = _find(BURSTS, protocol, 2)
        frames = [arsenal.draw_whole(protocol) for _ in range(arsenal.dice.randrange(longest))]
        frames.append(arsenal.draw(protocol))
        await stream.write(b"".join(frames))
        self._report.frames[protocol] += len(frames)
        await (stream.close() if arsenal.dice.randrange(2) else stream.reset())

    def _find_connection(self, network: Libp2pNetwork) -> Any:
        swarm = network.stack.host.get_network()
        (connection, *_) = swarm.connections[ID(self._target.peer_id)]
        return connection.muxed_conn

    async def _send_muxed(self, network: Libp2pNetwork, arsenal: Arsenal) -> None:
        """Send yamux frames as they come, in an honest Noise session; some end the connection."""
        if self._report.frames[MUXED] > SHARES[MUXED] * self._report.total + 1000:
            await trio.sleep(0.1)
            return
        swarm = network.stack.host.get_network()
        await swarm.close_peer(ID(self._target.peer_id))
        await network.stack.peers.reach(self._target.peer_id)
        muxed = self._find_connection(network)
        for _ in range(arsenal.dice.randrange(20)):
            frames = [arsenal.draw_muxed(list(muxed.streams)) for _ in range(200)]
            await muxed._write_frame(b"".join(frames))
            self._report.frames[MUXED] += len(frames)
        if arsenal.dice.randrange(4) == 0:  # a length that is a lie
            await muxed._write_frame(b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\xff\xff" + bytes(9))
            self._report.frames[MUXED] += 1

    async def _send_raw(self, arsenal: Arsenal) -> None:
        """Send bytes where a handshake is expected."""
        stream = await trio.open_tcp_stream("127.0.0.1", self._target.port)
        async with stream:
            for _ in range(arsenal.dice.randrange(1, 6)):
                await stream.send_all(arsenal.draw("/multistream/1.0.0"))
                self._report.frames[RAW] += 1


def _find(table: Mapping[str, Number], way: str, default: Number) -> Number:
    return next((value for part, value in table.items() if part in way), default)
