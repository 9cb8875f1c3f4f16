#pragma version 0.4.3
"""
@title Attempts to decide something
@license Apache-2.0
@notice Keeps the course of each job as one hash, and opens ballots: rounds, final evaluations,
        retries, and mini-rounds within them.
"""

from interfaces import IBallots
from interfaces import IRounds
from modules import ballot as ballots
from modules import execution_set
from modules import header as block_header
from modules import params as deployment
from modules import progress as progresses
from modules import schedule
from modules import terms as job_terms

KIND_ROUND: constant(uint256) = 0
KIND_FINAL: constant(uint256) = 1
PART_ROUNDS: constant(uint256) = 0
PART_FINAL: constant(uint256) = 1

SEED_DELAY_BLOCKS: immutable(uint256)
RETRIES: immutable(uint256)

BALLOTS: immutable(IBallots)

course_hash: HashMap[uint256, bytes32]


@deploy
def __init__(params: deployment.Params, ballots_account: address):
    """
    @notice Fix the parameters and where votes are taken.
    @param params Parameters of the deployment.
    @param ballots_account The ballots.
    """
    BALLOTS = IBallots(ballots_account)
    SEED_DELAY_BLOCKS = params.seed_delay_blocks
    RETRIES = params.retries


@internal
@view
def _check(job: uint256, terms: job_terms.JobTerms, course: IRounds.Course):
    """
    @notice Revert unless the caller brought the job's terms and its current course.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Course of the job.
    """
    self._check_course(job, course)
    assert job_terms._hash(terms) == course.terms_hash, "rounds: wrong terms"


@internal
@view
def _check_course(job: uint256, course: IRounds.Course):
    """
    @notice Revert unless the caller brought the job's current course.
    @param job Number of the job.
    @param course Course of the job.
    """
    assert keccak256(abi_encode(course)) == self.course_hash[job], "rounds: wrong course"


@internal
def _store(job: uint256, course: IRounds.Course):
    """
    @notice Keep the hash of a job's course, and announce the course.
    @param job Number of the job.
    @param course New course.
    """
    self.course_hash[job] = keccak256(abi_encode(course))
    log IRounds.CourseChanged(job=job, course=course)


@internal
def _open_round(
    job: uint256,
    terms: job_terms.JobTerms,
    cones: uint256,
    number: uint256,
    round_index: uint256,
    base: uint256,
    appeal_blocks: uint256,
):
    """
    @notice Open the first attempt of a round.
    @param job Number of the job.
    @param terms Terms of the job.
    @param cones Nodes in its pool.
    @param number Number of the ballot.
    @param round_index Round to open.
    @param base Deadline of the phase before.
    @param appeal_blocks Wait for appeals against the decision before.
    """
    training: schedule.Training = schedule._training(
        terms, base, appeal_blocks, SEED_DELAY_BLOCKS
    )
    ballot: ballots.Ballot = empty(ballots.Ballot)
    ballot.round_index = round_index
    ballot.number = number
    ballot.cones = cones
    self._open_attempt(job, terms, ballot, training)


@internal
def _open_final(
    job: uint256,
    terms: job_terms.JobTerms,
    cones: uint256,
    number: uint256,
    round_index: uint256,
    base: uint256,
    appeal_blocks: uint256,
):
    """
    @notice Open the first attempt of a final evaluation.
    @param job Number of the job.
    @param terms Terms of the job.
    @param cones Nodes in its pool.
    @param number Number of the ballot.
    @param round_index Last decided round, whose model is evaluated.
    @param base Deadline of the phase before.
    @param appeal_blocks Wait for appeals against the decision before.
    """
    training: schedule.Training = empty(schedule.Training)
    training.availability_end = (
        max(block.number, base) + appeal_blocks + terms.validation_blocks
    )
    ballot: ballots.Ballot = empty(ballots.Ballot)
    ballot.kind = KIND_FINAL
    ballot.round_index = round_index
    ballot.number = number
    ballot.cones = cones
    self._open_attempt(job, terms, ballot, training)


@internal
def _open_retry(job: uint256, terms: job_terms.JobTerms, ballot: ballots.Ballot):
    """
    @notice Open the next attempt of a round or final, from availability on.
    @param job Number of the job.
    @param terms Terms of the job.
    @param ballot Ballot that was not decided.
    """
    training: schedule.Training = empty(schedule.Training)
    training.availability_end = max(block.number, ballot.open_end) + terms.availability_blocks
    again: ballots.Ballot = empty(ballots.Ballot)
    again.kind = ballot.kind
    again.attempt = ballot.attempt + 1
    again.round_index = ballot.round_index
    again.number = ballot.number + 1
    again.cones = ballot.cones
    self._open_attempt(job, terms, again, training)


@internal
def _open_mini_round(job: uint256, terms: job_terms.JobTerms, ballot: ballots.Ballot):
    """
    @notice Call a larger execution set into the same attempt.
    @param job Number of the job.
    @param terms Terms of the job.
    @param ballot Ballot that was not decided.
    """
    grown: ballots.Ballot = ballot
    grown.m = ballot.m + 1
    grown.size_before = ballot.size
    grown.size = execution_set._size(terms, ballot.cones, grown.m)
    grown.seed_block = ballot.open_end + SEED_DELAY_BLOCKS
    grown.commit_end = max(block.number, grown.seed_block) + terms.vote_commit_blocks
    grown.open_end = grown.commit_end + terms.vote_open_blocks
    extcall BALLOTS.open_ballot(job, ballots._pack(grown))
    log IRounds.MiniRoundOpened(
        job=job,
        ballot_number=grown.number,
        mini=ballots._mini(grown),
        seed_block=grown.seed_block,
        commit_end=grown.commit_end,
        open_end=grown.open_end,
    )


@internal
def _open_whole_pool(
    job: uint256,
    terms: job_terms.JobTerms,
    ballot: ballots.Ballot,
    base: uint256,
    is_audit: bool,
):
    """
    @notice Call whoever of the pool has not voted into a decided ballot.
    @dev All tickets vote, so nobody is left out who was silent before.
    @param job Number of the job.
    @param terms Terms of the job.
    @param ballot Ballot that was decided.
    @param base End of the appeal window.
    @param is_audit Whether chance called the pool, and not an appeal.
    """
    whole: ballots.Ballot = ballot
    whole.m = ballot.m + 1
    whole.is_pool_called = True
    whole.size_before = 0
    whole.size = ballot.cones
    whole.seed_block = base + SEED_DELAY_BLOCKS
    whole.commit_end = whole.seed_block + terms.vote_commit_blocks
    whole.open_end = whole.commit_end + terms.vote_open_blocks
    # Nobody could vote, and whoever appealed would lose the bond for nothing.
    assert (
        whole.open_end
        <= ballot.availability_end + SEED_DELAY_BLOCKS + block_header.HISTORY_REACH
    ), "rounds: seed out of reach"
    extcall BALLOTS.open_ballot(job, ballots._pack(whole))
    log IRounds.PoolCalled(
        job=job,
        ballot_number=whole.number,
        mini=ballots._mini(whole),
        is_audit=is_audit,
        seed_block=whole.seed_block,
        commit_end=whole.commit_end,
        open_end=whole.open_end,
    )


@internal
def _open_attempt(
    job: uint256,
    terms: job_terms.JobTerms,
    ballot: ballots.Ballot,
    training: schedule.Training,
):
    """
    @notice Open a ballot.
    @param job Number of the job.
    @param terms Terms of the job.
    @param ballot Kind, attempt, round, number and pool of the ballot.
    @param training The sellers' windows; zero but for the last if no seller trains.
    """
    opened: ballots.Ballot = ballot
    opened.size = execution_set._size(terms, ballot.cones, 0)
    opened.availability_end = training.availability_end
    opened.seed_block = training.availability_end + SEED_DELAY_BLOCKS
    opened.commit_end = opened.seed_block + terms.vote_commit_blocks
    opened.open_end = opened.commit_end + terms.vote_open_blocks
    extcall BALLOTS.open_ballot(job, ballots._pack(opened))
    log IRounds.AttemptOpened(
        job=job,
        ballot_number=opened.number,
        round_index=opened.round_index,
        kind=opened.kind,
        attempt=opened.attempt,
        seller_seed_block=training.seller_seed_block,
        update_commit_end=training.update_commit_end,
        update_open_end=training.update_open_end,
        availability_end=opened.availability_end,
        seed_block=opened.seed_block,
        commit_end=opened.commit_end,
        open_end=opened.open_end,
    )
