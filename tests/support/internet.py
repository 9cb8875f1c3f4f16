"""A small internet: machines in network namespaces of their own, some of them behind a NAT.

Each machine is a process with one TUN device. What it sends comes here, where packets are delivered
by address; a NAT rewrites them as home routers do, and drops what nobody inside has asked for.
"""

import array
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio

TUN: Final = "/dev/net/tun"
TUNSETIFF: Final = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
IPV4: Final = 4
TCP: Final = 6
MAX_PACKET: Final = 2048
ANSWER_SECONDS: Final = 60.0

BOOT = """
import fcntl, os, socket, struct, subprocess, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, {setiff}, struct.pack("16sH", b"tun0", {flags}))
for command in (
    "ip link set lo up", "ip addr add {address}/32 dev tun0",
    "ip link set tun0 mtu 1400 up", "ip route add default dev tun0",
):
    subprocess.run(command.split(), check=True)
with socket.socket(fileno={channel}) as channel:
    socket.send_fds(channel, [b"x"], [tun])
os.close(tun)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
"""


def explain_why_not() -> str | None:
    """Say why this machine can have no such internet; None if it can."""
    program = f"import os; os.open({TUN!r}, os.O_RDWR)"
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", program]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        return "there is no unshare command"
    return done.stderr.decode().strip().rpartition("\n")[2] if done.returncode else None


@dataclass
class Nat:
    """A home router: one public address, and doors that open from inside only."""

    public: str
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """Outer port by inner address and port: the same for whoever is spoken to."""
    doors: set[tuple[int, str, int]] = field(default_factory=set)
    """Outer port, and who was spoken to from it."""
    dropped: int = 0

    def leave(self, packet: "Packet") -> None:
        inner = packet.source
        port = self.ports.setdefault(inner, inner[1])
        self.doors.add((port, *packet.target))
        packet.source = (self.public, port)

    def enter(self, packet: "Packet") -> bool:
        """Rewrite what comes from outside. Returns whether anybody has asked for it."""
        port = packet.target[1]
        if (port, *packet.source) not in self.doors:
            self.dropped += 1
            return False
        packet.target = next(inner for inner, outer in self.ports.items() if outer == port)
        return True


class Packet:
    """A TCP segment in IPv4, whose addresses can be changed."""

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)
        self._start = (data[0] & 15) * 4
        source_port, target_port = struct.unpack_from("!HH", data, self._start)
        self.source = (socket.inet_ntoa(data[12:16]), source_port)
        self.target = (socket.inet_ntoa(data[16:20]), target_port)

    def encode(self) -> bytes:
        """Return the bytes, with sums that are right again."""
        data, start = self._data, self._start
        data[12:16] = socket.inet_aton(self.source[0])
        data[16:20] = socket.inet_aton(self.target[0])
        struct.pack_into("!HH", data, start, self.source[1], self.target[1])
        data[10:12] = b"\0\0"
        struct.pack_into("!H", data, 10, _sum(bytes(data[:start])))
        data[start + 16 : start + 18] = b"\0\0"
        segment = bytes(data[start:])
        pseudo = bytes(data[12:20]) + struct.pack("!BBH", 0, TCP, len(segment))
        struct.pack_into("!H", data, start + 16, _sum(pseudo + segment))
        return bytes(data)


def _sum(data: bytes) -> int:
    """Compute the internet's checksum."""
    words = array.array("H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return socket.ntohs(~total & 0xFFFF)


@dataclass
class Machine:
    """A process with an address; it is asked by lines of JSON."""

    address: str
    process: trio.Process

    async def ask(self, **question: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        await self.process.stdin.send_all(json.dumps(question).encode() + b"\n")
        return await self.read()

    async def read(self) -> Any:
        assert self.process.stdout is not None
        line = b""
        with trio.fail_after(ANSWER_SECONDS):
            while not line.endswith(b"\n"):
                received = await self.process.stdout.receive_some(1)
                if not received:
                    raise EOFError("the machine has ended")
                line += received
        return json.loads(line)


class Internet:
    """Delivers packets between the machines."""

    def __init__(self, tasks: trio.Nursery) -> None:
        self._tasks = tasks
        self._wires: dict[str, int] = {}
        self._nats: dict[str, Nat] = {}
        self._processes: list[trio.Process] = []
        self.carried: dict[tuple[str, str], int] = {}
        """Bytes by the addresses that the public sees."""

    async def start(
        self, program: str, *arguments: str, address: str, nat: Nat | None = None
    ) -> Machine:
        """Start a program on a machine of its own."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        boot = BOOT.format(
            setiff=TUNSETIFF, flags=IFF_TUN | IFF_NO_PI, address=address, channel=theirs.fileno()
        )
        unshare = ["unshare", "--user", "--map-root-user", "--net"]
        process = await trio.lowlevel.open_process(
            [*unshare, sys.executable, "-c", boot, program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        self._processes.append(process)
        theirs.close()
        with ours:
            _, wires, _, _ = await trio.to_thread.run_sync(socket.recv_fds, ours, 16, 1)
        (wire,) = wires
        os.set_blocking(wire, False)
        self._wires[address] = wire
        if nat is not None:
            self._nats[address] = nat
        self._tasks.start_soon(self._carry, address, wire)
        return Machine(address, process)

    async def _carry(self, address: str, wire: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(wire)
            data = os.read(wire, MAX_PACKET)
            if data[0] >> 4 == IPV4 and data[9] == TCP:
                self._deliver(address, Packet(data))

    def _deliver(self, origin: str, packet: Packet) -> None:
        nat = self._nats.get(origin)
        if nat is not None:
            nat.leave(packet)
        seen = packet.source[0], packet.target[0]
        target = next((n for n in self._nats.values() if n.public == packet.target[0]), None)
        if target is not None and not target.enter(packet):
            return
        wire = self._wires.get(packet.target[0])
        is_hidden = target is None and packet.target[0] in self._nats
        if wire is not None and not is_hidden:
            encoded = packet.encode()
            self.carried[seen] = self.carried.get(seen, 0) + len(encoded)
            os.write(wire, encoded)

    async def close(self) -> None:
        """Take all machines off, and kill them."""
        for process in self._processes:
            process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()
        for wire in self._wires.values():
            os.close(wire)


@asynccontextmanager
async def open_internet() -> AsyncIterator[Internet]:
    """Have an internet while the context is open; its machines are killed at the end."""
    async with trio.open_nursery() as tasks:
        internet = Internet(tasks)
        try:
            yield internet
        finally:
            tasks.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await internet.close()
