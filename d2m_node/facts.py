"""What a running node knows of itself: for `status`."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import trio

from d2m_node.backup import LOCAL_CHAIN_ID, is_backed_up
from d2m_node.clock import Clock
from d2m_node.errors import FatalError
from d2m_node.measures import (
    ChainReading,
    FeeTotal,
    MeasuredChain,
    MeasuredNetwork,
    NetworkReading,
    Reachability,
    Transfer,
)
from d2m_node.rpc.status import DiskReading
from d2m_node.settings import NodeSettings
from d2m_node.storage.database import Store
from d2m_node.storage.room import count_used
from protocol.types import Address, Wei


@dataclass(frozen=True, slots=True)
class RunningNode:
    """`NodeFacts` of this process."""

    settings: NodeSettings
    account: Address
    chain: MeasuredChain
    network: MeasuredNetwork
    store: Store
    clock: Clock
    version: str = field(default_factory=lambda: version("d2m-node"))
    started_at: float = field(default_factory=time.monotonic)

    @property
    def epsilon_budget(self) -> float | None:
        """See `NodeFacts`."""
        return self.settings.roles.seller.privacy.epsilon_budget

    def uptime_seconds(self) -> float:
        """See `NodeFacts`."""
        return time.monotonic() - self.started_at

    def is_backed_up(self) -> bool:
        """See `NodeFacts`."""
        if self.settings.chain.chain_id == LOCAL_CHAIN_ID:
            return True
        return is_backed_up(self.settings.data_dir, self.account)

    def find_clock_fault(self) -> str | None:
        """See `NodeFacts`."""
        fault = self.clock.find_fault()
        return None if fault is None else str(fault)

    async def read_disk(self) -> DiskReading:
        """See `NodeFacts`. Raises FatalError."""
        try:
            usage = await trio.to_thread.run_sync(shutil.disk_usage, self.settings.data_dir)
        except OSError as exc:
            raise FatalError(f"{self.settings.data_dir}: {exc.strerror}") from exc
        return DiskReading(
            blob_bytes=await self.store.run(count_used),
            quota_bytes=self.settings.storage.blob_bytes,
            free_bytes=usage.free,
        )

    def measure_chain(self) -> ChainReading:
        """See `NodeFacts`."""
        return self.chain.measure()

    def measure_network(self) -> NetworkReading:
        """See `NodeFacts`."""
        return self.network.measure()

    def reachability(self) -> Reachability:
        """See `NodeFacts`."""
        return self.network.reachability()

    def transfers(self) -> Sequence[Transfer]:
        """See `NodeFacts`."""
        return self.network.transfers()

    async def read_fees(self) -> Sequence[FeeTotal]:
        """See `NodeFacts`. Raises StoreCorrupted."""
        return await self.chain.read_fees()

    async def read_balance(self) -> Wei:
        """See `NodeFacts`. Raises ChainUnavailable."""
        return await self.chain.read_balance()
