"""What a node says of itself as a whole."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from d2m_node.client import (
    DatasetPrivacyView,
    DiskView,
    NodeStatus,
    OpenJobView,
    PendingView,
    PrivacyView,
    ReachView,
    RoleStateName,
    StakeView,
    SyncView,
    TransferView,
)
from d2m_node.errors import ChainUnavailable
from d2m_node.measures import ChainReading, FeeTotal, NetworkReading, Reachability, Transfer
from d2m_node.ports import JournalPort, PeerStatus, Ports
from d2m_node.privacy_ledger import read_accounts
from d2m_node.rpc.views import to_hex, view_peer, view_turned_away
from protocol.activity import describe_activity, find_roles
from protocol.job import JobPhase
from protocol.market import MarketState
from protocol.stakes import Stake
from protocol.types import Address, Wei

MISSED_SHOWN = 8
SYNCED_BLOCKS = 2
"""A node so few blocks behind what counts keeps up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskReading:
    """What blobs take, and what is left."""

    blob_bytes: int
    quota_bytes: int
    free_bytes: int


class NodeFacts(Protocol):
    """What of the node no port tells."""

    @property
    def epsilon_budget(self) -> float | None:
        """What may be spent on each dataset's privacy; None if trainings are not private."""

    @property
    def version(self) -> str:
        """Of the program."""

    def uptime_seconds(self) -> float:
        """Return how long the node has run."""

    def is_backed_up(self) -> bool:
        """Tell whether the operator has a copy of the key, or needs none."""

    def find_clock_fault(self) -> str | None:
        """Say what is wrong with this machine's clock, if that is known."""

    async def read_disk(self) -> DiskReading:
        """Measure the disk."""

    def measure_chain(self) -> ChainReading:
        """Return the measures of the chain adapter."""

    def measure_network(self) -> NetworkReading:
        """Return the measures of the network adapter."""

    def reachability(self) -> Reachability:
        """Say whether others can connect to this node."""

    def transfers(self) -> Sequence[Transfer]:
        """List what is being fetched."""

    async def read_fees(self) -> Sequence[FeeTotal]:
        """Return what was paid for gas."""

    async def read_balance(self) -> Wei:
        """Return the account's ether. Raises ChainUnavailable."""


async def view_node(ports: Ports, roles: dict[str, RoleStateName], facts: NodeFacts) -> NodeStatus:
    """Summarise a running node."""
    state = ports.chain.state
    peers = ports.network.peers()
    me = ports.signer.address
    reading = facts.measure_chain()
    disk = await facts.read_disk()
    return NodeStatus(
        version=facts.version,
        uptime_seconds=round(facts.uptime_seconds(), 1),
        account=to_hex(me),
        balance_wei=await _read_balance(facts),
        stake=_view_stake(state, me),
        is_backed_up=facts.is_backed_up(),
        peer_id=to_hex(ports.network.peer_id),
        chain_id=ports.chain.domain.chain_id,
        market=to_hex(ports.chain.domain.market),
        block_number=state.block_number,
        sync=_view_sync(reading, state),
        clock_fault=facts.find_clock_fault(),
        peers_connected=sum(peer.connected for peer in peers),
        peers_known=len(peers),
        peers_missed=[view_peer(peer, state) for peer in _list_missed(peers)],
        reach=_view_reach(facts.reachability()),
        transfers=[_view_transfer(one) for one in facts.transfers()],
        turned_away=view_turned_away(facts.measure_network().turned_away),
        peers_banned=sum(peer.banned_seconds is not None for peer in peers),
        roles=roles,
        jobs=_count_jobs(state),
        open_jobs=_view_open_jobs(state, me),
        pending=PendingView(
            transactions=reading.open_transactions, oldest_blocks=reading.open_blocks
        ),
        disk=DiskView(
            blob_bytes=disk.blob_bytes, quota_bytes=disk.quota_bytes, free_bytes=disk.free_bytes
        ),
        privacy=await _view_privacy(ports.store.journal, facts.epsilon_budget),
    )


def _list_missed(peers: Sequence[PeerStatus]) -> Sequence[PeerStatus]:
    """List the peers that are dialled in vain, by the time of their next dial."""
    missed = [peer for peer in peers if peer.failures and peer.next_dial_seconds is not None]
    return sorted(missed, key=lambda one: one.next_dial_seconds or 0.0)[:MISSED_SHOWN]


def _count_jobs(state: MarketState) -> dict[str, int]:
    """Count the market's jobs by phase, with those that have left the state."""
    counts = Counter(job.phase for job in state.jobs.values())
    counts.update(state.past)
    return {phase.value: count for phase, count in counts.items() if count}


async def _read_balance(facts: NodeFacts) -> int | None:
    try:
        return await facts.read_balance()
    except ChainUnavailable:
        # The rest of the status is worth having without it; the sync says that the chain is silent.
        return None


def _view_sync(reading: ChainReading, state: MarketState) -> SyncView:
    lag = max(0, reading.target_number - state.block_number)
    return SyncView(
        head_number=reading.head_number,
        lag_blocks=lag,
        is_synced=lag <= SYNCED_BLOCKS,
        silent_seconds=round(reading.silent_seconds, 1),
    )


async def _view_privacy(journal: JournalPort, epsilon_budget: float | None) -> PrivacyView | None:
    if epsilon_budget is None:
        return None
    accounts = sorted(await read_accounts(journal), key=lambda one: -one.epsilon)
    datasets = [
        DatasetPrivacyView(
            dataset=one.dataset,
            epsilon=one.epsilon,
            delta=one.delta,
            trainings=one.trainings,
            jobs=one.jobs,
        )
        for one in accounts
    ]
    return PrivacyView(epsilon_budget=epsilon_budget, datasets=datasets)


def _view_reach(found: Reachability) -> ReachView:
    return ReachView(state=found.reach.value, advice=found.advice)


def _view_transfer(transfer: Transfer) -> TransferView:
    return TransferView(
        digest=to_hex(transfer.digest),
        received_bytes=transfer.received_bytes,
        size_bytes=transfer.size_bytes,
        sources=transfer.source_count,
    )


def _view_stake(state: MarketState, account: Address) -> StakeView:
    stake = state.stakes.get(account, Stake())
    return StakeView(
        free_wei=stake.free_wei,
        locked_wei=sum(stake.locked_wei.values()),
        unbonding_wei=stake.unbonding_wei,
        reward_wei=stake.reward_wei,
    )


def _view_open_jobs(state: MarketState, account: Address) -> list[OpenJobView]:
    """List the jobs that this account takes part in and that are not over."""
    views = []
    for job_id in sorted(state.jobs):
        job = state.jobs[job_id]
        roles = find_roles(job, account)
        if roles and job.phase not in (JobPhase.SETTLED, JobPhase.CANCELLED):
            views.append(
                OpenJobView(
                    job=job_id,
                    phase=job.phase.value,
                    roles=[role.value for role in roles],
                    doing=describe_activity(job, state.block_number),
                )
            )
    return views
