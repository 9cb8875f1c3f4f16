"""Why an account was paid nothing for a job, or for one ballot of it, as far as the chain can tell.

What never reached the chain stays open: a node's ticket is its own secret, so "not drawn" and
"drawn, and too late" look alike from outside. Source: MECHANISM 4, 6, 7, 9.2, 14.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from protocol.ballot import DecidedBallot
from protocol.bitmap import decode_bitmap
from protocol.commitment import NO_TRACE
from protocol.consensus import select_voters
from protocol.digest import RoundHeader
from protocol.earnings import Role
from protocol.errors import InvalidMessage
from protocol.events import (
    AuctionClosed,
    BidReclaimed,
    ConesDrawn,
    DecisionUpheld,
    Event,
    FinalDecided,
    JobCancelled,
    RoundDecided,
    SellersDrawn,
    TrainingEnded,
)
from protocol.job import JobPhase, JobState
from protocol.payment_audit import count_ballot, list_paid_votes
from protocol.payout_explanation import EventSource, locate
from protocol.settlement import Outcome
from protocol.sortition import BallotKind
from protocol.types import Address, ConeIndex, SellerIndex


class Why(Enum):
    """The facts that leave somebody without pay."""

    CANCELLED = "the job was cancelled: nobody is paid, and all money goes back"
    NOT_OVER = "the job is not settled yet: its price is split when it is"
    LEFT_OUT = "not drawn: more applied than there are places"
    OUTBID = "another bid won the auction"
    NOT_REVEALED = "the bid was not revealed in time"
    UNSERVED = "training never began, for want of validation data: sellers get nothing"
    NO_ROUND = "no round was decided"
    NO_PROGRESS = "the model came no nearer to its target: sellers get nothing"
    NOT_SAMPLED = "not among the sellers that were sampled for the round"
    NO_UPDATE = "sampled, but the update was not in the input set: too late, or not to be had"
    NOT_ACCEPTED = "in the input set, but the filter did not accept the update"
    NO_VOTE = "no vote in time: not drawn for the ballot, or not heard"
    NOT_OPENED = "a vote was committed and not opened in time"
    NO_DATA = 'voted "no data": an input was missing'
    WRONG_DIGEST = "voted for another digest than the decided one"
    FEWER_TRACES = "voted for the decided digest with a trace that fewer had"
    PAID_BY_BOND = "came for an appeal that failed: its bond pays, not the job"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroPay:
    """One reason for no pay."""

    role: Role
    why: Why
    round_index: int | None
    """None for the job as a whole."""
    is_final: bool
    """Of a final evaluation, not of a round."""
    sources: tuple[EventSource, ...]


def explain_zero_pay(job: JobState, account: Address) -> tuple[ZeroPay, ...]:
    """List what left an account without pay, for the job as a whole, then ballot by ballot.

    Empty for an account that has nothing to do with the job, or was paid for all of it.
    """
    return tuple(_Inquiry(job, account).run())


class _Inquiry:
    def __init__(self, job: JobState, account: Address) -> None:
        self._job = job
        self._me = account

    def run(self) -> Iterator[ZeroPay]:
        job, me = self._job, self._me
        if me in job.bids:
            yield from self._explain_bid()
        for role, has_applied, is_left_out in (
            (Role.SELLER, job.has_seller_applied(me), job.is_seller_left_out(me)),
            (Role.CONE, job.has_cone_applied(me), job.is_cone_left_out(me)),
        ):
            if not has_applied:
                continue
            if is_left_out:
                drawn = SellersDrawn if role is Role.SELLER else ConesDrawn
                yield self._tell(role, Why.LEFT_OUT, drawn)
            elif job.phase is JobPhase.CANCELLED:
                yield self._tell(role, Why.CANCELLED, JobCancelled)
            else:
                yield from self._explain_member(role)

    def _explain_bid(self) -> Iterator[ZeroPay]:
        job, bid = self._job, self._job.bids[self._me]
        is_closed = job.phase is not JobPhase.AUCTION
        if is_closed and bid.amount_wei is None:
            yield self._tell(Role.BUYER, Why.NOT_REVEALED, BidReclaimed, bidder=self._me)
        elif is_closed and job.buyer is not None and job.buyer != self._me:
            yield self._tell(Role.BUYER, Why.OUTBID, AuctionClosed)
        elif job.buyer == self._me and job.phase is JobPhase.CANCELLED:
            yield self._tell(Role.BUYER, Why.CANCELLED, JobCancelled)

    def _explain_member(self, role: Role) -> Iterator[ZeroPay]:
        job = self._job
        if job.phase is not JobPhase.SETTLED:
            yield self._tell(role, Why.NOT_OVER, TrainingEnded)
        else:
            yield from self._explain_outcome(role)
        cone, seller = job.cone_index(self._me), job.seller_index(self._me)
        for decided in job.decided:
            why = None
            if role is Role.CONE and cone is not None:
                why = self._judge_vote(decided, cone)
            elif role is Role.SELLER and seller is not None:
                why = self._judge_update(decided, seller)
            if why is not None:
                yield self._tell_ballot(role, why, decided)

    def _explain_outcome(self, role: Role) -> Iterator[ZeroPay]:
        job = self._job
        assert job.ended is not None, "what is settled has ended"
        assert job.settled is not None, "the phase says so"
        is_unserved = job.ended.outcome == Outcome.UNSERVED
        if is_unserved and role is Role.SELLER:
            yield self._tell(role, Why.UNSERVED, TrainingEnded)
        elif not is_unserved and not job.decided_rounds:
            yield self._tell(role, Why.NO_ROUND, TrainingEnded)
        elif role is Role.SELLER and job.settled.seller_pool_wei == 0:
            yield self._tell(role, Why.NO_PROGRESS, TrainingEnded)

    def _judge_update(self, decided: DecidedBallot, seller: SellerIndex) -> Why | None:
        """Say what kept an update from being paid; None if it was accepted, or is not known."""
        decision = decided.decision
        if not isinstance(decision, RoundDecided):
            return None
        try:
            header = RoundHeader.decode(decision.header)
        except InvalidMessage:  # nobody can say what such a round was about
            return None
        if seller not in decode_bitmap(header.sampled):
            return Why.NOT_SAMPLED
        if seller not in decode_bitmap(header.available):
            return Why.NO_UPDATE
        return None if seller in decode_bitmap(header.accepted) else Why.NOT_ACCEPTED

    def _judge_vote(self, decided: DecidedBallot, cone: ConeIndex) -> Why | None:
        """Say what kept a vote from being paid; None if it was."""
        counted = count_ballot(decided)
        digest = decided.decision.digest
        paid_votes = list_paid_votes(counted)
        if cone in select_voters(paid_votes, digest):
            return None
        vote = next((one for one in counted.openings if one.node_index == cone), None)
        if vote is None:
            has_committed = any(
                cone in decode_bitmap(batch.members) for batch in decided.ballot.batches
            )
            return Why.NOT_OPENED if has_committed else Why.NO_VOTE
        if vote.trace == NO_TRACE:
            return Why.NO_DATA
        if vote.digest != digest:
            return Why.WRONG_DIGEST
        return Why.FEWER_TRACES if vote in paid_votes else Why.PAID_BY_BOND

    def _tell(self, role: Role, why: Why, kind: type[Event], **fields: object) -> ZeroPay:
        return ZeroPay(
            role=role,
            why=why,
            round_index=None,
            is_final=False,
            sources=self._find(kind, **fields),
        )

    def _tell_ballot(self, role: Role, why: Why, decided: DecidedBallot) -> ZeroPay:
        number = decided.ballot.ballot_number
        return ZeroPay(
            role=role,
            why=why,
            round_index=decided.decision.round_index,
            is_final=decided.ballot.kind is BallotKind.FINAL,
            sources=tuple(
                source
                for kind in (RoundDecided, FinalDecided, DecisionUpheld)
                for source in self._find(kind, ballot_number=number)
            ),
        )

    def _find(self, kind: type[Event], **fields: object) -> tuple[EventSource, ...]:
        return tuple(
            locate(one)
            for one in self._job.trail
            if isinstance(one.event, kind)
            and all(getattr(one.event, name) == value for name, value in fields.items())
        )
