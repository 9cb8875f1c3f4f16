"""What the contracts say: one frozen class per event, fields in the order of the ABI.

Class and field names are the contracts' own, so that a decoder needs no table. Lists arrive as
tuples, addresses as 20 bytes. Money is in wei, deadlines are block numbers, and a deadline is the
last block of its window.
"""

from dataclasses import dataclass

from protocol.terms import JobTerms
from protocol.types import Address, BlockNumber, Digest, JobId, Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerBound:
    """An account names its libp2p identity and where to dial it."""

    account: Address
    peer_id: bytes
    multiaddr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRegistered:
    dataset_id: int
    seller: Address
    tags: tuple[Digest, ...]
    metadata_hash: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StakeDeposited:
    account: Address
    amount_wei: Wei
    free_wei: Wei
    since_block: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbondingStarted:
    account: Address
    amount_wei: Wei
    release_block: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class StakeWithdrawn:
    account: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class StakeLocked:
    job: JobId
    account: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class StakeReleased:
    job: JobId
    account: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class StakeSlashed:
    job: JobId
    account: Address
    amount_wei: Wei
    reason: int
    """1: voted for a rejected digest. 2: committed and did not open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlashShared:
    job: JobId
    burned_wei: Wei
    reward_each_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class AuctionOpened:
    auction: JobId
    opener: Address
    tags: tuple[Digest, ...]
    mode: int
    deposit_wei: Wei
    reserve_wei: Wei
    commit_end: BlockNumber
    reveal_end: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class BidCommitted:
    auction: JobId
    bidder: Address
    commitment: Digest
    deposit_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class BidRevealed:
    auction: JobId
    bidder: Address
    amount_wei: Wei
    terms: JobTerms
    body_hash: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class AuctionClosed:
    auction: JobId
    buyer: Address
    price_wei: Wei
    terms_hash: Digest
    request_hash: Digest
    body_hash: Digest
    enrolment_end: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class AuctionCancelled:
    auction: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class BidReclaimed:
    auction: JobId
    bidder: Address
    amount_wei: Wei
    forfeited_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class SellerEnrolled:
    job: JobId
    index: int
    seller: Address
    dataset_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SellerDeposited:
    job: JobId
    seller: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositReturned:
    job: JobId
    seller: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositForfeited:
    job: JobId
    seller: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivocationProved:
    """Burned: the seller signed both commitments for one round."""

    job: JobId
    seller: Address
    round_index: int
    first_commitment: Digest
    second_commitment: Digest
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class ConeEnrolled:
    job: JobId
    index: int
    node: Address
    ticket_root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentClosed:
    job: JobId
    sellers: int
    cones: int
    enrolment_end: BlockNumber
    validation_end: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled:
    job: JobId
    refund_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class EscrowReclaimed:
    job: JobId
    buyer: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptsRecorded:
    job: JobId
    part: int
    bitmap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOpened:
    """A ballot begins: one attempt of a round (kind 0) or of a final evaluation (kind 1).

    The seller fields are zero for a retry and for a final evaluation.
    """

    job: JobId
    ballot_number: int
    round_index: int
    kind: int
    attempt: int
    seller_seed_block: BlockNumber
    update_commit_end: BlockNumber
    update_open_end: BlockNumber
    availability_end: BlockNumber
    seed_block: BlockNumber
    commit_end: BlockNumber
    open_end: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class BitmapsLogged:
    job: JobId
    ballot_number: int
    entries: tuple[tuple[int, int, bytes], ...]
    """(CONE index, bitmap, signature); the contract has not checked the signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitsRecorded:
    job: JobId
    ballot_number: int
    mini: int
    batch_index: int
    entries: tuple[tuple[int, Digest], ...]
    """(CONE index, commitment)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedCaptured:
    job: JobId
    ballot_number: int
    seed_block: BlockNumber
    randomness: bytes
    es_seed: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningsRecorded:
    job: JobId
    ballot_number: int
    mini: int
    entries: tuple[tuple[int, Digest, Digest], ...]
    """(CONE index, digest, trace)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniRoundOpened:
    job: JobId
    ballot_number: int
    mini: int
    seed_block: BlockNumber
    commit_end: BlockNumber
    open_end: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundDecided:
    job: JobId
    round_index: int
    ballot_number: int
    digest: Digest
    votes: int
    voters: int
    """Bitmap of the CONE nodes paid for this ballot."""
    wrong: int
    unopened: int
    header: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalDecided:
    job: JobId
    round_index: int
    ballot_number: int
    digest: Digest
    votes: int
    voters: int
    wrong: int
    unopened: int
    initial_utility: int
    utility: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptUndecided:
    job: JobId
    round_index: int
    ballot_number: int
    unopened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundVoided:
    job: JobId
    round_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEnded:
    job: JobId
    outcome: int
    rounds_done: int
    initial_utility: int
    last_utility: int
    model_digest: Digest
    credit_root: Digest
    credit_sum: int
    final_block: BlockNumber
    """Settlement may run in any block after this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettled:
    job: JobId
    buyer: Address
    price_wei: Wei
    cone_pool_wei: Wei
    seller_pool_wei: Wei
    refund_wei: Wei
    rounds_done: int
    initial_utility: int
    last_utility: int
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutCredited:
    job: JobId
    payee: Address
    role: int
    """1: CONE node. 2: seller. 3: buyer's refund."""
    index: int
    weight: int
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutClaimed:
    payee: Address
    amount_wei: Wei


StakeEvent = StakeDeposited | UnbondingStarted | StakeWithdrawn | SlashShared
LockEvent = StakeLocked | StakeReleased | StakeSlashed
AuctionEvent = BidCommitted | BidRevealed | AuctionClosed | AuctionCancelled | BidReclaimed
DepositEvent = SellerDeposited | DepositReturned | DepositForfeited | EquivocationProved
EnrolmentEvent = SellerEnrolled | ConeEnrolled | EnrolmentClosed | JobCancelled | EscrowReclaimed
BallotEvent = BitmapsLogged | CommitsRecorded | SeedCaptured | OpeningsRecorded | MiniRoundOpened
DecisionEvent = RoundDecided | FinalDecided | AttemptUndecided | RoundVoided | TrainingEnded
SettlementEvent = JobSettled | PayoutCredited | PayoutClaimed

Event = (
    PeerBound
    | DatasetRegistered
    | StakeEvent
    | LockEvent
    | AuctionOpened
    | AuctionEvent
    | DepositEvent
    | EnrolmentEvent
    | ReceiptsRecorded
    | AttemptOpened
    | BallotEvent
    | DecisionEvent
    | SettlementEvent
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event and where the chain recorded it. Events are ordered by (block, log index)."""

    block_number: BlockNumber
    log_index: int
    transaction_hash: bytes
    event: Event
