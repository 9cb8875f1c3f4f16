"""What the chain says, as the operator reads it."""

from collections.abc import Mapping
from typing import Final

from d2m_node.client import (
    BidView,
    DepositView,
    DialFailureView,
    JobSummary,
    JobView,
    PayoutView,
    PeerView,
    RefusalView,
    RoundView,
    SlashView,
    TurnedAwayView,
)
from d2m_node.ports import PeerStatus, Refusal
from protocol.ballot import DecidedBallot
from protocol.bitmap import decode_bitmap
from protocol.digest import RoundHeader
from protocol.errors import InvalidMessage
from protocol.events import FinalDecided, RoundDecided
from protocol.job import JobState
from protocol.market import MarketState
from protocol.settlement import Outcome
from protocol.types import NO_ACCOUNT

ONE_Q20: Final = 1 << 20
PAYOUT_ROLES: Final = {1: "cone", 2: "seller", 3: "buyer", 4: "batcher"}
SLASH_REASONS: Final = {1: "wrong digest", 2: "not opened"}


def to_hex(value: bytes) -> str:
    """Write bytes as 0x and hexadecimal digits."""
    return "0x" + value.hex()


def view_peer(peer: PeerStatus, state: MarketState) -> PeerView:
    """Describe a peer, with the accounts that name it."""
    return PeerView(
        peer_id=to_hex(peer.peer_id),
        multiaddr=peer.multiaddr,
        connected=peer.connected,
        last_error=peer.last_error,
        failures=[
            DialFailureView(multiaddr=one.multiaddr, source=one.source, reason=one.reason)
            for one in peer.failures
        ],
        next_dial_seconds=peer.next_dial_seconds,
        accounts=sorted(to_hex(one) for one in state.accounts_of_peer(peer.peer_id)),
        penalty=round(peer.penalty, 2),
        banned_seconds=None if peer.banned_seconds is None else round(peer.banned_seconds, 1),
        turned_away=view_turned_away(peer.turned_away),
    )


def view_turned_away(counts: Mapping[str, int]) -> TurnedAwayView:
    """Describe how often limits were come to; one that nobody came to is zero."""
    return TurnedAwayView(
        **{name: counts.get(name, 0) for name in TurnedAwayView.__struct_fields__}
    )


def view_refusal(refusal: Refusal) -> RefusalView:
    """Describe a job that this node turned down."""
    return RefusalView(
        job=refusal.job_id,
        role=refusal.role,
        code=refusal.code,
        reason=refusal.reason,
        block=refusal.block_number,
    )


def summarise_job(job: JobState) -> JobSummary:
    """Describe a job in one line."""
    rounds = job.decided_rounds
    return JobSummary(
        job=job.job_id,
        phase=job.phase.value,
        buyer=None if job.buyer is None else to_hex(job.buyer),
        mode=job.mode.name.lower().replace("_", "-"),
        currency="ether" if job.currency == NO_ACCOUNT else to_hex(job.currency),
        price_wei=job.price_wei,
        sellers=len(job.sellers or job.seller_applications),
        cones=len(job.cones or job.cone_applications),
        rounds_done=len(rounds),
        utility=_utility_of(rounds[-1]) if rounds else None,
    )


def view_job(job: JobState) -> JobView:
    """Describe all that the chain says about a job."""
    ended, settled = job.ended, job.settled
    return JobView(
        summary=summarise_job(job),
        tags=[to_hex(tag) for tag in job.tags],
        target=None if job.terms is None else _from_q20(job.terms.target),
        outcome=None if ended is None else Outcome(ended.outcome).name.lower(),
        model_digest=None if ended is None else to_hex(ended.model_digest),
        bids=[
            BidView(
                bidder=to_hex(bid.bidder),
                deposit_wei=bid.deposit_wei,
                amount_wei=bid.amount_wei,
                reclaimed=bid.reclaimed,
            )
            for bid in job.bids.values()
        ],
        sellers=[to_hex(one.account) for one in job.sellers or job.seller_applications],
        deposits=[
            DepositView(
                account=to_hex(seller),
                amount_wei=deposit.amount_wei,
                status=deposit.status.value,
            )
            for seller, deposit in job.deposits.items()
        ],
        cones=[to_hex(one.account) for one in job.cones or job.cone_applications],
        left_out=_list_left_out(job),
        rounds=[_view_decision(decided) for decided in job.decided],
        rounds_void=list(job.voided),
        payouts=[
            PayoutView(
                to=to_hex(payout.payee),
                role=PAYOUT_ROLES[payout.role],
                amount_wei=payout.amount_wei,
            )
            for payout in job.payouts
        ],
        refund_wei=None if settled is None else settled.refund_wei,
        slashes=[
            SlashView(
                account=to_hex(slash.account),
                amount_wei=slash.amount_wei,
                reason=SLASH_REASONS[slash.reason],
            )
            for slash in job.slashes
        ],
    )


def _list_left_out(job: JobState) -> list[str]:
    """List who applied and was not drawn: sellers, then CONE nodes."""
    sellers = (one.account for one in job.seller_applications)
    cones = (one.account for one in job.cone_applications)
    left_out = [
        *(account for account in sellers if job.is_seller_left_out(account)),
        *(account for account in cones if job.is_cone_left_out(account)),
    ]
    return [to_hex(account) for account in left_out]


def _view_decision(decided: DecidedBallot) -> RoundView:
    decision, ballot = decided.decision, decided.ballot
    return RoundView(
        kind=ballot.kind.name.lower(),
        round=decision.round_index,
        attempt=ballot.attempt,
        mini_rounds=len(ballot.mini_rounds),
        digest=to_hex(decision.digest),
        votes=decision.votes,
        votes_cast=len(ballot.openings),
        utility=_utility_of(decision),
        wrong=list(decode_bitmap(decision.wrong)),
        unopened=list(decode_bitmap(decision.unopened)),
    )


def _utility_of(decision: RoundDecided | FinalDecided) -> float:
    if isinstance(decision, FinalDecided):
        return _from_q20(decision.utility)
    try:
        return _from_q20(RoundHeader.decode(decision.header).utility_after)
    except InvalidMessage as exc:
        raise AssertionError("the contract parsed this header before it decided") from exc


def _from_q20(value: int) -> float:
    return round(value / ONE_Q20, 6)
