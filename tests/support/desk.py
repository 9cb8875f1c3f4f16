"""A sender at work on a scripted chain, followed block by block."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from trio.testing import wait_all_tasks_blocked

from d2m_node.calls import DepositStake
from d2m_node.chain.follower import Follower
from d2m_node.chain.nonces import Account
from d2m_node.chain.transactions import TransactionSender
from d2m_node.settings import ChainSettings
from d2m_node.transaction_store import TransactionStore
from protocol.types import Wei
from tests.support.chain import (
    SETTINGS,
    SIGNER,
    MemoryTransactionStore,
    ScriptedChain,
    make_bindings,
)

DEPOSIT = DepositStake(value_wei=Wei(5))


class Desk:
    """A sender with its chain and store."""

    def __init__(
        self, chain: ScriptedChain, store: TransactionStore, settings: ChainSettings
    ) -> None:
        bindings = make_bindings()
        self.chain = chain
        self.store = store
        self.follower = Follower(chain, bindings, settings)  # type: ignore[arg-type]
        self.sender = TransactionSender(
            chain,  # type: ignore[arg-type]
            self.follower,
            bindings,
            Account(SIGNER, store),
            settings,
        )

    async def follow(self) -> None:
        """Follow the chain as it is, and let the sender look at it."""
        while await self.follower.follow():
            pass
        await wait_all_tasks_blocked()

    async def mine(self, count: int = 1) -> None:
        """Mine block by block, letting the sender look at each."""
        for _ in range(count):
            await wait_all_tasks_blocked()
            self.chain.mine()
            await self.follow()


@asynccontextmanager
async def open_desk(
    chain: ScriptedChain,
    store: TransactionStore | None = None,
    settings: ChainSettings = SETTINGS,
) -> AsyncGenerator[Desk, None]:
    """Follow the chain, then start the sender, as the adapter does."""
    desk = Desk(chain, store or MemoryTransactionStore(), settings)
    while await desk.follower.follow():
        pass
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            await nursery.start(desk.sender.run)
            yield desk
            nursery.cancel_scope.cancel()
