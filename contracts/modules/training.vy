#pragma version 0.4.3
"""
@title The course of a job's training
@license Apache-2.0
@notice What a count of votes leads to: a result, another attempt, a void round, the end.
@dev Functions that change a course store it once, at their end.
"""

from interfaces import IBallots
from interfaces import IRounds
from interfaces import IStakePool
from modules import attempts
from modules import ballot as ballots
from modules import params as deployment
from modules import participation
from modules import progress as progresses
from modules import refunds
from modules import result_header
from modules import slashes
from modules import terms as job_terms
from modules import utilities as job_utilities

uses: attempts

# Rounds in a row that must reach the target before the final data are looked at, and void rounds
# in a row that end a job.
ROUNDS_TO_REACH: constant(uint256) = 2
VOIDS_TO_ABORT: constant(uint256) = 2

MARKET: immutable(address)
STAKE_POOL: immutable(IStakePool)
FINALS_MAX: immutable(uint256)


# A ballot whose windows are over, as what it is counted.
struct Counted:
    ballot: ballots.Ballot
    votes: IBallots.Counted
    appeal_blocks: uint256  # zero once the whole pool has been called
    call: uint256  # why it was called


@deploy
def __init__(params: deployment.Params, market: address, stake_pool: address):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, whose address is in everything that is signed or hashed.
    @param stake_pool Where CONE nodes have their stake.
    """
    MARKET = market
    STAKE_POOL = IStakePool(stake_pool)
    FINALS_MAX = params.finals_max


@internal
def _close_decision(job: uint256, course: IRounds.Course) -> IRounds.Course:
    """
    @notice Make the last decision final, now that its appeal window is over.
    @param job Number of the job.
    @param course Its course.
    @return The course, with nothing left to appeal or to slash.
    """
    if slashes._is_due(course.slashes):
        barred: uint256 = slashes._execute(
            STAKE_POOL, job, self._members(job), course.slashes
        )
        self._bar(job, barred)
    return self._without_decision(course)


@internal
@pure
def _without_decision(course: IRounds.Course) -> IRounds.Course:
    """
    @notice A course in which the last decision is final.
    @param course Any course.
    @return The course, with nothing left to appeal or to slash.
    """
    final: IRounds.Course = course
    final.parent = empty(bytes32)
    final.decided_ballot = 0
    final.resumed_ballot = 0
    final.slashes = 0
    progress: progresses.Progress = progresses._unpack(course.progress)
    progress.call = progresses.CALL_NONE
    final.progress = progresses._pack(progress)
    return final


@internal
def _decide(
    job: uint256,
    terms: job_terms.JobTerms,
    before: IRounds.Course,
    parent: bytes32,
    counted: Counted,
    header: Bytes[2560],
):
    """
    @notice Accept the digest of a ballot, and open what comes next.
    @param job Number of the job.
    @param terms Terms of the job.
    @param before Its course without this decision.
    @param parent Hash of the course that led here.
    @param counted The ballot and its votes.
    @param header Bytes behind the digest.
    """
    assert keccak256(header) == counted.votes.digest, "rounds: header does not open the digest"
    unopened: uint256 = counted.votes.committed & ~counted.votes.opened
    appeal_end: uint256 = block.number + counted.appeal_blocks
    decided: IRounds.Course = before
    decided.parent = parent
    decided.decision = counted.votes.digest
    decided.decided_ballot = ballots._pack(counted.ballot)
    decided.slashes = slashes._plan(
        counted.votes.wrong, unopened, counted.votes.voters, appeal_end
    )
    decided.participation = participation._count(before.participation, counted.votes.voters)
    decided.refunds = refunds._collect(before.refunds, counted.votes.refunds)
    progress: progresses.Progress = progresses._unpack(before.progress)
    progress.deadline = appeal_end
    progress.call = counted.call
    if counted.ballot.kind == attempts.KIND_ROUND:
        self._decide_round(job, terms, decided, progress, counted, header)
    else:
        self._decide_final(job, terms, decided, progress, counted, header)


@internal
def _decide_round(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    progress: progresses.Progress,
    counted: Counted,
    header: Bytes[2560],
):
    """
    @notice Take from the header of a round what the contracts keep, and open what comes next.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course, with the votes of this ballot.
    @param progress Its progress.
    @param counted The ballot and its votes.
    @param header Bytes behind the digest.
    """
    ballot: ballots.Ballot = counted.ballot
    origin: result_header.Origin = result_header.Origin(
        market=MARKET, job=job, round_index=ballot.round_index
    )
    result: result_header.RoundResult = result_header._read_round(
        header, origin, course.digest, terms.sellers_per_round
    )
    decided: IRounds.Course = course
    decided.digest = counted.votes.digest
    decided.model_digest = result.model_digest
    decided.credit_root = result.credit_root
    utilities: job_utilities.Utilities = job_utilities._unpack(course.utilities)
    if progress.rounds_done == 0:
        utilities.first_before = result.utility_before
    utilities.last_after = result.utility_after
    decided.utilities = job_utilities._pack(utilities)
    log IRounds.RoundDecided(
        job=job,
        round_index=ballot.round_index,
        ballot_number=ballot.number,
        digest=counted.votes.digest,
        votes=counted.votes.votes,
        voters=counted.votes.voters,
        wrong=counted.votes.wrong,
        unopened=counted.votes.committed & ~counted.votes.opened,
        appeal_end=progress.deadline,
        header=header,
    )
    now: progresses.Progress = progress
    now.rounds_done += 1
    now.last_round = ballot.round_index + 1
    now.credit_sum = result.credit_sum
    now.voids = 0
    # Two are enough to know, and the field is narrow.
    now.reached = min(progress.reached + 1, ROUNDS_TO_REACH)
    if result.utility_after < terms.target:
        now.reached = 0
    is_last: bool = now.last_round == terms.rounds_max
    has_reached: bool = now.reached >= ROUNDS_TO_REACH
    base: uint256 = ballot.open_end + terms.decision_blocks
    if is_last or (has_reached and now.finals_used < FINALS_MAX):
        self._open_final(job, terms, decided, now, ballot.number, base, counted.appeal_blocks)
    else:
        self._open_round(
            job, terms, decided, now, ballot.number, now.last_round, base, counted.appeal_blocks
        )


@internal
def _decide_final(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    progress: progresses.Progress,
    counted: Counted,
    header: Bytes[2560],
):
    """
    @notice Take the utilities of a final evaluation: end the job at the target, else go on.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course, with the votes of this ballot.
    @param progress Its progress.
    @param counted The ballot and its votes.
    @param header Bytes behind the digest.
    """
    ballot: ballots.Ballot = counted.ballot
    origin: result_header.Origin = result_header.Origin(
        market=MARKET, job=job, round_index=ballot.round_index
    )
    result: result_header.FinalResult = result_header._read_final(
        header, origin, course.model_digest
    )
    decided: IRounds.Course = course
    utilities: job_utilities.Utilities = job_utilities._unpack(course.utilities)
    utilities.final_initial = result.initial_utility
    utilities.final_last = result.utility
    decided.utilities = job_utilities._pack(utilities)
    log IRounds.FinalDecided(
        job=job,
        round_index=ballot.round_index,
        ballot_number=ballot.number,
        digest=counted.votes.digest,
        votes=counted.votes.votes,
        voters=counted.votes.voters,
        wrong=counted.votes.wrong,
        unopened=counted.votes.committed & ~counted.votes.opened,
        appeal_end=progress.deadline,
        initial_utility=result.initial_utility,
        utility=result.utility,
    )
    now: progresses.Progress = progress
    now.is_final_decided = True
    if result.utility >= terms.target:
        self._end(job, decided, now, progresses.OUTCOME_TARGET, counted.appeal_blocks)
    else:
        base: uint256 = ballot.open_end + terms.decision_blocks
        self._go_on(job, terms, decided, now, ballot, base, counted.appeal_blocks)


@internal
def _uphold(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    parent: IRounds.Course,
    counted: Counted,
):
    """
    @notice Let a decision stand after the whole pool was called, and resume what it had opened.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course.
    @param parent Its course before the decision.
    @param counted The ballot of the whole pool, with the votes for the decision.
    """
    unopened: uint256 = counted.votes.committed & ~counted.votes.opened
    upheld: IRounds.Course = course
    # Those who were called count as well, and who voted otherwise is wrong.
    upheld.participation = participation._count(
        parent.participation, counted.votes.upheld_voters
    )
    upheld.refunds = refunds._collect(parent.refunds, counted.votes.refunds)
    upheld.slashes = slashes._plan(
        counted.votes.upheld_wrong, unopened, counted.votes.upheld_voters, block.number
    )
    log IRounds.DecisionUpheld(
        job=job,
        ballot_number=counted.ballot.number,
        digest=course.decision,
        votes=counted.votes.upheld_votes,
        voters=counted.votes.upheld_voters,
        wrong=counted.votes.upheld_wrong,
        unopened=unopened,
    )
    self._resume(job, terms, upheld, counted.ballot.open_end + terms.decision_blocks)


@internal
def _resume(job: uint256, terms: job_terms.JobTerms, course: IRounds.Course, base: uint256):
    """
    @notice Open again what a decision had opened before the whole pool was called.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course.
    @param base Deadline of the call.
    """
    resumed: IRounds.Course = course
    resumed.parent = empty(bytes32)
    resumed.decided_ballot = 0
    resumed.resumed_ballot = 0
    progress: progresses.Progress = progresses._unpack(course.progress)
    if course.resumed_ballot == 0:
        self._end(job, resumed, progress, progress.outcome, 0)
        return
    attempts._store(job, resumed)
    ballot: ballots.Ballot = ballots._unpack(course.resumed_ballot)
    if ballot.kind == attempts.KIND_ROUND:
        attempts._open_round(
            job, terms, ballot.cones, ballot.number, ballot.round_index, base, 0
        )
    else:
        attempts._open_final(
            job, terms, ballot.cones, ballot.number, ballot.round_index, base, 0
        )


@internal
def _fail_attempt(
    job: uint256, terms: job_terms.JobTerms, course: IRounds.Course, counted: Counted
):
    """
    @notice End an attempt without a decision: open the next one, or give up.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course.
    @param counted The ballot that was not decided.
    """
    failed: IRounds.Course = self._leave_undecided(job, course, counted)
    ballot: ballots.Ballot = counted.ballot
    if ballot.attempt < attempts.RETRIES:
        attempts._store(job, failed)
        attempts._open_retry(job, terms, ballot)
    else:
        self._give_up(job, terms, failed, ballot, ballot.open_end + terms.decision_blocks)


@internal
def _leave_undecided(
    job: uint256, course: IRounds.Course, counted: Counted
) -> IRounds.Course:
    """
    @notice End a ballot without a decision, and slash at once who did not open.
    @dev No appeal can turn a missing opening into one. Nobody has earned a share: all is burned.
    @param job Number of the job.
    @param course Its course.
    @param counted The ballot that was not decided.
    @return The course, with what its batches cost.
    """
    unopened: uint256 = counted.votes.committed & ~counted.votes.opened
    log IRounds.AttemptUndecided(
        job=job,
        round_index=counted.ballot.round_index,
        ballot_number=counted.ballot.number,
        unopened=unopened,
    )
    if unopened != 0:
        barred: uint256 = slashes._slash(
            STAKE_POOL, job, self._members(job), unopened, slashes.REASON_UNOPENED, 0
        )
        self._bar(job, barred)
    left: IRounds.Course = course
    left.refunds = refunds._collect(course.refunds, counted.votes.refunds)
    return left


@internal
def _give_up(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    ballot: ballots.Ballot,
    base: uint256,
):
    """
    @notice Void a round, or count a final evaluation as not reached.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course.
    @param ballot Last ballot of the round or final.
    @param base Deadline of the phase before.
    """
    progress: progresses.Progress = progresses._unpack(course.progress)
    if ballot.kind == attempts.KIND_FINAL:
        self._go_on(job, terms, course, progress, ballot, base, 0)
        return

    log IRounds.RoundVoided(job=job, round_index=ballot.round_index)
    progress.voids += 1
    progress.reached = 0
    next_round: uint256 = ballot.round_index + 1
    if progress.voids >= VOIDS_TO_ABORT:
        self._end(job, course, progress, progresses.OUTCOME_ABORTED, 0)
    elif next_round < terms.rounds_max:
        self._open_round(job, terms, course, progress, ballot.number, next_round, base, 0)
    elif progress.rounds_done > 0 and progress.final_round != progress.last_round:
        self._open_final(job, terms, course, progress, ballot.number, base, 0)
    else:
        # Nothing was decided, or the last decided model has had its final evaluation.
        self._end(job, course, progress, progresses.OUTCOME_ENDED, 0)


@internal
def _go_on(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
    base: uint256,
    appeal_blocks: uint256,
):
    """
    @notice Continue after a final evaluation that did not reach the target.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course.
    @param progress Its progress.
    @param ballot Last ballot of the final.
    @param base Deadline of the phase before.
    @param appeal_blocks Wait for appeals against the decision.
    """
    going: progresses.Progress = progress
    going.reached = 0
    # Rounds after the evaluated one may have been void: the number goes on, never back.
    next_round: uint256 = ballot.round_index + 1 + progress.voids
    if next_round < terms.rounds_max:
        self._open_round(
            job, terms, course, going, ballot.number, next_round, base, appeal_blocks
        )
    else:
        self._end(job, course, going, progresses.OUTCOME_ENDED, appeal_blocks)


@internal
def _open_round(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    progress: progresses.Progress,
    number: uint256,
    round_index: uint256,
    base: uint256,
    appeal_blocks: uint256,
):
    """
    @notice Store a course and open a round.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course.
    @param progress Its progress.
    @param number Number of the ballot before.
    @param round_index Round to open.
    @param base Deadline of the phase before.
    @param appeal_blocks Wait for appeals against the decision before.
    """
    opened: IRounds.Course = course
    opened.progress = progresses._pack(progress)
    attempts._store(job, opened)
    attempts._open_round(
        job, terms, progress.cones, number + 1, round_index, base, appeal_blocks
    )


@internal
def _open_final(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    progress: progresses.Progress,
    number: uint256,
    base: uint256,
    appeal_blocks: uint256,
):
    """
    @notice Store a course and open a final evaluation of the last decided model.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Its course.
    @param progress Its progress.
    @param number Number of the ballot before.
    @param base Deadline of the phase before.
    @param appeal_blocks Wait for appeals against the decision before.
    """
    now: progresses.Progress = progress
    now.finals_used += 1
    now.final_round = progress.last_round
    # What an earlier one found is of another model.
    now.is_final_decided = False
    opened: IRounds.Course = course
    opened.progress = progresses._pack(now)
    attempts._store(job, opened)
    attempts._open_final(
        job, terms, now.cones, number + 1, now.last_round - 1, base, appeal_blocks
    )


@internal
def _end(
    job: uint256,
    course: IRounds.Course,
    progress: progresses.Progress,
    outcome: uint256,
    appeal_blocks: uint256,
):
    """
    @notice End a job's training.
    @param job Number of the job.
    @param course Its course.
    @param progress Its progress.
    @param outcome 1 target, 2 ended, 3 aborted, 4 unserved.
    @param appeal_blocks Wait before the settlement.
    """
    ended: progresses.Progress = progress
    ended.phase = progresses.PHASE_ENDED
    ended.outcome = outcome
    ended.deadline = block.number + appeal_blocks
    last: IRounds.Course = course
    last.progress = progresses._pack(ended)
    extcall attempts.BALLOTS.open_ballot(job, 0)
    attempts._store(job, last)
    result: IRounds.TrainingResult = self._result(last)
    log IRounds.TrainingEnded(
        job=job,
        outcome=outcome,
        rounds_done=result.rounds_done,
        initial_utility=result.initial_utility,
        last_utility=result.last_utility,
        model_digest=result.model_digest,
        credit_root=result.credit_root,
        credit_sum=result.credit_sum,
        final_block=result.final_block,
    )


@internal
@pure
def _result(course: IRounds.Course) -> IRounds.TrainingResult:
    """
    @notice What a settlement needs to know.
    @dev Utilities are those of the last final evaluation if it was of the last decided model and
         decided; else the best evidence on chain, the rounds' own.
    @param course Course of the job.
    @return Outcome, rounds, utilities, credits, votes and refunds.
    """
    progress: progresses.Progress = progresses._unpack(course.progress)
    utilities: job_utilities.Utilities = job_utilities._unpack(course.utilities)
    initial_utility: int256 = utilities.first_before
    last_utility: int256 = utilities.last_after
    is_final_evaluated: bool = (
        progress.is_final_decided and progress.final_round == progress.last_round
    )
    if is_final_evaluated:
        initial_utility = utilities.final_initial
        last_utility = utilities.final_last
    return IRounds.TrainingResult(
        terms_hash=course.terms_hash,
        outcome=progress.outcome,
        rounds_done=progress.rounds_done,
        initial_utility=initial_utility,
        last_utility=last_utility,
        is_final_evaluated=is_final_evaluated,
        model_digest=course.model_digest,
        credit_root=course.credit_root,
        credit_sum=progress.credit_sum,
        final_block=progress.deadline,
        participation=participation._list(course.participation, progress.cones),
        refunds_wei=refunds._list(course.refunds, progress.cones),
    )


@internal
@view
def _members(job: uint256) -> address:
    """
    @notice Roster of a job's CONE nodes.
    @param job Number of the job.
    @return The roster.
    """
    members: address = empty(address)
    cones: uint256 = 0
    barred: uint256 = 0
    members, cones, barred = staticcall attempts.BALLOTS.pool_of(job)
    return members


@internal
def _bar(job: uint256, barred: uint256):
    """
    @notice Let nodes that cannot pay another slash vote no more.
    @param job Number of the job.
    @param barred Bitmap of the nodes.
    """
    if barred != 0:
        extcall attempts.BALLOTS.bar(job, barred)
