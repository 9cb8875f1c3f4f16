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
    StartTraining,
    SubmitCommits,
    SubmitOpenings,
    SubmitReceipts,
)
from d2m_node.errors import TransactionReverted
from protocol.ballot import Ballot
from protocol.bitmap import decode_bitmap, encode_bitmap
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
    ReceiptsRecorded,
    SellerDeposited,
    SellerEnrolled,
    SellersDrawn,
    TrainingEnded,
)
from protocol.hashing import keccak
from protocol.job import JobState
from protocol.market import MarketState
from protocol.settlement import Outcome
from protocol.sortition import encode_mini
from protocol.types import NO_DIGEST, Address, BlockNumber, JobId, Wei
from tests.support.auction_events import events_of_bidder, events_of_opening, refuse_late
from tests.support.check_events import CheckCall, events_of_check, refuse_checked
from tests.support.money_events import MoneyCall, events_of_money


def refuse_spent(state: MarketState, call: ContractCall) -> None:
    """Refuse what the contract refuses when gas is estimated."""
    refuse_late(state, call)
    refuse_checked(state, call)
    if isinstance(call, ReportEquivocation):
        deposit = state.jobs[call.job].deposits.get(call.seller)
        if deposit is None or deposit.status is not DepositStatus.HELD:
            raise TransactionReverted("report_equivocation", "deposits: nothing deposited")


def events_of(state: MarketState, sender: Address, call: ContractCall) -> Sequence[Event]:
    if isinstance(call, MoneyCall):
        return events_of_money(state, sender, call)
    if isinstance(call, CheckCall):
        return events_of_check(state, sender, call)
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
    found = _events_of_transition(job, sender, call) or _events_of_joining(job, sender, call)
    if found:
        return found
    match call:
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
    return _events_of_ballot(job_id, ballot, call)


def _events_of_ballot(job_id: JobId, ballot: Ballot, call: ContractCall) -> Sequence[Event]:
    """Return the events of what is said in the open ballot."""
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
            return (
                CommitsRecorded(
                    job=job_id,
                    ballot_number=ballot.ballot_number,
                    mini=mini,
                    batch_index=len(ballot.batches),
                    members=call.members,
                    commitments=tuple(commitment for commitment, _, _ in call.entries),
                ),
            )
        case SubmitOpenings():
            groups = tuple(
                (digest, trace, _voters_of(call, position))
                for position, (digest, trace) in enumerate(call.opened)
            )
            return (
                OpeningsRecorded(
                    job=job_id, ballot_number=ballot.ballot_number, mini=mini, groups=groups
                ),
            )
        case _:
            raise AssertionError(f"the market in memory does not know {type(call).__name__}")


def _voters_of(call: SubmitOpenings, position: int) -> int:
    """Return the nodes of a batch that opened one of its votes, as a bitmap."""
    indices = decode_bitmap(call.members)
    opened = zip(indices, call.batch, strict=True)
    return encode_bitmap(index for index, (vote, _) in opened if vote == position)


def _events_of_joining(job: JobState, sender: Address, call: ContractCall) -> Sequence[Event]:
    """Return the events of applications and receipts; none for other calls."""
    job_id = job.job_id
    match call:
        case EnrolSeller():
            index = len(job.seller_applications)
            enrolled = SellerEnrolled(
                job=job_id, index=index, seller=sender, dataset_id=call.dataset_id
            )
            return enrolled, SellerDeposited(job=job_id, seller=sender, amount_wei=call.value_wei)
        case EnrolCone():
            index = len(job.cone_applications)
            applied = ConeEnrolled(
                job=job_id, index=index, node=sender, ticket_root=call.ticket_root
            )
            return (applied,)
        case SubmitReceipts():
            held = job.receipts.get(call.part, 0)
            held |= encode_bitmap(index for index, _, _ in call.entries)
            return (ReceiptsRecorded(job=job_id, part=call.part, bitmap=held),)
        case _:
            return ()


def _events_of_transition(job: JobState, sender: Address, call: ContractCall) -> Sequence[Event]:
    """Return the events of what a buyer may send; none for other calls."""
    match call:
        case CloseEnrolment():
            return _events_of_enrolment_end(job, call)
        case ReclaimEscrow():
            return (EscrowReclaimed(job=job.job_id, buyer=sender, amount_wei=job.price_wei),)
        case SettleJob():
            return (_event_of_settlement(job),)
        case StartTraining():
            return (_event_of_no_receipts(job),)
        case _:
            return ()


def _event_of_no_receipts(job: JobState) -> TrainingEnded:
    """Nobody gave a receipt, as far as tests ask: the job ends without a round."""
    return TrainingEnded(
        job=job.job_id, outcome=Outcome.UNSERVED, rounds_done=0, initial_utility=0,
        last_utility=0, model_digest=NO_DIGEST, credit_root=NO_DIGEST, credit_sum=0,
        final_block=job.validation_end,
    )  # fmt: skip


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
