"""One job as the chain tells it: from its auction to its settlement. A fold of events."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from protocol.auction import AuctionMode
from protocol.ballot import (
    Ballot,
    DecidedBallot,
    apply_ballot_event,
    call_whole_pool,
    log_bitmaps,
    open_ballot,
    uphold,
)
from protocol.course import Course, compute_course_hash
from protocol.deposits import SellerDeposit, apply_deposit_event
from protocol.enrolment import EnrolledCone, EnrolledSeller
from protocol.events import (
    AppealOpened,
    AppealResolved,
    AttemptOpened,
    AttemptUndecided,
    AuctionCancelled,
    AuctionClosed,
    AuctionEvent,
    AuctionExtended,
    AuctionOpened,
    BallotEvent,
    BidCommitted,
    BidReclaimed,
    BidRevealed,
    BitmapsLogged,
    ConeEnrolled,
    ConesDrawn,
    CourseChanged,
    DecisionOverturned,
    DecisionUpheld,
    DepositEvent,
    EnrolmentClosed,
    EnrolmentEvent,
    EscrowReclaimed,
    Event,
    FinalDecided,
    JobCancelled,
    JobSettled,
    PayoutCredited,
    PoolCalled,
    ReceiptsRecorded,
    RecordedEvent,
    RoundDecided,
    RoundVoided,
    SellerEnrolled,
    SellersDrawn,
    SharesOpened,
    SharesSwept,
    StakeSlashed,
    TrainingEnded,
)
from protocol.terms import JobTerms
from protocol.types import (
    NO_ACCOUNT,
    NO_DIGEST,
    Address,
    BlockNumber,
    ConeIndex,
    Digest,
    JobId,
    RoundIndex,
    SellerIndex,
    Wei,
)


class JobPhase(Enum):
    """Where a job stands (MECHANISM 3)."""

    AUCTION = "auction"
    ENROLMENT = "enrolment"
    VALIDATION = "validation"
    TRAINING = "training"
    SETTLING = "settling"
    SETTLED = "settled"
    CANCELLED = "cancelled"


OVER: Final = (JobPhase.SETTLED, JobPhase.CANCELLED)
"""Phases that nothing leads out of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bid:
    """One bid; amount, terms and body are known once it is revealed, in the clear at once."""

    bidder: Address
    commitment: Digest
    """In the clear: the hash of the request."""
    deposit_wei: Wei
    """What its bidder put up."""
    amount_wei: Wei | None = None
    terms: JobTerms | None = None
    body_hash: Digest | None = None
    reclaimed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """Everything the chain says about one job."""

    job_id: JobId
    phase: JobPhase
    opened_block: BlockNumber
    changed_block: BlockNumber = BlockNumber(0)
    """Of the last event that says something of the job. Bitmaps do not count: whoever likes logs
    them, even for jobs that are over."""
    tags: tuple[Digest, ...]
    mode: AuctionMode = AuctionMode.SEALED
    currency: Address = NO_ACCOUNT
    """Zero for ether, else the deployment's token; of every amount but stakes."""
    deposit_wei: Wei
    reserve_wei: Wei
    datasets: int = 0
    """Registered for each of the tags when the auction opened."""
    stakers: int = 0
    """Accounts that had staked by then."""
    commit_end: BlockNumber
    reveal_end: BlockNumber
    bids: Mapping[Address, Bid] = field(default_factory=dict)
    buyer: Address | None = None
    price_wei: Wei = Wei(0)
    terms: JobTerms | None = None
    body_hash: Digest = NO_DIGEST
    enrolment_end: BlockNumber = BlockNumber(0)
    validation_end: BlockNumber = BlockNumber(0)
    seller_applications: tuple[EnrolledSeller, ...] = ()
    """Sellers that applied, in order."""
    cone_applications: tuple[EnrolledCone, ...] = ()
    """CONE nodes that applied, in order."""
    sellers: tuple[EnrolledSeller, ...] = ()
    """Members by seller index; none before the enrolment closed."""
    cones: tuple[EnrolledCone, ...] = ()
    """The pool by CONE index; empty before the enrolment closed."""
    deposits: Mapping[Address, SellerDeposit] = field(default_factory=dict)
    """Of each seller that applied."""
    receipts: Mapping[int, int] = field(default_factory=dict)
    """Bitmap of CONE nodes that hold a part of the validation set, by part."""
    ballot: Ballot | None = None
    decided: tuple[DecidedBallot, ...] = ()
    voided: tuple[RoundIndex, ...] = ()
    undecided: tuple[AttemptUndecided, ...] = ()
    course: Course | None = None
    """What calls of Rounds bring along."""
    parent_course: Course | None = None
    """The course before the last decision, for as long as that may be overturned."""
    appeal: AppealOpened | None = None
    """The open appeal, if there is one."""
    ended: TrainingEnded | None = None
    settled: JobSettled | None = None
    payouts: tuple[PayoutCredited, ...] = ()
    shares: SharesOpened | None = None
    """Set if each payee claims its share of the pools."""
    shares_swept: bool = False
    trail: tuple[RecordedEvent, ...] = ()
    """Where the chain recorded the job's money and what payouts are computed from, in order."""
    slashes: tuple[StakeSlashed, ...] = ()
    escrow_reclaimed: bool = False

    def seller_index(self, account: Address) -> SellerIndex | None:
        """Position of an account among the job's sellers."""
        for index, seller in enumerate(self.sellers):
            if seller.account == account:
                return SellerIndex(index)
        return None

    def cone_index(self, account: Address) -> ConeIndex | None:
        """Position of an account in the job's pool."""
        for index, cone in enumerate(self.cones):
            if cone.account == account:
                return ConeIndex(index)
        return None

    def has_seller_applied(self, account: Address) -> bool:
        """Tell whether an account applied as a seller, member or not."""
        return any(seller.account == account for seller in self.seller_applications)

    def has_cone_applied(self, account: Address) -> bool:
        """Tell whether an account applied as a CONE node, member or not."""
        return any(cone.account == account for cone in self.cone_applications)

    def is_seller_left_out(self, account: Address) -> bool:
        """Tell whether an account applied as a seller, and the job runs without it."""
        is_fixed = bool(self.sellers)
        return is_fixed and self.has_seller_applied(account) and self.seller_index(account) is None

    def is_cone_left_out(self, account: Address) -> bool:
        """Tell whether an account applied as a CONE node, and the job runs without it."""
        is_fixed = bool(self.cones)
        return is_fixed and self.has_cone_applied(account) and self.cone_index(account) is None

    def is_training_over(self, block_number: BlockNumber) -> bool:
        """Tell whether training has ended and its last decision can be checked no more."""
        return self.ended is not None and block_number >= self.ended.final_block

    @property
    def best_bid(self) -> Bid | None:
        """The highest bid whose amount is known. In an open auction it is the one that counts."""
        revealed = [bid for bid in self.bids.values() if bid.amount_wei is not None]
        return max(revealed, key=lambda bid: bid.amount_wei or 0, default=None)

    @property
    def decided_rounds(self) -> tuple[RoundDecided, ...]:
        """Decided rounds in order, final evaluations left out."""
        decisions = (one.decision for one in self.decided)
        return tuple(one for one in decisions if isinstance(one, RoundDecided))


def job_of_event(event: Event) -> JobId | None:
    """Return the job an event speaks of, if it speaks of one."""
    job: JobId | None = getattr(event, "job", None)
    auction: JobId | None = getattr(event, "auction", None)
    return job if job is not None else auction


def open_job(
    event: AuctionOpened, block_number: BlockNumber, *, datasets: int, stakers: int
) -> JobState:
    """Start a job at its auction, noting how many there were that could serve it."""
    return JobState(
        job_id=event.auction,
        phase=JobPhase.AUCTION,
        opened_block=block_number,
        changed_block=block_number,
        tags=event.tags,
        mode=AuctionMode(event.mode),
        currency=event.currency,
        deposit_wei=event.deposit_wei,
        reserve_wei=event.reserve_wei,
        datasets=datasets,
        stakers=stakers,
        commit_end=event.commit_end,
        reveal_end=event.reveal_end,
    )


def apply_job_event(job: JobState, recorded: RecordedEvent) -> JobState:
    """Fold one event into its job."""
    event = recorded.event
    if isinstance(event, AuctionEvent):
        return _apply_auction_event(job, event)
    if isinstance(event, EnrolmentEvent):
        return _apply_enrolment_event(job, event)
    if isinstance(event, DepositEvent):
        return replace(job, deposits=apply_deposit_event(job.deposits, event))
    if isinstance(event, BitmapsLogged):
        ballot = job.ballot
        told = None if ballot is None else log_bitmaps(ballot, event, recorded.block_number)
        return replace(job, ballot=told)
    if isinstance(event, BallotEvent):
        return replace(job, ballot=apply_ballot_event(job.ballot, event))
    match event:
        case ReceiptsRecorded():
            return replace(job, receipts={**job.receipts, event.part: event.bitmap})
        case AttemptOpened():
            opened_at = (recorded.block_number, recorded.log_index)
            ballot = open_ballot(event, job.ballot, opened_at)
            return replace(job, phase=JobPhase.TRAINING, ballot=ballot)
        case RoundDecided() | FinalDecided():
            assert job.ballot is not None, "the contract decides only what it opened"
            decided = DecidedBallot(
                ballot=job.ballot, decision=event, block_number=recorded.block_number
            )
            return replace(job, decided=(*job.decided, decided))
        case AttemptUndecided():
            return replace(job, undecided=(*job.undecided, event))
        case RoundVoided():
            return replace(job, voided=(*job.voided, RoundIndex(event.round_index)))
        case CourseChanged():
            return _change_course(job, event.course)
        case PoolCalled() | DecisionUpheld() | DecisionOverturned():
            return _apply_pool_event(job, event, recorded)
        case AppealOpened():
            return replace(job, appeal=event)
        case AppealResolved():
            return replace(job, appeal=None)
        case _:
            return _apply_settlement_event(job, event)


def _apply_auction_event(job: JobState, event: AuctionEvent) -> JobState:
    match event:
        case AuctionExtended():
            return replace(job, commit_end=event.commit_end, reveal_end=event.commit_end)
        case BidCommitted():
            bid = Bid(
                bidder=event.bidder,
                commitment=event.commitment,
                deposit_wei=event.deposit_wei,
            )
        case BidRevealed():
            bid = replace(
                job.bids[event.bidder],
                amount_wei=event.amount_wei,
                terms=event.terms,
                body_hash=event.body_hash,
            )
        case BidReclaimed():
            bid = replace(job.bids[event.bidder], reclaimed=True)
        case AuctionCancelled():
            return replace(job, phase=JobPhase.CANCELLED)
        case AuctionClosed():
            return replace(
                job,
                phase=JobPhase.ENROLMENT,
                buyer=event.buyer,
                price_wei=event.price_wei,
                terms=job.bids[event.buyer].terms,
                body_hash=event.body_hash,
                enrolment_end=event.enrolment_end,
            )
    return replace(job, bids={**job.bids, event.bidder: bid})


def _apply_enrolment_event(job: JobState, event: EnrolmentEvent) -> JobState:
    """Collect applications, then fix the members: all that applied, or those that were drawn."""
    match event:
        case SellerEnrolled():
            seller = EnrolledSeller(event.seller, event.dataset_id)
            return replace(job, seller_applications=(*job.seller_applications, seller))
        case ConeEnrolled():
            cone = EnrolledCone(event.node, event.ticket_root)
            return replace(job, cone_applications=(*job.cone_applications, cone))
        case SellersDrawn():
            return replace(job, sellers=tuple(job.seller_applications[i] for i in event.indices))
        case ConesDrawn():
            return replace(job, cones=tuple(job.cone_applications[i] for i in event.indices))
        case EnrolmentClosed():
            return replace(
                job,
                phase=JobPhase.VALIDATION,
                sellers=job.sellers or job.seller_applications,
                cones=job.cones or job.cone_applications,
                validation_end=event.validation_end,
            )
        case JobCancelled():
            return replace(job, phase=JobPhase.CANCELLED)
        case EscrowReclaimed():
            return replace(job, escrow_reclaimed=True)


def _change_course(job: JobState, course: Course) -> JobState:
    """Keep a course, and the one before the decision that it tells of."""
    parent = job.parent_course
    if course.parent == NO_DIGEST:
        parent = None
    elif job.course is not None and compute_course_hash(job.course) == course.parent:
        parent = job.course
    return replace(job, course=course, parent_course=parent)


def _apply_pool_event(
    job: JobState, event: PoolCalled | DecisionUpheld | DecisionOverturned, recorded: RecordedEvent
) -> JobState:
    """Go back to a decided ballot while the whole pool is asked, and on when it has answered."""
    last = job.decided[-1]
    match event:
        case PoolCalled():
            opened_at = (recorded.block_number, recorded.log_index)
            ballot = call_whole_pool(last.ballot, event, opened_at)
            return replace(job, phase=JobPhase.TRAINING, ended=None, ballot=ballot)
        case DecisionOverturned():
            return replace(job, decided=job.decided[:-1])
        case DecisionUpheld():
            assert job.ballot is not None, "the contract checks only what it decided"
            upheld = uphold(last, job.ballot, event)
            return replace(job, decided=(*job.decided[:-1], upheld))


def _apply_settlement_event(job: JobState, event: Event) -> JobState:
    match event:
        case TrainingEnded():
            return replace(job, phase=JobPhase.SETTLING, ended=event)
        case JobSettled():
            return replace(job, phase=JobPhase.SETTLED, settled=event)
        case PayoutCredited():
            return replace(job, payouts=(*job.payouts, event))
        case SharesOpened():
            return replace(job, shares=event)
        case SharesSwept():
            return replace(job, shares_swept=True)
        case StakeSlashed():
            return replace(job, slashes=(*job.slashes, event))
        case _:
            return job
