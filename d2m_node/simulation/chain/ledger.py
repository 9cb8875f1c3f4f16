"""The simulated chain in virtual time, and what each node sees of it.

One `Ledger` per run. All that happens on it follows from the calls, the order in which they came,
and the seed. Nodes see it through views, each after its own delay; what is to be seen is kept once
and shared by all.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

import trio

from d2m_node.chain.bindings import Bindings, EncodedCall
from d2m_node.errors import ChainUnavailable
from d2m_node.ports import ChainPort, TakenBack
from d2m_node.simulation.chain.blockchain import Blockchain, LedgerOptions
from d2m_node.simulation.chain.blocks import MinedBlock
from d2m_node.simulation.chain.pool import PooledCall, SentCalls
from d2m_node.simulation.chain.screens import Outage, Screens, Tip
from d2m_node.simulation.chain.view import make_view
from protocol.events import RecordedEvent
from protocol.hashing import Domain
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.types import Address, Wei

__all__ = ("Ledger", "LedgerOptions", "open_ledger")


class Ledger:
    """One chain with one market, that grows by a block every ``block_seconds``."""

    def __init__(
        self, params: ProtocolParams, balances: Mapping[Address, Wei], options: LedgerOptions
    ) -> None:
        """Deploy the contracts; more is mined while `run` does."""
        self._options = options
        self._chain = Blockchain(params, balances, options)
        self._domain = Domain(options.chain_id, self._chain.bindings.address_of("Market"))
        self._started = trio.current_time()
        self._due = self._started + options.block_seconds
        self._first_timestamp = self._chain.blocks[-1].timestamp
        self._outages: dict[Address, Outage] = {}
        self._screens = Screens(self._make_tip)

    # --- what it is and holds --------------------------------------------------------------------

    @property
    def params(self) -> ProtocolParams:
        """What the contracts were deployed with; they name the token, if there is one."""
        return self._chain.params

    @property
    def domain(self) -> Domain:
        """The chain id and the market."""
        return self._domain

    @property
    def bindings(self) -> Bindings:
        """The contracts of the deployment."""
        return self._chain.bindings

    @property
    def patience_seconds(self) -> float:
        """How long a call waits for a chain that cannot be reached."""
        return self._options.patience_seconds

    @property
    def state(self) -> MarketState:
        """The fold of all events up to the newest block."""
        return self._chain.state

    @property
    def blocks(self) -> Sequence[MinedBlock]:
        """All blocks of the branch that holds: a block's place is its number."""
        return self._chain.blocks

    @property
    def history(self) -> Sequence[RecordedEvent | TakenBack]:
        """All that nodes are told, in the order in which it was mined."""
        return self._chain.history

    @property
    def pool_size(self) -> int:
        """How many calls are sent and not mined."""
        return self._chain.pool_size

    def balance(self, account: Address) -> Wei:
        """Return an account's ether as of the newest block."""
        return Wei(self._chain.balances.get(account, 0))

    def token_balance(self, account: Address) -> int:
        """Return what an account has of the token as of the newest block."""
        return self._chain.tokens.get(account, 0)

    def total_wei(self) -> Wei:
        """Return all ether as of the newest block, burned fees included: it never changes."""
        return Wei(sum(self._chain.balances.values()) + self._chain.burned_wei)

    def total_tokens(self) -> int:
        """Return all of the token as of the newest block."""
        return sum(self._chain.tokens.values())

    # --- what happens to it ----------------------------------------------------------------------

    def send(self, sender: Address, call: EncodedCall, *, key: str) -> PooledCall:
        """Put a call into the pool; it is mined whatever becomes of its sender.

        Raises TransactionReverted if it would fail behind all calls that came before it.
        """
        return self._chain.send(sender, call, key=key)

    def set_reachable(self, account: Address, is_reachable: bool) -> None:
        """Cut an account off from the chain, or let it back. What it has sent is mined."""
        if is_reachable:
            outage = self._outages.pop(account, None)
            if outage is not None:
                outage.over.set()
        elif account not in self._outages:
            self._outages[account] = Outage(self._screens.read_all())

    def find_outage(self, account: Address) -> Outage | None:
        """Return the outage that an account is in; None if it reaches the chain."""
        return self._outages.get(account)

    def delay_next_block(self, seconds: float) -> None:
        """Let the next block, and all after it, come so much later."""
        self._due += seconds
        self._chain.retime(self._plan_timestamp())

    def reorganise(self, depth: int) -> None:
        """Replace the newest blocks by as many empty ones of another branch, at once.

        Their calls go back to the pool, before all that came later. What failed, and whose sender
        was told so, does not. Raises ValueError if there are too few blocks since the deployment,
        or the chain does not keep as many.
        """
        self._chain.reorganise(depth)
        self._publish()

    async def wait_mined(self, number: int) -> None:
        """Return when a block is mined."""
        while self.blocks[-1].number < number:
            await self._screens.find().advanced.wait()

    @asynccontextmanager
    async def open_view(
        self,
        account: Address,
        sent: SentCalls,
        delay_seconds: float = 0.0,
        *,
        confirmations: int = 0,
    ) -> AsyncGenerator[ChainPort, None]:
        """Show the chain to one account while the context is open.

        Blocks show ``delay_seconds`` after so many others confirm them, and calls take as long to
        arrive. What has the same delay is shown at once, which is cheaper.
        Raises ChainUnavailable if the account cannot reach the chain.
        """
        await trio.lowlevel.checkpoint()
        outage = self.find_outage(account)
        if outage is not None:
            with trio.move_on_after(self.patience_seconds):
                await outage.over.wait()
            if not outage.over.is_set():
                raise ChainUnavailable("no endpoint answers")
        yield make_view(self, account, sent, self._screens.find(delay_seconds, confirmations))

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Mine blocks in time until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._screens.run)
            self._chain.retime(self._plan_timestamp())
            task_status.started()
            while True:
                await trio.sleep_until(self._due)
                if trio.current_time() < self._due:
                    continue  # it was put off meanwhile
                self._due += self._options.block_seconds
                self._chain.mine(self._plan_timestamp())
                self._publish()
        raise AssertionError("a chain grows until its run is cancelled")

    def _plan_timestamp(self) -> int:
        """Say when the next block comes, in seconds since the epoch."""
        return self._first_timestamp + int(self._due - self._started)

    def _publish(self) -> None:
        """Show the newest block to all, each after its delay."""
        self._screens.publish()

    def _make_tip(self, confirmations: int) -> Tip:
        """Make the tip of who waits until so many blocks confirm another."""
        state, history_end = self._chain.look_back(confirmations)
        return Tip(block=self.blocks[-1 - confirmations], state=state, history_end=history_end)


@asynccontextmanager
async def open_ledger(
    params: ProtocolParams, balances: Mapping[Address, Wei], options: LedgerOptions
) -> AsyncGenerator[Ledger, None]:
    """Deploy a market on a chain of its own, and mine while the context is open."""
    ledger = Ledger(params, balances, options)
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        yield ledger
        nursery.cancel_scope.cancel()
