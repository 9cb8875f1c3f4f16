"""Makes faults happen in a running simulation, and remembers whom they befell.

Faults begin with a block of the chain, and end after so many. Two that befall one node add up: a
node that is cut off twice is back when both are over.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import trio

from d2m_node.simulation.chain.ledger import Ledger
from d2m_node.simulation.network.fabric import Fabric
from d2m_node.simulation.report.record import Record
from d2m_node.simulation.scenario.faults import Fault
from d2m_node.simulation.scenario.plan import Scenario
from d2m_node.simulation.world.simulated_node import SimulatedNode
from protocol.types import Address, BlockNumber

AFTERMATH_BLOCKS: Final = 4
"""So long a node may still suffer from a fault that is over: it starts, pulls, catches up."""


class Director:
    """Lets things go wrong as the scenario says."""

    def __init__(
        self,
        scenario: Scenario,
        nodes: Mapping[str, SimulatedNode],
        ledger: Ledger,
        fabric: Fabric,
        record: Record,
    ) -> None:
        self._scenario = scenario
        self._nodes = nodes
        self._ledger = ledger
        self._fabric = fabric
        self._record = record
        self._islands: list[frozenset[str]] = []
        self._down: Counter[str] = Counter()
        self._unreachable: Counter[str] = Counter()
        self._suffered: dict[str, set[int]] = {}
        """Blocks in which each node suffered, by name."""
        self.happened: Counter[str] = Counter()
        """How often each kind of fault has begun."""
        self._opening_block = 0
        self._turned: set[int] = set()
        """Blocks that were taken back, more in a row than nodes wait."""
        self._held_up = range(0)
        """Blocks that were taken back in a row: a call in the first of them is mined after all."""

    async def run(self, opening_block: int) -> None:
        """Begin faults with their blocks, until cancelled; then all of them are over."""
        scenario, self._opening_block = self._scenario, opening_block
        async with trio.open_nursery() as nursery:
            offset = 0
            while True:
                await self._ledger.wait_mined(BlockNumber(opening_block + offset))
                for fault in self._list_faults(offset):
                    nursery.start_soon(self._let_happen, fault, name=fault.kind)
                offset = max(offset + 1, self._ledger.state.block_number - opening_block)
                if not scenario.faults and scenario.random_faults is None:
                    return

    def _list_faults(self, offset: int) -> Iterator[Fault]:
        yield from (one for one in self._scenario.faults if one.block == offset)
        plan = self._scenario.random_faults
        drawn = (
            None if plan is None else plan.draw(self._scenario.seed, offset, self._scenario.sizes)
        )
        if drawn is not None:
            yield drawn

    def is_excused(self, account: Address, since: BlockNumber, until: BlockNumber) -> bool:
        """Tell whether a node suffered from a fault, or what it left, between two blocks."""
        suffered: set[int] = set()
        for name, node in self._nodes.items():
            if node.identity.account == account:
                suffered = self._suffered.get(name, suffered)
        return any(since <= block <= until for block in self._turned) or any(
            since - AFTERMATH_BLOCKS <= block <= until for block in suffered
        )

    def has_turned(self, since: BlockNumber) -> bool:
        """Tell whether more blocks were taken back since a block than nodes wait."""
        return any(block >= since for block in self._turned)

    async def _let_happen(self, fault: Fault) -> None:
        self.happened[fault.kind] += 1
        self._record.note("fault", what=fault.kind, nodes=list(fault.nodes), blocks=fault.blocks)
        match fault.kind:
            case "reorganisation":
                self._reorganise(fault.depth)
            case "late-block":
                block_seconds = self._scenario.chain.block_seconds
                seconds = block_seconds if fault.seconds is None else fault.seconds
                self._ledger.delay_next_block(seconds)
            case "partition":
                await self._part(frozenset(fault.nodes), fault.blocks)
            case _:
                async with trio.open_nursery() as nursery:
                    for name in fault.nodes:
                        nursery.start_soon(partial(self._strike, fault, name))

    def _reorganise(self, depth: int) -> None:
        # Before the auction there is nothing to lose, and the contracts must stay.
        depth = min(depth, self._ledger.state.block_number - self._opening_block)
        if depth == 0:
            return
        self._ledger.reorganise(depth)
        head = self._ledger.state.block_number
        first = head - depth + 1
        is_in_a_row = first <= self._held_up.stop
        self._held_up = range(min(first, self._held_up.start) if is_in_a_row else first, head + 1)
        if len(self._held_up) > self._scenario.chain.confirmations:
            self._turned.update(self._held_up)

    async def _strike(self, fault: Fault, name: str) -> None:
        match fault.kind:
            case "crash":
                await self._take_down(name, fault.blocks)
            case "cut-chain":
                await self._cut_chain(name, fault.blocks)
            case "cut-peers":
                await self._part(frozenset({name}), fault.blocks)
            case _:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cut_chain, name, fault.blocks)
                    nursery.start_soon(self._part, frozenset({name}), fault.blocks)

    async def _take_down(self, name: str, blocks: int) -> None:
        self._down[name] += 1
        self._nodes[name].crash()
        try:
            await self._suffer([name], blocks)
        finally:
            self._down[name] -= 1
            if self._down[name] == 0:
                self._nodes[name].start()

    async def _cut_chain(self, name: str, blocks: int) -> None:
        account = self._nodes[name].identity.account
        self._unreachable[name] += 1
        self._ledger.set_reachable(account, is_reachable=False)
        try:
            await self._suffer([name], blocks)
        finally:
            self._unreachable[name] -= 1
            if self._unreachable[name] == 0:
                self._ledger.set_reachable(account, is_reachable=True)

    async def _part(self, island: frozenset[str], blocks: int) -> None:
        """Let an island of nodes speak with nobody else."""
        self._islands.append(island)
        self._apply_islands()
        try:
            await self._suffer(sorted(island), blocks)
        finally:
            self._islands.remove(island)
            self._apply_islands()

    def _apply_islands(self) -> None:
        """Two nodes can speak if every island has both of them or neither."""
        if not self._islands:
            self._fabric.heal()
            return
        groups: dict[tuple[bool, ...], list[bytes]] = {}
        for name, node in self._nodes.items():
            place = tuple(name in island for island in self._islands)
            groups.setdefault(place, []).append(node.identity.peer_id)
        self._fabric.partition(list(groups.values()))

    async def _suffer(self, names: Sequence[str], blocks: int) -> None:
        """Let so many blocks pass, and note who suffers in each of them."""
        for _ in range(blocks):
            number = self._ledger.state.block_number
            for name in names:
                self._suffered.setdefault(name, set()).add(number + 1)
            await self._ledger.wait_mined(BlockNumber(number + 1))
