#pragma version 0.4.3
#pragma nonreentrancy on
#pragma optimize codesize
"""
@title Rounds
@license Apache-2.0
@notice Trains jobs: each round, and each final evaluation, is decided by votes of the job's pool.
        Ballots takes and counts the votes; here is what a count leads to.
@dev An attempt to decide something is a ballot; ballots of a job are numbered from 1. The
     contract computes nothing of the learning: it compares digests and reads what they commit to.
     What is kept of a job between ballots is the hash of its course; callers bring the course.
"""

from interfaces import IAppeals
from interfaces import IBallots
from interfaces import IRounds
from interfaces import IStatements
from modules import attempts
from modules import ballot as packed_ballots
from modules import bitmap
from modules import commitments
from modules import header as block_header
from modules import limits
from modules import params as deployment
from modules import progress as progresses
from modules import roster
from modules import slashes
from modules import tally as tallies
from modules import terms as job_terms
from modules import training

initializes: attempts
initializes: training[attempts := attempts]

implements: IRounds

ENROLMENT: immutable(address)
STATEMENTS: immutable(IStatements)
APPEALS: immutable(IAppeals)
SETTLEMENT: immutable(address)
AUDIT_BPS: immutable(uint256)


@deploy
def __init__(
    params: deployment.Params,
    market: address,
    stake_pool: address,
    enrolment: address,
    statements: address,
    ballots: address,
    appeals: address,
    settlement: address,
):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, whose address is in everything that is signed or hashed.
    @param stake_pool Where CONE nodes have their stake.
    @param enrolment Who opens jobs.
    @param statements Where nodes say what they hold.
    @param ballots Where votes are taken.
    @param appeals Who calls the whole pool.
    @param settlement Who closes jobs.
    """
    attempts.__init__(params, ballots)
    training.__init__(params, market, stake_pool)
    ENROLMENT = enrolment
    STATEMENTS = IStatements(statements)
    APPEALS = IAppeals(appeals)
    SETTLEMENT = settlement
    AUDIT_BPS = params.audit_bps


@external
def open_job(
    job: uint256, terms_hash: bytes32, validation_end: uint256, pool: address, cones: uint256
):
    """
    @notice Take a job whose enrolment was closed, and wait for receipts of the validation data.
    @param job Number of the job.
    @param terms_hash Hash of its terms.
    @param validation_end Last block for receipts.
    @param pool Roster of its CONE nodes.
    @param cones How many there are.
    """
    assert msg.sender == ENROLMENT, "rounds: only the enrolment"
    extcall attempts.BALLOTS.open_pool(job, pool, cones)
    waiting: packed_ballots.Ballot = empty(packed_ballots.Ballot)
    waiting.availability_end = validation_end
    extcall attempts.BALLOTS.open_ballot(job, packed_ballots._pack(waiting))
    progress: progresses.Progress = empty(progresses.Progress)
    progress.cones = cones
    progress.deadline = validation_end
    progress.phase = progresses.PHASE_VALIDATION
    course: IRounds.Course = empty(IRounds.Course)
    course.terms_hash = terms_hash
    course.progress = progresses._pack(progress)
    attempts._store(job, course)


@external
def start_training(job: uint256, terms: job_terms.JobTerms, course: IRounds.Course):
    """
    @notice Open the first round, or end the job if the buyer did not serve its validation data.
            Anyone may call.
    @param job Job whose validation window is over.
    @param terms Terms of the job.
    @param course Course of the job.
    """
    attempts._check(job, terms, course)
    progress: progresses.Progress = progresses._unpack(course.progress)
    assert progress.phase == progresses.PHASE_VALIDATION, "rounds: not in validation"
    assert block.number > progress.deadline, "rounds: validation still open"

    if self._is_served(job, progress.cones, attempts.PART_ROUNDS):
        base: uint256 = progress.deadline
        progress.phase = progresses.PHASE_TRAINING
        training._open_round(job, terms, course, progress, 0, 0, base, 0)
    else:
        training._end(job, course, progress, progresses.OUTCOME_UNSERVED, 0)


@external
def tally(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    groups: DynArray[IBallots.VoteGroup, limits.MAX_CONES],
    header: Bytes[2560],
):
    """
    @notice Count the votes of the current ballot and go on: decided, a larger execution set, a new
            attempt, or a void round. Anyone may call.
    @param job Job in training.
    @param terms Terms of the job.
    @param course Course of the job.
    @param groups All groups of equal votes, strictly ascending by mini-round, digest and trace.
    @param header Bytes behind the decided digest; not looked at if none is decided.
    """
    attempts._check(job, terms, course)
    counted: training.Counted = self._count(job, terms, groups, empty(bytes32))
    ballot: packed_ballots.Ballot = counted.ballot
    assert not ballot.is_pool_called, "rounds: the pool is called"
    counted.appeal_blocks = terms.appeal_blocks
    before: IRounds.Course = training._close_decision(job, course)
    if self._ends_unserved(job, before, counted):
        return

    if tallies._is_decided(counted.votes, terms.lead, ballot.cones):
        training._decide(
            job, terms, before, keccak256(abi_encode(course)), counted, header
        )
    elif ballot.size < ballot.cones and not tallies._is_hopeless(
        counted.votes, terms.lead, ballot.cones
    ):
        attempts._store(job, before)
        attempts._open_mini_round(job, terms, ballot)
    else:
        training._fail_attempt(job, terms, before, counted)


@external
def tally_pool(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    parent: IRounds.Course,
    groups: DynArray[IBallots.VoteGroup, limits.MAX_CONES],
    header: Bytes[2560],
):
    """
    @notice Count the votes of the whole pool over a decision. It is overturned only by an absolute
            majority for another digest. Anyone may call.
    @param job Job whose pool was called.
    @param terms Terms of the job.
    @param course Course of the job.
    @param parent Its course before the decision.
    @param groups All groups of equal votes, strictly ascending by mini-round, digest and trace.
    @param header Bytes behind another digest; not looked at if the decision stands.
    """
    attempts._check(job, terms, course)
    counted: training.Counted = self._count(job, terms, groups, course.decision)
    assert counted.ballot.is_pool_called, "rounds: the pool is not called"
    assert keccak256(abi_encode(parent)) == course.parent, "rounds: wrong parent"
    counted.call = progresses._unpack(course.progress).call
    is_overturned: bool = (
        counted.votes.digest != course.decision
        and 2 * counted.votes.votes > counted.ballot.cones
    )
    if is_overturned:
        log IRounds.DecisionOverturned(
            job=job, ballot_number=counted.ballot.number, digest=course.decision
        )
        before: IRounds.Course = training._without_decision(parent)
        training._decide(job, terms, before, empty(bytes32), counted, header)
    else:
        training._uphold(job, terms, course, parent, counted)
    self._resolve(job, counted.call, is_overturned, counted.votes.newcomers)


@external
def expire(job: uint256, terms: job_terms.JobTerms, course: IRounds.Course):
    """
    @notice Void a ballot that nobody counted, or whose header nobody brought; a decision that was
            checked stands. Anyone may call.
    @param job Job in training.
    @param terms Terms of the job.
    @param course Course of the job.
    """
    attempts._check(job, terms, course)
    word: uint256 = staticcall attempts.BALLOTS.current(job)
    ballot: packed_ballots.Ballot = packed_ballots._unpack(word)
    assert ballot.number > 0, "rounds: not in training"
    deadline: uint256 = ballot.open_end + terms.header_blocks
    assert block.number > deadline, "rounds: header deadline not passed"
    counted: training.Counted = empty(training.Counted)
    counted.ballot = ballot
    counted.votes = staticcall attempts.BALLOTS.marks(job, word)
    if ballot.is_pool_called:
        log IRounds.DecisionUpheld(
            job=job,
            ballot_number=ballot.number,
            digest=course.decision,
            votes=0,
            voters=0,
            wrong=0,
            unopened=0,
        )
        upheld: IRounds.Course = course
        upheld.slashes = slashes._postpone(course.slashes, block.number)
        training._resume(job, terms, upheld, deadline)
        self._resolve(job, progresses._unpack(course.progress).call, False, 0)
        return

    before: IRounds.Course = training._close_decision(job, course)
    if self._ends_unserved(job, before, counted):
        return
    left: IRounds.Course = training._leave_undecided(job, before, counted)
    training._give_up(job, terms, left, ballot, deadline)


@external
def audit(
    job: uint256, terms: job_terms.JobTerms, course: IRounds.Course, header: Bytes[1024]
):
    """
    @notice Call the whole pool to check a decision, if chance says so. Anyone may call.
    @dev The seed is of a block after the last opening, so no voter knew it.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Course of the job.
    @param header RLP header of the audit's seed block.
    """
    attempts._check(job, terms, course)
    assert course.decided_ballot != 0, "rounds: no decision to check"
    ballot: packed_ballots.Ballot = packed_ballots._unpack(course.decided_ballot)
    randomness: bytes32 = block_header._randomness(
        ballot.open_end + attempts.SEED_DELAY_BLOCKS, header
    )
    seed: uint256 = commitments._audit_seed(
        training.MARKET, job, ballot.round_index, packed_ballots._mini(ballot), randomness
    )
    assert seed % limits.BPS < AUDIT_BPS, "rounds: no audit of this decision"
    self._call_pool(job, terms, course, progresses.CALL_AUDIT)


@external
def call_pool(job: uint256, terms: job_terms.JobTerms, course: IRounds.Course) -> uint256:
    """
    @notice Call the whole pool to check a decision, because somebody appealed.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Course of the job.
    @return How many nodes have not voted yet.
    """
    assert msg.sender == APPEALS.address, "rounds: only appeals"
    attempts._check(job, terms, course)
    return self._call_pool(job, terms, course, progresses.CALL_APPEAL)


@external
def execute_slashes(job: uint256, course: IRounds.Course):
    """
    @notice Slash whoever is due. Anyone may call, once the appeal window is over.
    @param job Number of the job.
    @param course Course of the job.
    """
    attempts._check_course(job, course)
    assert slashes._is_due(course.slashes), "rounds: nobody to slash"
    attempts._store(job, training._close_decision(job, course))


@external
def close_job(job: uint256, course: IRounds.Course) -> IRounds.TrainingResult:
    """
    @notice Hand the result of a job to the settlement, which calls this, and forget the job.
    @param job Job whose training ended.
    @param course Course of the job.
    @return How the training went.
    """
    assert msg.sender == SETTLEMENT, "rounds: only the settlement"
    attempts._check_course(job, course)
    progress: progresses.Progress = progresses._unpack(course.progress)
    assert progress.phase == progresses.PHASE_ENDED, "rounds: training not ended"
    assert staticcall attempts.BALLOTS.current(job) == 0, "rounds: the pool is called"
    assert block.number > progress.deadline, "rounds: appeal window open"

    attempts.course_hash[job] = empty(bytes32)
    last: IRounds.Course = training._close_decision(job, course)
    return training._result(last)


@external
@view
def training_result(job: uint256, course: IRounds.Course) -> IRounds.TrainingResult:
    """
    @notice How a job's training stands.
    @param job Number of the job.
    @param course Course of the job.
    @return Outcome, rounds, utilities, credits, votes and refunds; outcome 0 while it runs.
    """
    attempts._check_course(job, course)
    return training._result(course)


@external
@view
def course_hash(job: uint256) -> bytes32:
    """
    @notice What a job's course must hash to.
    @param job Number of the job.
    @return The hash; zero before training and after the settlement.
    """
    return attempts.course_hash[job]


@internal
@view
def _count(
    job: uint256,
    terms: job_terms.JobTerms,
    groups: DynArray[IBallots.VoteGroup, limits.MAX_CONES],
    digest: bytes32,
) -> training.Counted:
    """
    @notice The current ballot, counted, once its windows are over.
    @param job Number of the job.
    @param terms Terms of the job.
    @param groups All groups of equal votes.
    @param digest Digest whose votes are wanted whether or not it leads.
    @return The ballot and its votes.
    """
    counted: training.Counted = empty(training.Counted)
    counted.votes = staticcall attempts.BALLOTS.count(job, groups, digest)
    counted.ballot = packed_ballots._unpack(counted.votes.ballot)
    assert counted.ballot.number > 0, "rounds: not in training"
    open_end: uint256 = counted.ballot.open_end
    assert block.number > open_end, "rounds: openings still open"
    assert block.number <= open_end + terms.header_blocks, "rounds: header deadline passed"
    return counted


@internal
def _call_pool(
    job: uint256, terms: job_terms.JobTerms, course: IRounds.Course, call: uint256
) -> uint256:
    """
    @notice Open a decided ballot again for whoever has not voted.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Course of the job.
    @param call Why.
    @return How many nodes have not voted yet.
    """
    progress: progresses.Progress = progresses._unpack(course.progress)
    assert course.decided_ballot != 0, "rounds: no decision to check"
    assert progress.call == progresses.CALL_NONE, "rounds: checked already"
    assert block.number <= progress.deadline, "rounds: appeal window closed"
    decided: packed_ballots.Ballot = packed_ballots._unpack(course.decided_ballot)
    counted: IBallots.Counted = staticcall attempts.BALLOTS.marks(job, course.decided_ballot)
    missing: uint256 = decided.cones - bitmap._count(counted.opened)
    assert missing > 0, "rounds: everybody has voted"

    progress.call = call
    called: IRounds.Course = course
    called.progress = progresses._pack(progress)
    called.resumed_ballot = staticcall attempts.BALLOTS.current(job)
    called.slashes = slashes._postpone(course.slashes, slashes.NEVER)
    attempts._store(job, called)
    attempts._open_whole_pool(
        job, terms, decided, progress.deadline, call == progresses.CALL_AUDIT
    )
    return missing


@internal
def _resolve(job: uint256, call: uint256, is_overturned: bool, voters: uint256):
    """
    @notice Tell the appeals what became of one.
    @param job Number of the job.
    @param call Why the pool was called.
    @param is_overturned Whether the decision changed.
    @param voters Bitmap of those who voted because of the appeal.
    """
    if call != progresses.CALL_APPEAL:
        return
    members: address = training._members(job)
    extcall APPEALS.resolve(job, is_overturned, roster._cone_accounts(members, voters))


@internal
@view
def _is_served(job: uint256, cones: uint256, part: uint256) -> bool:
    """
    @notice Whether more than half of the pool holds a part of the validation data.
    @param job Number of the job.
    @param cones Nodes in the pool.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    @return True with enough receipts.
    """
    return 2 * bitmap._count(staticcall STATEMENTS.receipts(job, part)) > cones


@internal
def _ends_unserved(
    job: uint256, course: IRounds.Course, counted: training.Counted
) -> bool:
    """
    @notice End a job at its target if the buyer did not serve the final validation data.
    @param job Number of the job.
    @param course Course of the job.
    @param counted Ballot whose windows are over.
    @return True if the job was ended.
    """
    if counted.ballot.kind != attempts.KIND_FINAL or self._is_served(
        job, counted.ballot.cones, attempts.PART_FINAL
    ):
        return False
    ended: IRounds.Course = training._leave_undecided(job, course, counted)
    progress: progresses.Progress = progresses._unpack(ended.progress)
    training._end(job, ended, progress, progresses.OUTCOME_TARGET, 0)
    return True
