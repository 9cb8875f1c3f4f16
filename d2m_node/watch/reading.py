"""Everything that is exported, read from the ports at one moment."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
import trio

from d2m_node.errors import ChainUnavailable, FatalError
from d2m_node.measures import (
    ChainReading,
    MeasuredChain,
    MeasuredStore,
    NetworkReading,
    StoreReading,
)
from d2m_node.ports import PeerStatus
from d2m_node.privacy_ledger import PrivacyAccount, read_accounts
from d2m_node.role_control import RoleState
from d2m_node.watch.figures import AccountFigures, Bookkeeper
from d2m_node.watch.health import Check, Health
from d2m_node.watch.sources import Sources
from protocol.types import Address, Wei

log = structlog.get_logger(__name__)

REFUSALS_READ = 1000
PATIENCE_SECONDS = 2.0
"""For what an endpoint or the disk must answer; without it those samples are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """The parts of a node at one moment."""

    chain_id: int
    account: Address
    block_number: int
    chain: ChainReading
    balance_wei: Wei | None
    """None if no endpoint told it in time."""
    network: NetworkReading
    peers: Sequence[PeerStatus]
    store: StoreReading | None
    """None if the disk did not answer in time."""
    privacy: Sequence[PrivacyAccount]
    epsilon_budget: float | None
    is_clock_off: bool
    figures: AccountFigures
    roles: Mapping[str, RoleState]
    refusals: Mapping[tuple[str, str], int]
    """By role and code."""
    threads: tuple[int, int]
    """Worker threads in use, and how many there may be."""
    calls: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that is known at one moment."""

    checks: Sequence[Check]
    node: NodeReading | None
    """None while the parts are not open yet."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What had to be waited for."""

    balance_wei: Wei | None
    store: StoreReading | None
    privacy: Sequence[PrivacyAccount]
    refusals: Mapping[tuple[str, str], int]


class Reader:
    """Reads the sources."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._sources: Sources | None = None
        self._books: Bookkeeper | None = None

    def attach(self, sources: Sources) -> None:
        """Name the parts, once they are open."""
        self._sources = sources
        self._books = Bookkeeper(sources.account, sources.store.past)

    async def read(self) -> Reading:
        """Ask endpoint and disk, for at most `PATIENCE_SECONDS`, then read all that is at hand.

        Raises FatalError if the figures of past jobs cannot be read: without them totals would
        drop, which counters never do.
        """
        sources = self._sources
        balance_wei: Wei | None = None
        store: StoreReading | None = None
        privacy: Sequence[PrivacyAccount] = ()
        refusals: Mapping[tuple[str, str], int] = {}
        checks: Sequence[Check] = ()

        async def ask_health() -> None:
            nonlocal checks
            checks = await self._health.check_readiness()

        async def ask_chain(chain: MeasuredChain) -> None:
            nonlocal balance_wei
            with suppress(ChainUnavailable):  # `chain_silent_seconds` tells of it
                balance_wei = await chain.read_balance()

        async def ask_store(asked: MeasuredStore) -> None:
            nonlocal store, privacy, refusals
            try:
                store = await asked.measure()
                privacy = await read_accounts(asked.journal)
                latest = await asked.refusals.latest(REFUSALS_READ)
                refusals = Counter((one.role, one.code) for one in latest)
            except FatalError as exc:  # whoever needs the store will stop the node; not a scrape
                log.warning("store_not_measured", reason=str(exc))

        with trio.move_on_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_health)
                if sources is not None:
                    nursery.start_soon(ask_chain, sources.chain)
                    nursery.start_soon(ask_store, sources.store)
        asked = _Asked(balance_wei, store, privacy, refusals)
        node = None if sources is None else await self._read_node(sources, asked)
        return Reading(checks=checks, node=node)

    async def _read_node(self, sources: Sources, asked: _Asked) -> NodeReading:
        assert self._books is not None, "the books are opened with the sources"
        state = sources.chain.state
        figures = await self._books.add_up(state)
        limiter = trio.to_thread.current_default_thread_limiter()
        return NodeReading(
            chain_id=sources.chain.domain.chain_id,
            account=sources.account,
            block_number=state.block_number,
            chain=sources.chain.measure(),
            balance_wei=asked.balance_wei,
            network=sources.network.measure(),
            peers=sources.network.peers(),
            store=asked.store,
            privacy=asked.privacy,
            epsilon_budget=sources.epsilon_budget,
            is_clock_off=sources.clock_fault() is not None,
            figures=figures,
            roles=sources.roles(),
            refusals=asked.refusals,
            threads=(limiter.borrowed_tokens, int(limiter.total_tokens)),
            calls=dict(sources.calls),
        )
