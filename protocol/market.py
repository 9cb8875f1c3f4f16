"""The market as the chain tells it: registries, stakes, jobs. A fold of events."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from protocol.claims import Claims, credit, withdraw
from protocol.events import (
    AppealResolved,
    AuctionOpened,
    BitmapsLogged,
    BondWithdrawn,
    DatasetRegistered,
    Event,
    LockEvent,
    MoneySwept,
    PayoutClaimed,
    PayoutCredited,
    PeerBound,
    RecordedEvent,
    StakeEvent,
)
from protocol.job import JobPhase, JobState, apply_job_event, job_of_event, open_job
from protocol.stakes import Stake, apply_stake_event
from protocol.trail import keep_trail
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Digest, JobId, Wei


@dataclass(frozen=True, slots=True)
class Peer:
    """Where an account can be reached, by its own word on the chain."""

    peer_id: bytes
    multiaddr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    dataset_id: int
    seller: Address
    tags: tuple[Digest, ...]
    metadata_hash: Digest
    min_price_wei: Wei
    """Of a job in ether that its seller enrols in."""
    min_price_token: Wei

    def min_price(self, currency: Address) -> Wei:
        """Return the least price of a job in a currency."""
        return self.min_price_wei if currency == NO_ACCOUNT else self.min_price_token


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketState:
    """All that the contracts have said, up to and including block ``block_number``."""

    block_number: BlockNumber = BlockNumber(0)
    peers: Mapping[Address, Peer] = field(default_factory=dict)
    """In the order in which the accounts named their peers."""
    datasets: Mapping[int, Dataset] = field(default_factory=dict)
    stakes: Mapping[Address, Stake] = field(default_factory=dict)
    jobs: Mapping[JobId, JobState] = field(default_factory=dict)
    """All but those that were let go of (`protocol.past`)."""
    past: Mapping[JobPhase, int] = field(default_factory=dict)
    """How many jobs were let go of, by the phase in which they ended."""
    payouts: Claims = field(default_factory=dict)
    """What the settlement holds, and held, for each account."""
    bonds: Claims = field(default_factory=dict)
    """The same of what comes out of appeals."""

    @property
    def job_count(self) -> int:
        """Count the auctions that were ever opened. Their numbers go up to it, from one."""
        return len(self.jobs) + sum(self.past.values())

    def is_past(self, job_id: JobId) -> bool:
        """Tell whether a job was let go of."""
        return 1 <= job_id <= self.job_count and job_id not in self.jobs

    def accounts_of_peer(self, peer_id: bytes) -> frozenset[Address]:
        """Accounts that name this libp2p identity; several may."""
        return frozenset(a for a, peer in self.peers.items() if peer.peer_id == peer_id)

    def count_datasets(self, tags: tuple[Digest, ...]) -> int:
        """Count as the registry does: data sets with the rarest of the tags."""
        counts = (sum(tag in one.tags for one in self.datasets.values()) for tag in tags)
        return min(counts, default=0)


def advance(state: MarketState, block_number: BlockNumber) -> MarketState:
    """Note that every event up to ``block_number`` has been applied."""
    return replace(state, block_number=block_number)


def apply_event(state: MarketState, recorded: RecordedEvent) -> MarketState:
    """Fold one event into the market. Events come in the order of the chain, none left out.

    Raises KeyError for an event of a job whose auction was not seen to open, or that was let go of.
    Bitmaps are an exception: the contract logs whatever anybody sends, for jobs that do not exist
    too.
    """
    event = recorded.event
    job_id = job_of_event(event)
    if isinstance(event, AuctionOpened):
        job = open_job(
            event,
            recorded.block_number,
            datasets=state.count_datasets(event.tags),
            stakers=len(state.stakes),
        )
        return replace(state, jobs={**state.jobs, job.job_id: job})
    if isinstance(event, BitmapsLogged) and event.job not in state.jobs:
        return state
    # Money first: an open appeal is forgotten by its job when it is resolved.
    after = _apply_registry_event(state, event, recorded.block_number)
    if job_id is None:
        return after
    job = keep_trail(apply_job_event(state.jobs[job_id], recorded), recorded)
    if not isinstance(event, BitmapsLogged):
        job = replace(job, changed_block=recorded.block_number)
    return replace(after, jobs={**after.jobs, job_id: job})


def _apply_registry_event(
    state: MarketState, event: Event, block_number: BlockNumber
) -> MarketState:
    match event:
        case PeerBound():
            return replace(state, peers=_bind_peer(state.peers, event))
        case DatasetRegistered():
            dataset = Dataset(
                dataset_id=event.dataset_id,
                seller=event.seller,
                tags=event.tags,
                metadata_hash=event.metadata_hash,
                min_price_wei=event.min_price_wei,
                min_price_token=event.min_price_token,
            )
            return replace(state, datasets={**state.datasets, event.dataset_id: dataset})
        case _:
            return _apply_money_event(state, event, block_number)


def _bind_peer(peers: Mapping[Address, Peer], event: PeerBound) -> Mapping[Address, Peer]:
    """Let an account name a peer; who names another one than before comes last again.

    So accounts that name one peer are in the order in which they did, and whoever copies a peer id
    comes after whose it is.
    """
    before = peers.get(event.account)
    is_same = before is not None and before.peer_id == event.peer_id
    kept = peers if is_same else {one: peers[one] for one in peers if one != event.account}
    return {**kept, event.account: Peer(event.peer_id, event.multiaddr)}


def _apply_money_event(state: MarketState, event: Event, block_number: BlockNumber) -> MarketState:
    match event:
        case PayoutCredited():
            currency = state.jobs[event.job].currency
            payouts = credit(state.payouts, currency, event.payee, event.amount_wei)
            return replace(state, payouts=payouts)
        case PayoutClaimed() | MoneySwept():
            payouts = withdraw(state.payouts, event.currency, event.payee, event.amount_wei)
            return replace(state, payouts=payouts)
        case AppealResolved():
            return replace(state, bonds=_resolve_appeal(state, event))
        case BondWithdrawn():
            bonds = withdraw(state.bonds, event.currency, event.account, event.amount_wei)
            return replace(state, bonds=bonds)
        case _ if isinstance(event, StakeEvent | LockEvent):
            stakes = apply_stake_event(state.stakes, event, block_number)
            return replace(state, stakes=stakes)
        case _:
            return state


def _resolve_appeal(state: MarketState, event: AppealResolved) -> Claims:
    """Give the bond back to who appealed, or its parts to who voted because of it."""
    bonds, job = state.bonds, state.jobs[event.job]
    if event.is_overturned:
        assert job.appeal is not None, "the contract resolves only what was appealed"
        return credit(bonds, job.currency, job.appeal.appellant, event.bond_wei)
    for voter in event.beneficiaries:
        bonds = credit(bonds, job.currency, voter, event.reward_each_wei)
    return bonds
