"""One market on either chain: a real one in a process of its own, or the simulated one."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio
from trio.testing import wait_all_tasks_blocked

from d2m_node.chain.adapter import open_chain
from d2m_node.chain.deployment import Deployment
from d2m_node.ports import ChainPort, SignerPort
from d2m_node.simulation.chain.ledger import Ledger, LedgerOptions, open_ledger
from d2m_node.simulation.chain.pool import SentCalls
from protocol.types import Wei
from tests.support.anvil import (
    CHAIN_ID,
    ONE_ETHER,
    PARAMS,
    ask,
    cone,
    deployer,
    make_settings,
    open_market,
    wait_pool,
)
from tests.support.chain import MemoryTransactionStore

KINDS = ("anvil", "simulated")


@dataclass(slots=True)
class Memory:
    """What a node keeps of its calls, whichever chain they are on."""

    stored: MemoryTransactionStore = field(default_factory=MemoryTransactionStore)
    sent: SentCalls = field(default_factory=SentCalls)


class ChainUnderTest(Protocol):
    """What the tests of `ChainPort` need of a chain besides the port."""

    def open_view(
        self, signer: SignerPort, memory: Memory
    ) -> AbstractAsyncContextManager[ChainPort]:
        """Follow and send for one account."""

    async def hold(self) -> None:
        """Mine nothing any more but what `mine` asks for."""

    async def wait_pool(self, count: int) -> None:
        """Return when as many calls wait to be mined."""

    async def mine(self, count: int) -> None:
        """Return when so many more blocks are mined."""

    async def reorganise(self, depth: int) -> None:
        """Replace the newest blocks by empty ones."""

    async def read_gas(self, number: int) -> list[int]:
        """Return what each transaction of a block used."""

    async def read_hash(self, number: int) -> bytes:
        """Return the hash of a block."""


@dataclass(frozen=True, slots=True)
class Anvil:
    """`ChainUnderTest` over JSON-RPC; a block per transaction, and on demand."""

    url: str
    deployment: Deployment

    @asynccontextmanager
    async def open_view(
        self, signer: SignerPort, memory: Memory
    ) -> AsyncGenerator[ChainPort, None]:
        async with open_chain(
            make_settings(self.url, self.deployment), signer, memory.stored
        ) as chain:
            yield chain

    async def hold(self) -> None:
        await ask(self.url, "evm_setAutomine", False)

    async def wait_pool(self, count: int) -> None:
        await wait_pool(self.url, count)

    async def mine(self, count: int) -> None:
        await ask(self.url, "anvil_mine", hex(count))

    async def reorganise(self, depth: int) -> None:
        await ask(self.url, "anvil_reorg", depth, [])

    async def read_gas(self, number: int) -> list[int]:
        receipts = await ask(self.url, "eth_getBlockReceipts", hex(number))
        return [int(one["gasUsed"], 16) for one in receipts]

    async def read_hash(self, number: int) -> bytes:
        block = await ask(self.url, "eth_getBlockByNumber", hex(number), False)
        return bytes.fromhex(block["hash"][2:])


@dataclass(frozen=True, slots=True)
class Simulated:
    """`ChainUnderTest` in this process; a block per second of virtual time."""

    ledger: Ledger

    def open_view(
        self, signer: SignerPort, memory: Memory
    ) -> AbstractAsyncContextManager[ChainPort]:
        return self.ledger.open_view(signer.address, memory.sent)

    async def hold(self) -> None:
        """Do nothing: time stands while a test runs."""

    async def wait_pool(self, count: int) -> None:
        await wait_all_tasks_blocked()
        assert self.ledger.pool_size == count

    async def mine(self, count: int) -> None:
        await self.ledger.wait_mined(self.ledger.blocks[-1].number + count)

    async def reorganise(self, depth: int) -> None:
        self.ledger.reorganise(depth)

    async def read_gas(self, number: int) -> list[int]:
        return [call.gas_used for call in self.ledger.blocks[number].calls]

    async def read_hash(self, number: int) -> bytes:
        return self.ledger.blocks[number].block_hash


@asynccontextmanager
async def open_tested_chain(kind: str) -> AsyncGenerator[ChainUnderTest, None]:
    """A market on a chain of a kind, with two rich accounts."""
    if kind == "anvil":
        async with open_market() as (url, deployment):
            yield Anvil(url, deployment)
    else:
        balances = {signer.address: Wei(1000 * ONE_ETHER) for signer in (deployer, cone)}
        options = LedgerOptions(seed=1, chain_id=CHAIN_ID)
        with trio.fail_after(10_000):
            async with open_ledger(PARAMS, balances, options) as ledger:
                yield Simulated(ledger)
