"""The events that the contracts log for a call, for the market in memory."""

from collections.abc import Sequence
from typing import Any

from d2m_node.calls import (
    ApproveToken,
    CloseEnrolment,
    ContractCall,
    EnrolCone,
    EnrolSeller,
    LogBitmaps,
    OpenAuction,
    OpenClearAuction,
    ReclaimDeposit,
    ReclaimEscrow,
    RegisterDataset,
    ReportEquivocation,
    SettleJob,
    SubmitCommits,
    SubmitOpenings,
)
from d2m_node.errors import TransactionReverted
from protocol.deposits import DepositStatus
from protocol.enrolment import DrawnRole, draw_members
from protocol.events import (
    BitmapsLogged,
    CommitsRecorded,
    ConeEnrolled,
    ConesDrawn,
    DatasetRegistered,
    DepositReturned,
    EnrolmentClosed,
    EquivocationProved,
    EscrowReclaimed,
    Event,
    JobCancelled,
    JobSettled,
    OpeningsRecorded,
    SellerDeposited,
    SellerEnrolled,
    SellersDrawn,
)
from protocol.hashing import keccak
from protocol.job import JobState
from protocol.market import MarketState
from protocol.sortition import encode_mini
from protocol.types import Address, BlockNumber, Wei
from tests.support.auction_events import events_of_bidder, events_of_opening, refuse_late
from tests.support.money_events import MoneyCall, events_of_money


def refuse_spent(state: MarketState, call: ContractCall) -> None:
    """Refuse what the contract refuses when gas is estimated."""
    refuse_late(state, call)
    if isinstance(call, ReportEquivocation):
        deposit = state.jobs[call.job].deposits.get(call.seller)
        if deposit is None or deposit.status is not DepositStatus.HELD:
            raise TransactionReverted("report_equivocation", "deposits: nothing deposited")


def events_of(state: MarketState, sender: Address, call: ContractCall) -> Sequence[Event]:
    if isinstance(call, MoneyCall):
        return events_of_money(state, sender, call)
    if isinstance(call, RegisterDataset):
        registered = DatasetRegistered(
            dataset_id=len(state.datasets),
            seller=sender,
            tags=call.tags,
            metadata_hash=call.metadata_hash,
            min_price_wei=call.min_price_wei,
            min_price_token=call.min_price_token,
        )
        return (registered,)
    if isinstance(call, ApproveToken):
        return ()  # the token's own are not followed
    if isinstance(call, OpenAuction | OpenClearAuction):
        return events_of_opening(state, sender, call)
    of_bidder = events_of_bidder(state, sender, call)
    if of_bidder is not None:
        return of_bidder
    job_id: Any = getattr(call, "job", None) or getattr(call, "auction", None)
    job = state.jobs[job_id]
    ballot = job.ballot
    found = _events_of_transition(job, sender, call)
    if found:
        return found
    match call:
        case EnrolSeller():
            deposited = SellerDeposited(job=job_id, seller=sender, amount_wei=call.value_wei)
            index = len(job.seller_applications)
            enrolled = SellerEnrolled(
                job=job_id, index=index, seller=sender, dataset_id=call.dataset_id
            )
            return enrolled, deposited
        case EnrolCone():
            index = len(job.cone_applications)
            applied = ConeEnrolled(
                job=job_id, index=index, node=sender, ticket_root=call.ticket_root
            )
            return (applied,)
        case ReclaimDeposit():
            amount_wei = job.deposits[sender].amount_wei
            return (DepositReturned(job=job_id, seller=sender, amount_wei=amount_wei),)
        case ReportEquivocation():
            deposit = job.deposits[call.seller]
            if deposit.status is not DepositStatus.HELD:
                return ()  # reverted when mined
            proved = EquivocationProved(
                job=job_id,
                seller=call.seller,
                round_index=call.round_index,
                first_commitment=call.first[0],
                second_commitment=call.second[0],
                amount_wei=deposit.amount_wei,
            )
            return (proved,)
    assert ballot is not None
    mini = encode_mini(ballot.kind, ballot.attempt, ballot.current.mini_round_index)
    match call:
        case LogBitmaps():
            return (
                BitmapsLogged(
                    job=job_id,
                    ballot_number=call.ballot_number,
                    groups=call.groups,
                    signatures=call.signatures,
                ),
            )
        case SubmitCommits():
            commits = tuple((index, commitment) for index, commitment, _ in call.entries)
            return (
                CommitsRecorded(
                    job=job_id,
                    ballot_number=ballot.ballot_number,
                    mini=mini,
                    batch_index=0,
                    entries=commits,
                ),
            )
        case SubmitOpenings():
            openings = tuple((call.batch[o[0]][0], o[1], o[2]) for o in call.openings)
            return (
                OpeningsRecorded(
                    job=job_id, ballot_number=ballot.ballot_number, mini=mini, entries=openings
                ),
            )
        case _:
            raise AssertionError(f"the market in memory does not know {type(call).__name__}")


def _events_of_transition(job: JobState, sender: Address, call: ContractCall) -> Sequence[Event]:
    """Return the events of what a buyer may send; none for other calls."""
    match call:
        case CloseEnrolment():
            return _events_of_enrolment_end(job, call)
        case ReclaimEscrow():
            return (EscrowReclaimed(job=job.job_id, buyer=sender, amount_wei=job.price_wei),)
        case SettleJob():
            return (_event_of_settlement(job),)
        case _:
            return ()


def _events_of_enrolment_end(job: JobState, call: CloseEnrolment) -> Sequence[Event]:
    """Draw if it must be, with the hash of the header as seed."""
    assert call.sellers == tuple(one.account for one in job.seller_applications)
    assert call.cones == tuple((one.account, one.ticket_root) for one in job.cone_applications)
    terms, sellers, cones = call.terms, len(call.sellers), len(call.cones)
    if sellers < terms.sellers_min or cones < terms.cones_min:
        return (JobCancelled(job=job.job_id, refund_wei=job.price_wei),)
    events: list[Event] = []
    seed = keccak(call.header)
    if sellers > terms.sellers_max:
        indices = draw_members(seed, DrawnRole.SELLERS, sellers, terms.sellers_max)
        events.append(SellersDrawn(job=job.job_id, indices=indices))
    if cones > terms.cones_max:
        indices = draw_members(seed, DrawnRole.CONES, cones, terms.cones_max)
        events.append(ConesDrawn(job=job.job_id, indices=indices))
    closed = EnrolmentClosed(
        job=job.job_id,
        sellers=min(sellers, terms.sellers_max),
        cones=min(cones, terms.cones_max),
        enrolment_end=job.enrolment_end,
        validation_end=BlockNumber(job.enrolment_end + 10),
    )
    return (*events, closed)


def _event_of_settlement(job: JobState) -> Event:
    assert job.buyer is not None
    assert job.ended is not None
    return JobSettled(
        job=job.job_id,
        buyer=job.buyer,
        price_wei=job.price_wei,
        cone_pool_wei=Wei(0),
        seller_pool_wei=Wei(0),
        refund_wei=job.price_wei,
        rounds_done=job.ended.rounds_done,
        initial_utility=0,
        last_utility=0,
        model_digest=job.ended.model_digest,
    )
