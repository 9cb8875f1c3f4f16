"""The market as the chain tells it: registries, stakes, jobs. A fold of events."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from protocol.events import (
    AuctionOpened,
    BitmapsLogged,
    DatasetRegistered,
    Event,
    PayoutClaimed,
    PeerBound,
    RecordedEvent,
    StakeDeposited,
    StakeLocked,
    StakeReleased,
    StakeSlashed,
    UnbondingStarted,
)
from protocol.job import JobState, apply_job_event, job_of_event, open_job
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
class Stake:
    """One account's stake: free, and locked job by job."""

    free_wei: Wei = Wei(0)
    since_block: BlockNumber = BlockNumber(0)
    locked_wei: Mapping[JobId, Wei] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketState:
    """All that the contracts have said, up to and including block ``block_number``."""

    block_number: BlockNumber = BlockNumber(0)
    peers: Mapping[Address, Peer] = field(default_factory=dict)
    datasets: Mapping[int, Dataset] = field(default_factory=dict)
    stakes: Mapping[Address, Stake] = field(default_factory=dict)
    jobs: Mapping[JobId, JobState] = field(default_factory=dict)
    claimed_wei: Mapping[Address, Wei] = field(default_factory=dict)
    """What each account has pulled out of settlements so far."""

    def accounts_of_peer(self, peer_id: bytes) -> frozenset[Address]:
        """Accounts that name this libp2p identity; several may."""
        return frozenset(a for a, peer in self.peers.items() if peer.peer_id == peer_id)

    def count_datasets(self, tags: tuple[Digest, ...]) -> int:
        """Count as the registry does: data sets with the rarest of the tags."""
        return min(sum(tag in one.tags for one in self.datasets.values()) for tag in tags)


def advance(state: MarketState, block_number: BlockNumber) -> MarketState:
    """Note that every event up to ``block_number`` has been applied."""
    return replace(state, block_number=block_number)


def apply_event(state: MarketState, recorded: RecordedEvent) -> MarketState:
    """Fold one event into the market. Events come in the order of the chain, none left out.

    Raises KeyError for an event of a job whose auction was not seen to open. Bitmaps are an
    exception: the contract logs whatever anybody sends, for jobs that do not exist too.
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
    if job_id is not None:
        job = apply_job_event(state.jobs[job_id], recorded)
        state = replace(state, jobs={**state.jobs, job_id: job})
    return _apply_registry_event(state, event)


def _apply_registry_event(state: MarketState, event: Event) -> MarketState:
    match event:
        case PeerBound():
            peer = Peer(event.peer_id, event.multiaddr)
            return replace(state, peers={**state.peers, event.account: peer})
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
        case PayoutClaimed():
            claimed = Wei(state.claimed_wei.get(event.payee, 0) + event.amount_wei)
            return replace(state, claimed_wei={**state.claimed_wei, event.payee: claimed})
        case _:
            return _apply_stake_event(state, event)


def _apply_stake_event(state: MarketState, event: Event) -> MarketState:
    match event:
        case StakeDeposited():
            stake = _stake_of(state, event.account)
            stake = replace(stake, free_wei=event.free_wei, since_block=event.since_block)
        case UnbondingStarted():
            stake = _stake_of(state, event.account)
            stake = replace(stake, free_wei=Wei(stake.free_wei - event.amount_wei))
        case StakeLocked():
            stake = _move_to_lock(_stake_of(state, event.account), event.job, event.amount_wei)
        case StakeReleased():
            stake = _move_to_lock(_stake_of(state, event.account), event.job, -event.amount_wei)
        case StakeSlashed():
            stake = _stake_of(state, event.account)
            left = Wei(stake.locked_wei.get(event.job, 0) - event.amount_wei)
            stake = replace(stake, locked_wei={**stake.locked_wei, event.job: left})
        case _:
            return state
    return replace(state, stakes={**state.stakes, event.account: stake})


def _stake_of(state: MarketState, account: Address) -> Stake:
    return state.stakes.get(account, Stake())


def _move_to_lock(stake: Stake, job: JobId, amount_wei: int) -> Stake:
    locked = Wei(stake.locked_wei.get(job, 0) + amount_wei)
    return replace(
        stake,
        free_wei=Wei(stake.free_wei - amount_wei),
        locked_wei={**stake.locked_wei, job: locked},
    )
