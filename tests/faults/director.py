"""Decides at each point that a node reports whether a fault falls there, and sees it through."""

import json
import os
import signal
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from d2m_node.calls import ContractCall
from d2m_node.chain.artifacts import TOKEN, load_artifact
from d2m_node.chain.signing import parse_transaction
from d2m_node.devnet.launcher import Devnet
from protocol.job import JobPhase
from tests.faults.setups import Provocation, Setup
from tests.faults.switchboard import Switchboard, Wire
from tests.faults.table import Cell, Fault

AWAY_BLOCKS = 4
"""How long a node is stopped or cut off: more than any one window but the longest."""
CUTS = {
    Fault.CUT_CHAIN: frozenset({Wire.CHAIN}),
    Fault.CUT_PEERS: frozenset({Wire.PEERS}),
    Fault.CUT_ALL: frozenset({Wire.CHAIN, Wire.PEERS}),
}
ROLES_OUT = {"cone": 2, "seller": 1, "buyer": 1}
"""So many nodes of a role may be away at once."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a node is."""

    node: str
    action: str
    side: str
    details: dict[str, Any]

    @property
    def role(self) -> str:
        """The node's role."""
        return self.node.rsplit("-", 1)[0]


@dataclass(slots=True)
class Outage:
    """A node was away."""

    node: str
    fault: Fault
    cell: str
    first_block: int
    away_blocks: int
    last_block: int | None = None
    """None as long as it is not back."""


@dataclass
class Records:
    """What the harness has seen of all nodes, over all their lives."""

    outages: list[Outage] = field(default_factory=list)
    hits: dict[str, Point] = field(default_factory=dict)
    """The point at which each cell's fault fell."""
    statements: dict[tuple[Any, ...], set[str]] = field(default_factory=lambda: defaultdict(set))
    """What each node signed, by what it may sign only once."""


class Director:
    """Holds what is to happen, and makes it happen."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.records = Records()
        self._nursery = nursery
        self._switchboard: Switchboard | None = None
        self._devnet: Devnet | None = None
        self._opened = trio.Event()
        self._armed: list[Cell] = []
        self._provocations: list[Provocation] = []
        self._keeps_majority = True
        self._away: set[str] = set()
        self._hit_ballots: dict[tuple[int, int, str], int] = defaultdict(int)
        self._calls = _name_calls()
        self.idle = trio.Event()
        self.idle.set()
        self.all_hit = trio.Event()
        """Set once no fault is armed."""

    def open(self, devnet: Devnet) -> None:
        """Take charge of a market's nodes; until then they wait at their first point."""
        self._devnet = devnet
        self._opened.set()

    @property
    def devnet(self) -> Devnet:
        """The market."""
        assert self._devnet is not None
        return self._devnet

    def find_pid(self, node: str) -> int:
        """Return the process id of a node."""
        return self.devnet.processes.pid(node)

    @property
    def switchboard(self) -> Switchboard:
        """The market's network."""
        assert self._switchboard is not None
        return self._switchboard

    @switchboard.setter
    def switchboard(self, board: Switchboard) -> None:
        self._switchboard = board

    def arm(self, cells: Sequence[Cell], setup: Setup) -> None:
        """Let these faults fall, each at the first node that reaches its point."""
        self._armed = list(cells)
        self._provocations = [one for one in setup.provocations for _ in range(one.count)]
        self._keeps_majority = not setup.may_void
        if not cells:
            self.all_hit.set()
        elif self.all_hit.is_set():
            self.all_hit = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one node's reports, in its order."""
        buffer = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await stream.receive_some(1 << 16):
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    point = Point(told.pop("node"), told.pop("action"), told.pop("side"), told)
                    if await self._reach(point):
                        await stream.send_all(b"go\n")

    async def see_sent(self, node: str, raw: bytes) -> None:
        """Take note of a transaction that the chain has."""
        selector = parse_transaction(raw).data[:4]
        name = self._calls.get(selector, "filler")
        await self._reach(Point(node, f"tx/{name}", "sent", {}))

    async def _reach(self, point: Point) -> bool:
        """Return whether the node may go on; a dead one may not."""
        await self._opened.wait()
        note_statement(self.records, point)
        provocation = self._find_provocation(point)
        if provocation is not None:
            self._provocations.remove(provocation)
            return await self._hit(
                Outage(point.node, provocation.fault, "", self._block(), provocation.blocks)
            )
        cell = self._find_cell(point)
        if cell is None:
            return True
        self._armed.remove(cell)
        if not self._armed:
            self.all_hit.set()
        self.records.hits[cell.cell_id] = point
        return await self._hit(
            Outage(point.node, cell.fault, cell.cell_id, self._block(), AWAY_BLOCKS)
        )

    def _find_provocation(self, point: Point) -> Provocation | None:
        if point.node in self._away:
            return None
        for one in self._provocations:
            if (one.action, one.side, one.role) == (point.action, point.side, point.role):
                if one.count == 1:  # more of them leave no majority anyway
                    self._take_ballot(point.role)
                return one
        return None

    def _find_cell(self, point: Point) -> Cell | None:
        if point.node in self._away:
            return None
        role, limit = point.role, ROLES_OUT[point.role]
        away = sum(name.startswith(role) for name in self._away)
        if self._keeps_majority and away >= limit:
            return None
        for cell in self._armed:
            is_here = (cell.step.action, cell.side) == (point.action, point.side)
            if is_here and cell.step.role in (role, "any") and self._take_ballot(role):
                return cell
        return None

    def _take_ballot(self, role: str) -> bool:
        """Count the faults of a role in the open ballot: a majority has to stay untouched."""
        jobs = self.devnet.chain.state.jobs
        job = jobs[max(jobs)] if jobs else None
        if job is None or job.ballot is None or job.phase is not JobPhase.TRAINING:
            return True
        place = (job.job_id, job.ballot.ballot_number, role)
        if self._hit_ballots[place] >= ROLES_OUT[role]:
            return False
        self._hit_ballots[place] += 1
        return True

    def _block(self) -> int:
        return int(self.devnet.chain.state.block_number)

    async def _hit(self, outage: Outage) -> bool:
        self._away.add(outage.node)
        self.idle = trio.Event()
        self.records.outages.append(outage)
        node, fault = outage.node, outage.fault
        processes = self.devnet.processes
        match fault:
            case Fault.KILL:
                processes.end(node, signal.SIGKILL)
                await processes.wait_ended(node)
                self._nursery.start_soon(self._start_again, outage)
                return False
            case Fault.RESTART:
                processes.end(node, signal.SIGTERM)
                self._nursery.start_soon(self._start_again, outage)
            case Fault.STOP:
                os.kill(processes.pid(node), signal.SIGSTOP)
                self._nursery.start_soon(self._continue, outage)
            case _:
                self.switchboard.cut(node, CUTS[fault])
                self._nursery.start_soon(self._mend, outage)
        return True

    async def _start_again(self, outage: Outage) -> None:
        await self.devnet.processes.wait_ended(outage.node)
        plan = next(one for one in self.devnet.plans if one.name == outage.node)
        await self.devnet.processes.start(plan)
        await wait_ready(plan.folder / "rpc.sock")
        self._end(outage)

    async def _continue(self, outage: Outage) -> None:
        await self._wait_blocks(outage.away_blocks)
        os.kill(self.devnet.processes.pid(outage.node), signal.SIGCONT)
        self._end(outage)

    async def _mend(self, outage: Outage) -> None:
        await self._wait_blocks(outage.away_blocks)
        self.switchboard.mend(outage.node, CUTS[outage.fault])
        self._end(outage)

    async def _wait_blocks(self, count: int) -> None:
        last = self._block() + count
        await self.devnet.chain.wait_for(lambda state: state.block_number >= last or None)

    def _end(self, outage: Outage) -> None:
        outage.last_block = self._block()
        self._away.discard(outage.node)
        if not self._away:
            self.idle.set()


async def wait_ready(path: Any) -> None:
    """Return once a node's socket takes connections."""
    while True:
        with suppress(OSError):
            await (await trio.open_unix_socket(str(path))).aclose()
            return
        await trio.sleep(0.1)


def note_statement(records: Records, point: Point) -> None:
    """Keep what a node says only once, whatever life it is in."""
    told = point.details
    match point.action:
        case "say/VoteCommit":
            place: tuple[Any, ...] = (told["job_id"], told["round_index"], told["mini"])
            what = told["commitment"]
        case "say/UpdateCommit":
            place, what = (told["job_id"], told["round_index"]), told["commitment"]
        case "say/AvailabilityBitmap":
            place = (told["job_id"], told["round_index"], told["attempt"])
            what = told["bitmap"]
        case _:
            return
    records.statements[(point.action, point.node, *place)].add(what)


def _name_calls() -> dict[bytes, str]:
    """Name each function of the contracts by the class of its call, by its selector."""
    names = {}
    calls: Sequence[type] = ContractCall.__args__
    for call in calls:
        artifact = TOKEN if call.contract == TOKEN.name else load_artifact(call.contract)
        names[artifact.functions[call.function].selector] = call.__name__
    return names
