#pragma version 0.4.3
"""
@title Attempts to decide something
@license Apache-2.0
@notice Opens ballots: rounds, final evaluations, retries, and mini-rounds within them.
"""

from interfaces import IRounds
from modules import ballot as ballots
from modules import bitmap
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

terms_hash: HashMap[uint256, bytes32]
progress_word: HashMap[uint256, uint256]
ballot_word: HashMap[uint256, uint256]
receipt_bits: HashMap[uint256, uint256[2]]


@deploy
def __init__(params: deployment.Params):
    """
    @notice Fix the parameters.
    @param params Parameters of the deployment.
    """
    SEED_DELAY_BLOCKS = params.seed_delay_blocks
    RETRIES = params.retries


@internal
@view
def _load(job: uint256, terms: job_terms.JobTerms) -> progresses.Progress:
    """
    @notice A job's progress, after checking the terms that the caller brought.
    @param job Number of the job.
    @param terms Terms of the job.
    @return The progress.
    """
    assert job_terms._hash(terms) == self.terms_hash[job], "rounds: wrong terms"
    return progresses._unpack(self.progress_word[job])


@internal
@view
def _current(job: uint256) -> ballots.Ballot:
    """
    @notice The ballot that is open.
    @param job Number of the job.
    @return The ballot; reverts before training and after its end.
    """
    progress: progresses.Progress = progresses._unpack(self.progress_word[job])
    assert progress.phase == progresses.PHASE_TRAINING, "rounds: not in training"
    return ballots._unpack(self.ballot_word[job])


@internal
@view
def _check_receipts_open(job: uint256, progress: progresses.Progress, part: uint256):
    """
    @notice Revert unless receipts of a part are taken now.
    @param job Number of the job.
    @param progress Its progress.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    """
    last_block: uint256 = progress.deadline
    if part == PART_ROUNDS:
        assert progress.phase == progresses.PHASE_VALIDATION, "rounds: not in validation"
    else:
        ballot: ballots.Ballot = self._current(job)
        assert ballots._kind(ballot.mini) == KIND_FINAL, "rounds: not in a final"
        last_block = ballot.availability_end
    assert block.number <= last_block, "rounds: receipts closed"


@internal
@view
def _is_served(job: uint256, progress: progresses.Progress, part: uint256) -> bool:
    """
    @notice Whether more than half of the pool holds a part of the validation data.
    @param job Number of the job.
    @param progress Its progress.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    @return True with enough receipts.
    """
    return 2 * bitmap._count(self.receipt_bits[job][part]) > progress.cones


@internal
def _open_round(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    round_index: uint256,
    base: uint256,
):
    """
    @notice Open the first attempt of a round.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress, which is stored.
    @param round_index Round to open.
    @param base Deadline of the phase before.
    """
    appeal_blocks: uint256 = 0
    if round_index > 0:
        appeal_blocks = terms.appeal_blocks
    self.progress_word[job] = progresses._pack(progress)
    training: schedule.Training = schedule._training(
        terms, base, appeal_blocks, SEED_DELAY_BLOCKS
    )
    self._open_attempt(job, terms, round_index, ballots._mini(KIND_ROUND, 0), training)


@internal
def _open_final(
    job: uint256, terms: job_terms.JobTerms, progress: progresses.Progress, base: uint256
):
    """
    @notice Open the first attempt of a final evaluation of the last decided model.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress, which is stored.
    @param base Deadline of the phase before.
    """
    opened: progresses.Progress = progress
    opened.finals_used += 1
    opened.final_round = progress.last_round
    self.progress_word[job] = progresses._pack(opened)
    training: schedule.Training = empty(schedule.Training)
    training.availability_end = (
        max(block.number, base) + terms.appeal_blocks + terms.validation_blocks
    )
    self._open_attempt(
        job, terms, progress.last_round - 1, ballots._mini(KIND_FINAL, 0), training
    )


@internal
def _open_mini_round(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
):
    """
    @notice Call a larger execution set into the same attempt.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress, which is stored.
    @param ballot Ballot that was not decided.
    """
    grown: ballots.Ballot = ballot
    grown.mini = ballot.mini + 1
    grown.seed_block = ballot.open_end + SEED_DELAY_BLOCKS
    grown.commit_end = max(block.number, grown.seed_block) + terms.vote_commit_blocks
    grown.open_end = grown.commit_end + terms.vote_open_blocks
    self.progress_word[job] = progresses._pack(progress)
    self.ballot_word[job] = ballots._pack(grown)
    log IRounds.MiniRoundOpened(
        job=job,
        ballot_number=grown.number,
        mini=grown.mini,
        seed_block=grown.seed_block,
        commit_end=grown.commit_end,
        open_end=grown.open_end,
    )


@internal
def _open_retry(
    job: uint256,
    terms: job_terms.JobTerms,
    progress: progresses.Progress,
    ballot: ballots.Ballot,
):
    """
    @notice Open the next attempt of a round or final, from availability on.
    @param job Number of the job.
    @param terms Terms of the job.
    @param progress Its progress, which is stored.
    @param ballot Ballot that was not decided.
    """
    self.progress_word[job] = progresses._pack(progress)
    training: schedule.Training = empty(schedule.Training)
    training.availability_end = max(block.number, ballot.open_end) + terms.availability_blocks
    attempt: uint256 = ballots._attempt(ballot.mini) + 1
    mini: uint256 = ballots._mini(ballots._kind(ballot.mini), attempt)
    self._open_attempt(job, terms, ballot.round_index, mini, training)


@internal
def _open_attempt(
    job: uint256,
    terms: job_terms.JobTerms,
    round_index: uint256,
    mini: uint256,
    training: schedule.Training,
):
    """
    @notice Open the next ballot of a job.
    @param job Number of the job.
    @param terms Terms of the job.
    @param round_index Round that is voted on.
    @param mini Kind and attempt.
    @param training The sellers' windows; zero but for the last if no seller trains.
    """
    number: uint256 = ballots._unpack(self.ballot_word[job]).number + 1
    seed_block: uint256 = training.availability_end + SEED_DELAY_BLOCKS
    commit_end: uint256 = seed_block + terms.vote_commit_blocks
    open_end: uint256 = commit_end + terms.vote_open_blocks
    self.ballot_word[job] = ballots._pack(
        ballots.Ballot(
            mini=mini,
            round_index=round_index,
            number=number,
            availability_end=training.availability_end,
            seed_block=seed_block,
            commit_end=commit_end,
            open_end=open_end,
        )
    )
    log IRounds.AttemptOpened(
        job=job,
        ballot_number=number,
        round_index=round_index,
        kind=ballots._kind(mini),
        attempt=ballots._attempt(mini),
        seller_seed_block=training.seller_seed_block,
        update_commit_end=training.update_commit_end,
        update_open_end=training.update_open_end,
        availability_end=training.availability_end,
        seed_block=seed_block,
        commit_end=commit_end,
        open_end=open_end,
    )
