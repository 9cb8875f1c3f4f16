#pragma version 0.4.3
"""
@title The course of a job's training
@license Apache-2.0
@notice What a count of votes leads to: a result, another attempt, a void round, the end.
"""

from interfaces import IRounds
from interfaces import IStakePool
from modules import attempts
from modules import ballot as ballots
from modules import params as deployment
from modules import pool
from modules import progress as progresses
from modules import result_header
from modules import slashes
from modules import tally as tallies
from modules import terms as job_terms
from modules import utilities as job_utilities
from modules import votes

uses: attempts
uses: pool
uses: slashes
uses: votes

# Rounds in a row that must reach the target before the final data are looked at, and void rounds
# in a row that end a job.
ROUNDS_TO_REACH: constant(uint256) = 2
VOIDS_TO_ABORT: constant(uint256) = 2

MARKET: immutable(address)
STAKE_POOL: immutable(IStakePool)
FINALS_MAX: immutable(uint256)

utilities_word: HashMap[uint256, uint256]
last_digest: HashMap[uint256, bytes32]
model_digest: HashMap[uint256, bytes32]
credit_root: HashMap[uint256, bytes32]


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
def _decide_round(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
    count: tallies.Count,
    header: Bytes[4096],
):
    """
    @notice Accept the digest of a round, and open what comes next.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress.
    @param ballot Ballot that was decided.
    @param count Its votes.
    @param header Bytes behind the digest.
    """
    origin: result_header.Origin = result_header.Origin(
        market=MARKET, job=job, round_index=ballot.round_index
    )
    result: result_header.RoundResult = result_header._read_round(
        header, origin, self.last_digest[job], terms.sellers_per_round
    )
    unopened: uint256 = self._accept(job, terms, ballot, count)
    self._keep_result(job, progress, count.digest, result)
    log IRounds.RoundDecided(
        job=job,
        round_index=ballot.round_index,
        ballot_number=ballot.number,
        digest=count.digest,
        votes=count.votes,
        voters=count.voters,
        wrong=count.wrong,
        unopened=unopened,
        header=header,
    )

    decided: progresses.Progress = progress
    decided.rounds_done += 1
    decided.last_round = ballot.round_index + 1
    decided.credit_sum = result.credit_sum
    decided.voids = 0
    if result.utility_after >= terms.target:
        # Two are enough to know, and the field is narrow.
        decided.reached = min(progress.reached + 1, ROUNDS_TO_REACH)
    else:
        decided.reached = 0
    base: uint256 = ballot.open_end + terms.decision_blocks
    is_last: bool = decided.last_round == terms.rounds_max
    has_reached: bool = decided.reached >= ROUNDS_TO_REACH
    if is_last or (has_reached and progress.finals_used < FINALS_MAX):
        attempts._open_final(job, terms, decided, base)
    else:
        attempts._open_round(job, terms, decided, decided.last_round, base)


@internal
def _decide_final(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
    count: tallies.Count,
    header: Bytes[4096],
):
    """
    @notice Accept a final evaluation: end the job at the target, else go on.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress.
    @param ballot Ballot that was decided.
    @param count Its votes.
    @param header Bytes behind the digest.
    """
    origin: result_header.Origin = result_header.Origin(
        market=MARKET, job=job, round_index=ballot.round_index
    )
    result: result_header.FinalResult = result_header._read_final(
        header, origin, self.model_digest[job]
    )
    unopened: uint256 = self._accept(job, terms, ballot, count)
    utilities: job_utilities.Utilities = job_utilities._unpack(self.utilities_word[job])
    utilities.final_initial = result.initial_utility
    utilities.final_last = result.utility
    self.utilities_word[job] = job_utilities._pack(utilities)
    log IRounds.FinalDecided(
        job=job,
        round_index=ballot.round_index,
        ballot_number=ballot.number,
        digest=count.digest,
        votes=count.votes,
        voters=count.voters,
        wrong=count.wrong,
        unopened=unopened,
        initial_utility=result.initial_utility,
        utility=result.utility,
    )
    decided: progresses.Progress = progress
    decided.is_final_decided = True
    if result.utility >= terms.target:
        self._end(job, decided, progresses.OUTCOME_TARGET, terms.appeal_blocks)
    else:
        self._go_on(job, terms, decided, ballot, ballot.open_end + terms.decision_blocks)


@internal
def _accept(
    job: uint256,
    terms: job_terms.JobTerms,
    ballot: ballots.Ballot,
    count: tallies.Count,
) -> uint256:
    """
    @notice Count the voters of an accepted digest and plan the slashes of its ballot.
    @param job Number of the job.
    @param terms Terms of the job.
    @param ballot Ballot that was decided.
    @param count Its votes.
    @return Bitmap of nodes that committed and did not open.
    """
    marks: ballots.Marks = votes._marks(job, ballot)
    unopened: uint256 = marks.committed & ~marks.opened
    pool._count_votes(job, count.voters)
    slashes._plan(job, count.wrong, unopened, count.voters, block.number + terms.appeal_blocks)
    return unopened


@internal
def _keep_result(
    job: uint256,
    progress: progresses.Progress,
    digest: bytes32,
    result: result_header.RoundResult,
):
    """
    @notice Store what a decided round means for the next one and for the settlement.
    @param job Number of the job.
    @param progress Its progress before this round.
    @param digest Accepted digest.
    @param result What the digest commits to.
    """
    utilities: job_utilities.Utilities = job_utilities._unpack(self.utilities_word[job])
    if progress.rounds_done == 0:
        utilities.first_before = result.utility_before
    utilities.last_after = result.utility_after
    self.utilities_word[job] = job_utilities._pack(utilities)
    self.last_digest[job] = digest
    self.model_digest[job] = result.model_digest
    self.credit_root[job] = result.credit_root


@internal
def _fail_attempt(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
):
    """
    @notice End an attempt without a decision: open the next one, or give up.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress.
    @param ballot Ballot that was not decided.
    """
    failed: progresses.Progress = progress
    failed.barred |= self._slash_unopened(job, ballot)
    if ballots._attempt(ballot.mini) < attempts.RETRIES:
        attempts._open_retry(job, terms, failed, ballot)
    else:
        self._give_up(job, terms, failed, ballot, ballot.open_end + terms.decision_blocks)


@internal
def _slash_unopened(job: uint256, ballot: ballots.Ballot) -> uint256:
    """
    @notice End a ballot without a decision and slash at once who did not open.
    @dev No appeal can turn a missing opening into one. Nobody has earned a share: all is burned.
    @param job Number of the job.
    @param ballot Ballot that was not decided.
    @return Bitmap of nodes that cannot pay another slash.
    """
    marks: ballots.Marks = votes._marks(job, ballot)
    unopened: uint256 = marks.committed & ~marks.opened
    log IRounds.AttemptUndecided(
        job=job,
        round_index=ballot.round_index,
        ballot_number=ballot.number,
        unopened=unopened,
    )
    return slashes._slash(
        STAKE_POOL, job, unopened, slashes.REASON_UNOPENED, 0
    )


@internal
def _give_up(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
    base: uint256,
):
    """
    @notice Void a round, or count a final evaluation as not reached.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress.
    @param ballot Last ballot of the round or final.
    @param base Deadline of the phase before.
    """
    given_up: progresses.Progress = progress
    if ballots._kind(ballot.mini) == attempts.KIND_FINAL:
        given_up.is_final_decided = False
        self._go_on(job, terms, given_up, ballot, base)
        return

    log IRounds.RoundVoided(job=job, round_index=ballot.round_index)
    given_up.voids += 1
    given_up.reached = 0
    next_round: uint256 = ballot.round_index + 1
    if given_up.voids >= VOIDS_TO_ABORT:
        self._end(job, given_up, progresses.OUTCOME_ABORTED, terms.appeal_blocks)
    elif next_round < terms.rounds_max:
        attempts._open_round(job, terms, given_up, next_round, base)
    elif given_up.rounds_done > 0 and given_up.final_round != given_up.last_round:
        attempts._open_final(job, terms, given_up, base)
    else:
        # Nothing was decided, or the last decided model has had its final evaluation.
        self._end(job, given_up, progresses.OUTCOME_ENDED, terms.appeal_blocks)


@internal
def _go_on(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
    base: uint256,
):
    """
    @notice Continue after a final evaluation that did not reach the target.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress.
    @param ballot Last ballot of the final.
    @param base Deadline of the phase before.
    """
    going: progresses.Progress = progress
    going.reached = 0
    # Rounds after the evaluated one may have been void: the number goes on, never back.
    next_round: uint256 = ballot.round_index + 1 + progress.voids
    if next_round < terms.rounds_max:
        attempts._open_round(job, terms, going, next_round, base)
    else:
        self._end(job, going, progresses.OUTCOME_ENDED, terms.appeal_blocks)


@internal
def _ends_unserved(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
) -> bool:
    """
    @notice End a job at its target if the buyer did not serve the final validation data.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress.
    @param ballot Ballot whose windows are over.
    @return True if the job was ended.
    """
    is_final: bool = ballots._kind(ballot.mini) == attempts.KIND_FINAL
    if not is_final or attempts._is_served(job, progress, attempts.PART_FINAL):
        return False
    ended: progresses.Progress = progress
    ended.barred |= self._slash_unopened(job, ballot)
    ended.is_final_decided = False
    self._end(job, ended, progresses.OUTCOME_TARGET, terms.appeal_blocks)
    return True


@internal
def _end(
    job: uint256, progress: progresses.Progress, outcome: uint256, appeal_blocks: uint256
):
    """
    @notice End a job's training.
    @param job Number of the job.
    @param progress Its progress, which is stored.
    @param outcome 1 target, 2 ended, 3 aborted, 4 unserved.
    @param appeal_blocks Wait before the settlement.
    """
    ended: progresses.Progress = progress
    ended.phase = progresses.PHASE_ENDED
    ended.outcome = outcome
    ended.deadline = block.number + appeal_blocks
    attempts.progress_word[job] = progresses._pack(ended)
    result: IRounds.TrainingResult = self._result(job, ended)
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
@view
def _result(job: uint256, progress: progresses.Progress) -> IRounds.TrainingResult:
    """
    @notice What a settlement needs to know.
    @dev Utilities are those of the last final evaluation if it was of the last decided model and
         decided; else the best evidence on chain, the rounds' own.
    @param job Number of the job.
    @param progress Its progress.
    @return Outcome, rounds, utilities and credits.
    """
    utilities: job_utilities.Utilities = job_utilities._unpack(self.utilities_word[job])
    initial_utility: int256 = utilities.first_before
    last_utility: int256 = utilities.last_after
    if progress.is_final_decided and progress.final_round == progress.last_round:
        initial_utility = utilities.final_initial
        last_utility = utilities.final_last
    return IRounds.TrainingResult(
        terms_hash=attempts.terms_hash[job],
        outcome=progress.outcome,
        rounds_done=progress.rounds_done,
        initial_utility=initial_utility,
        last_utility=last_utility,
        model_digest=self.model_digest[job],
        credit_root=self.credit_root[job],
        credit_sum=progress.credit_sum,
        final_block=progress.deadline,
    )
