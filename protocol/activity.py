"""What one account does in a job right now, in words, from the chain alone."""

from protocol.ballot import Ballot
from protocol.earnings import Role
from protocol.job import JobPhase, JobState
from protocol.sortition import BallotKind
from protocol.types import Address, BlockNumber


def find_roles(job: JobState, account: Address) -> tuple[Role, ...]:
    """List as what an account takes part in a job, or is about to."""
    has = {
        Role.BUYER: account in job.bids and job.buyer in (None, account),
        Role.SELLER: job.has_seller_applied(account) and not job.is_seller_left_out(account),
        Role.CONE: job.has_cone_applied(account) and not job.is_cone_left_out(account),
    }
    return tuple(role for role, is_one in has.items() if is_one)


def describe_activity(job: JobState, block_number: BlockNumber) -> str:
    """Say what a job waits for, with the last block of that wait."""
    match job.phase:
        case JobPhase.AUCTION:
            if block_number <= job.commit_end:
                return f"bids until block {job.commit_end}"
            if block_number <= job.reveal_end:
                return f"reveals until block {job.reveal_end}"
            return "the auction is to be closed"
        case JobPhase.ENROLMENT:
            if block_number <= job.enrolment_end:
                return f"applications until block {job.enrolment_end}"
            return "the enrolment is to be closed"
        case JobPhase.VALIDATION:
            if block_number <= job.validation_end:
                return f"validation data until block {job.validation_end}"
            return "training is to be started"
        case JobPhase.TRAINING:
            return (
                "a ballot is to be opened"
                if job.ballot is None
                else _tell(job.ballot, block_number)
            )
        case JobPhase.SETTLING:
            if job.ended is not None and block_number <= job.ended.final_block:
                return f"may be appealed until block {job.ended.final_block}"
            return "to be settled"
        case JobPhase.SETTLED | JobPhase.CANCELLED:
            return "over"


def _tell(ballot: Ballot | None, block_number: BlockNumber) -> str:
    if ballot is None:
        return "a ballot is to be opened"
    is_final = ballot.kind is BallotKind.FINAL
    what = f"{'final evaluation after ' if is_final else ''}round {ballot.round_index}"
    if ballot.attempt:
        what += f", retry {ballot.attempt}"
    mini = ballot.current
    if mini.mini_round_index:
        what += f", mini-round {mini.mini_round_index}"
    windows = [
        ("updates", BlockNumber(0) if is_final else ballot.update_commit_end),
        ("openings of updates", BlockNumber(0) if is_final else ballot.update_open_end),
        ("availability", ballot.availability_end),
        ("votes", mini.commit_end),
        ("openings of votes", mini.open_end),
    ]
    for name, end in windows:
        if block_number <= end:
            return f"{what}: {name} until block {end}"
    return f"{what}: the count"
