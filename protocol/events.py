"""What the contracts say: one frozen class per event, fields in the order of the ABI.

Class and field names are the contracts' own, so that a decoder needs no table. Lists arrive as
tuples, addresses as 20 bytes. Money is in wei, deadlines are block numbers, and a deadline is the
last block of its window.
"""

from dataclasses import dataclass

from protocol.course import Course
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
    min_price_wei: Wei
    """The seller enrols in no job that pays less, in ether."""
    min_price_token: Wei
    """The same for a price in the deployment's token, in its smallest unit."""


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
    beneficiaries: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuctionOpened:
    auction: JobId
    opener: Address
    tags: tuple[Digest, ...]
    mode: int
    """0: sealed. 1: sealed, second price. 2: open."""
    currency: Address
    """Zero for ether, else the deployment's token; amounts are in its smallest unit."""
    deposit_wei: Wei
    reserve_wei: Wei
    commit_end: BlockNumber
    reveal_end: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class AuctionExtended:
    """A late bid in an open auction moved its end."""

    auction: JobId
    commit_end: BlockNumber


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
class SellersDrawn:
    """More sellers applied than there are places: these, by the order of their applications."""

    job: JobId
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConesDrawn:
    """More CONE nodes applied than there are places: these, by the order of their applications."""

    job: JobId
    indices: tuple[int, ...]


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
    """Who holds which updates; the contract has checked neither signatures nor deadline."""

    job: JobId
    ballot_number: int
    groups: tuple[tuple[int, int], ...]
    """(bitmap of CONE nodes, bitmap of sellers whose updates they hold)."""
    signatures: tuple[tuple[bytes, bytes], ...]
    """(r, vs), group by group, by index of the nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitsRecorded:
    job: JobId
    ballot_number: int
    mini: int
    batch_index: int
    members: int
    """Bitmap of the CONE nodes whose commitments were recorded."""
    commitments: tuple[Digest, ...]
    """By index of their nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningsRecorded:
    job: JobId
    ballot_number: int
    mini: int
    groups: tuple[tuple[Digest, Digest, int], ...]
    """(digest, trace, bitmap of the CONE nodes whose equal votes were recorded now)."""


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
    appeal_end: BlockNumber
    """Last block in which the whole pool may be called to check the decision."""
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
    appeal_end: BlockNumber
    initial_utility: int
    utility: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCalled:
    """Whoever of the pool has not voted is called to a decided ballot."""

    job: JobId
    ballot_number: int
    mini: int
    is_audit: bool
    """True: by chance. False: by an appeal."""
    seed_block: BlockNumber
    commit_end: BlockNumber
    open_end: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionUpheld:
    """The whole pool was called, and the decision stands. Counts are those of the whole pool."""

    job: JobId
    ballot_number: int
    digest: Digest
    votes: int
    voters: int
    wrong: int
    unopened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOverturned:
    """The whole pool was called and decided otherwise; the new decision's event follows."""

    job: JobId
    ballot_number: int
    digest: Digest
    """What had been decided."""


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
class CourseChanged:
    """What the chain keeps of a job in training, as one hash: calls bring it along."""

    job: JobId
    course: Course


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealOpened:
    job: JobId
    appellant: Address
    bond_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealResolved:
    """The bond went back to the appellant, or to those who voted because of the appeal."""

    job: JobId
    is_overturned: bool
    bond_wei: Wei
    reward_each_wei: Wei
    burned_wei: Wei
    beneficiaries: tuple[Address, ...]
    """Who shares the bond; nobody if it goes back to the appellant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BondWithdrawn:
    account: Address
    currency: Address
    amount_wei: Wei


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
class SharesOpened:
    """A job has too many payees to credit: each claims its share of the pools."""

    job: JobId
    cone_pool_wei: Wei
    seller_pool_wei: Wei
    credit_root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutCredited:
    job: JobId
    payee: Address
    role: int
    """1: CONE node. 2: seller. 3: buyer's refund. 4: CONE node, for the gas of batches."""
    index: int
    weight: int
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutClaimed:
    payee: Address
    currency: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneySwept:
    """Burned: nobody claimed it for longer than the deployment allows."""

    payee: Address
    currency: Address
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesSwept:
    """Burned: the shares of a job that nobody claimed for longer than the deployment allows."""

    job: JobId
    amount_wei: Wei


StakeEvent = StakeDeposited | UnbondingStarted | StakeWithdrawn | SlashShared
LockEvent = StakeLocked | StakeReleased | StakeSlashed
AuctionEvent = (
    AuctionExtended | BidCommitted | BidRevealed | AuctionClosed | AuctionCancelled | BidReclaimed
)
DepositEvent = SellerDeposited | DepositReturned | DepositForfeited | EquivocationProved
EnrolmentEvent = (
    SellerEnrolled
    | ConeEnrolled
    | SellersDrawn
    | ConesDrawn
    | EnrolmentClosed
    | JobCancelled
    | EscrowReclaimed
)
BallotEvent = BitmapsLogged | CommitsRecorded | OpeningsRecorded | MiniRoundOpened
DecisionEvent = RoundDecided | FinalDecided | AttemptUndecided | RoundVoided | TrainingEnded
PoolEvent = PoolCalled | DecisionUpheld | DecisionOverturned
AppealEvent = AppealOpened | AppealResolved | BondWithdrawn
SettlementEvent = (
    JobSettled | SharesOpened | PayoutCredited | PayoutClaimed | MoneySwept | SharesSwept
)

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
    | PoolEvent
    | CourseChanged
    | AppealEvent
    | SettlementEvent
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event and where the chain recorded it. Events are ordered by (block, log index)."""

    block_number: BlockNumber
    log_index: int
    transaction_hash: bytes
    event: Event
