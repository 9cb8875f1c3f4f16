"""The simulated chain as one account sees it: a `ChainPort`."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import trio

from d2m_node.calls import ContractCall
from d2m_node.chain.bindings import Bindings, EncodedCall
from d2m_node.chain.history import KEPT_EVENTS
from d2m_node.errors import ChainUnavailable
from d2m_node.ports import ChainPort, HistoryPort, TakenBack
from d2m_node.simulation.chain.blocks import MinedBlock
from d2m_node.simulation.chain.pool import PooledCall, SentCalls
from d2m_node.simulation.chain.screens import Outage, Screen, Tip
from protocol.events import RecordedEvent
from protocol.hashing import Domain
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.types import Address, BlockNumber

Found = TypeVar("Found")


class Chain(Protocol):
    """What a view needs of the chain behind it; see `Ledger`."""

    @property
    def domain(self) -> Domain:
        """The chain id and the market."""

    @property
    def params(self) -> ProtocolParams:
        """What the contracts were deployed with."""

    @property
    def bindings(self) -> Bindings:
        """The contracts of the deployment."""

    @property
    def patience_seconds(self) -> float:
        """How long a call waits for a chain that cannot be reached."""

    @property
    def history(self) -> Sequence[RecordedEvent | TakenBack]:
        """All that nodes are told, in the order in which it was mined."""

    @property
    def blocks(self) -> Sequence[MinedBlock]:
        """All blocks of the branch that holds: a block's place is its number."""

    def send(self, sender: Address, call: EncodedCall, *, key: str) -> PooledCall:
        """Put a call into the pool. Raises TransactionReverted if it would fail."""

    def find_outage(self, account: Address) -> Outage | None:
        """Return the outage that an account is in; None if it reaches the chain."""


def make_view(chain: Chain, account: Address, sent: SentCalls, screen: Screen) -> ChainPort:
    """Show what a screen shows to an account, and send its calls."""
    return _View(chain, account, sent, screen)


class _View:
    """The adapter behind `ChainPort`."""

    def __init__(self, chain: Chain, account: Address, sent: SentCalls, screen: Screen) -> None:
        self._chain = chain
        self._account = account
        self._sent = sent
        self._screen = screen

    @property
    def domain(self) -> Domain:
        return self._chain.domain

    @property
    def params(self) -> ProtocolParams:
        return self._chain.params

    @property
    def state(self) -> MarketState:
        return self._tip.state

    @property
    def history(self) -> HistoryPort:
        return _History(self._chain.history, lambda: self._tip.history_end)

    async def wait_block(self, number: BlockNumber) -> None:
        await self.wait_for(lambda state: True if state.block_number >= number else None)

    async def wait_for(self, find: Callable[[MarketState], Found | None]) -> Found:
        asked: Tip | None = None
        while True:
            outage = self._outage
            tip = self._screen.tip if outage is None else outage.tips[self._screen]
            # Taken before asking: a block that comes meanwhile is not missed.
            turned = self._screen.advanced if outage is None else outage.over
            if tip is not asked:
                found = find(tip.state)
                if found is not None:
                    return found
                asked = tip
            await turned.wait()

    async def read_randomness(self, number: BlockNumber) -> bytes:
        return (await self._read_block(number)).prevrandao

    async def read_header(self, number: BlockNumber) -> bytes:
        return (await self._read_block(number)).header

    async def submit(self, call: ContractCall, *, key: str) -> None:
        encoded = self._chain.bindings.encode_call(call)
        await trio.lowlevel.checkpoint()
        sent = self._find_sent(key)
        if sent is None:
            await self._travel(encoded.label)
            sent = self._find_sent(key) or self._send(encoded, key)
        await self._wait_settled(sent)
        error = sent.find_error()
        sent.is_told = True
        if error is not None:
            self._sent.free(sent)
            raise error

    @property
    def _outage(self) -> Outage | None:
        return self._chain.find_outage(self._account)

    @property
    def _tip(self) -> Tip:
        """The chain as it shows now; as it was, while it cannot be reached."""
        outage = self._outage
        return self._screen.tip if outage is None else outage.tips[self._screen]

    async def _read_block(self, number: BlockNumber) -> MinedBlock:
        await trio.lowlevel.checkpoint()
        if self._outage is not None:
            raise ChainUnavailable("no endpoint answers")
        newest, blocks = self._tip.block, self._chain.blocks
        if not 0 <= number <= newest.number:
            raise ChainUnavailable(f"block {number} has not been followed yet")
        is_current = newest.number < len(blocks) and blocks[newest.number] is newest
        if not is_current and newest.find(number) is not blocks[number]:
            raise ChainUnavailable(f"block {number} is no longer the one that was followed")
        return blocks[number]

    def _find_sent(self, key: str) -> PooledCall | None:
        """Return what is on its way or done for a key; nothing if that has failed."""
        sent = self._sent.find(key)
        if sent is None or (self._is_settled(sent) and sent.find_error() is not None):
            return None
        return sent

    def _send(self, call: EncodedCall, key: str) -> PooledCall:
        sent = self._chain.send(self._account, call, key=key)
        self._sent.add(sent)
        return sent

    async def _travel(self, label: str) -> None:
        """Return when a call has reached the chain. Raises ChainUnavailable."""
        await trio.sleep(self._screen.delay_seconds)
        while self._outage is not None:
            await self._wait_outage(f"no endpoint answers; {label} was not sent")

    async def _wait_settled(self, sent: PooledCall) -> None:
        """Return when a call shows as mined. Raises ChainUnavailable."""
        while not self._is_settled(sent):
            if self._outage is None:
                await self._screen.advanced.wait()
            else:
                await self._wait_outage(f"no endpoint answers; {sent.label} is still open")

    async def _wait_outage(self, complaint: str) -> None:
        outage = self._outage
        assert outage is not None, "asked while there is one"
        with trio.move_on_after(self._chain.patience_seconds):
            await outage.over.wait()
            return
        raise ChainUnavailable(complaint)

    def _is_settled(self, sent: PooledCall) -> bool:
        """Tell whether a call is mined in what shows."""
        newest = self._tip.block
        return sent.block is not None and newest.find(sent.block.number) is sent.block


class _History:
    """`HistoryPort` over the chain's own list, as far as it shows."""

    def __init__(
        self, entries: Sequence[RecordedEvent | TakenBack], find_end: Callable[[], int]
    ) -> None:
        self._entries = entries
        self._find_end = find_end

    @property
    def first(self) -> int:
        return max(0, self.end - KEPT_EVENTS)

    @property
    def end(self) -> int:
        return self._find_end()

    def read(self, number: int) -> RecordedEvent | TakenBack:
        if not self.first <= number < self.end:
            raise IndexError(number)
        return self._entries[number]
