#pragma version 0.4.3
#pragma nonreentrancy on
#pragma optimize codesize
"""
@title Rounds
@license Apache-2.0
@notice Trains jobs: each round, and each final evaluation, is decided by votes of the job's pool.
@dev An attempt to decide something is a ballot; ballots of a job are numbered from 1. The
     contract computes nothing of the learning: it compares digests and reads what they commit to.
"""

from interfaces import IRounds
from modules import attempts
from modules import ballot as ballots
from modules import execution_set
from modules import limits
from modules import params as deployment
from modules import pool
from modules import progress as progresses
from modules import slashes
from modules import tally as tallies
from modules import terms as job_terms
from modules import training
from modules import typed_data
from modules import votes

initializes: pool
initializes: slashes[pool := pool]
initializes: votes[pool := pool]
initializes: attempts
initializes: training[
    attempts := attempts, pool := pool, slashes := slashes, votes := votes
]

implements: IRounds


@deploy
def __init__(params: deployment.Params, market: address, stake_pool: address):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, whose address is in everything that is signed or hashed.
    @param stake_pool Where CONE nodes have their stake.
    """
    attempts.__init__(params)
    training.__init__(params, market, stake_pool)


@external
def register_cone(job: uint256, node: address, ticket_root: bytes32) -> uint256:
    """
    @notice Add a node to a job's pool.
    @param job Job in enrolment.
    @param node CONE node.
    @param ticket_root End of the node's ticket chain.
    @return Index of the node in the pool.
    """
    self._check_market()
    return pool._add(job, node, ticket_root)


@external
def open_job(job: uint256, terms_hash: bytes32, validation_end: uint256):
    """
    @notice Freeze the pool and wait for receipts of the validation data.
    @param job Job whose enrolment was closed.
    @param terms_hash Hash of its terms.
    @param validation_end Last block for receipts.
    """
    self._check_market()
    progress: progresses.Progress = empty(progresses.Progress)
    progress.cones = pool.count[job]
    progress.deadline = validation_end
    progress.phase = progresses.PHASE_VALIDATION
    attempts.terms_hash[job] = terms_hash
    attempts.progress_word[job] = progresses._pack(progress)


@external
def submit_receipts(
    job: uint256, part: uint256, entries: DynArray[IRounds.ReceiptEntry, limits.MAX_CONES]
):
    """
    @notice Record which nodes hold validation data. What does not hold is skipped.
    @param job Number of the job.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    @param entries Node indices with signatures of `ValidationReceipt`.
    """
    progress: progresses.Progress = progresses._unpack(attempts.progress_word[job])
    attempts._check_receipts_open(job, progress, part)
    message: bytes32 = typed_data._receipt(typed_data._domain_separator(training.MARKET), job, part)
    before: uint256 = attempts.receipt_bits[job][part]
    bits: uint256 = before
    for entry: IRounds.ReceiptEntry in entries:
        if entry.cone_index >= progress.cones or (bits >> entry.cone_index) & 1 == 1:
            continue
        signer: address = typed_data._signer(message, entry.signature)
        if signer == pool.cones[job][entry.cone_index].account:
            bits |= 1 << entry.cone_index
    votes._check_recorded(bits - before)  # bits are only ever added

    attempts.receipt_bits[job][part] = bits
    log IRounds.ReceiptsRecorded(job=job, part=part, bitmap=bits)


@external
def start_training(job: uint256, terms: job_terms.JobTerms):
    """
    @notice Open the first round, or end the job if the buyer did not serve its validation data.
            Anyone may call.
    @param job Job whose validation window is over.
    @param terms Terms of the job.
    """
    progress: progresses.Progress = attempts._load(job, terms)
    assert progress.phase == progresses.PHASE_VALIDATION, "rounds: not in validation"
    assert block.number > progress.deadline, "rounds: validation still open"

    if attempts._is_served(job, progress, 0):
        progress.phase = progresses.PHASE_TRAINING
        attempts._open_round(job, terms, progress, 0, progress.deadline)
    else:
        training._end(job, progress, progresses.OUTCOME_UNSERVED, 0)


@external
def log_bitmaps(job: uint256, entries: DynArray[IRounds.BitmapEntry, limits.MAX_CONES]):
    """
    @notice Put signed statements of who holds which updates on record.
    @dev Not verified here: readers take the first valid one of each node.
    @param job Job in training.
    @param entries Node indices, bitmaps of sellers, and signatures.
    """
    ballot: ballots.Ballot = attempts._current(job)
    assert block.number <= ballot.availability_end, "rounds: availability closed"
    log IRounds.BitmapsLogged(job=job, ballot_number=ballot.number, entries=entries)


@external
def submit_commits(job: uint256, entries: DynArray[IRounds.CommitEntry, limits.MAX_CONES]):
    """
    @notice Record signed commitments of votes. What does not hold is skipped.
    @param job Job in training.
    @param entries Node indices, commitments, and signatures of `Vote`.
    """
    ballot: ballots.Ballot = attempts._current(job)
    assert block.number > ballot.seed_block, "rounds: commits not open"
    assert block.number <= ballot.commit_end, "rounds: commits closed"
    progress: progresses.Progress = progresses._unpack(attempts.progress_word[job])
    votes._record_commits(training.MARKET, job, ballot, progress.cones, progress.barred, entries)


@external
def submit_openings(
    job: uint256,
    terms: job_terms.JobTerms,
    batch_index: uint256,
    batch: DynArray[IRounds.RecordedCommit, limits.MAX_CONES],
    openings: DynArray[IRounds.Opening, limits.MAX_CONES],
    header: Bytes[1024],
):
    """
    @notice Open recorded commitments. What does not hold is skipped.
    @dev No signature: the salt opens a commitment that was signed.
    @param job Job in training.
    @param terms Terms of the job.
    @param batch_index Batch of commitments, counted from 0 in each mini-round.
    @param batch Its entries, as recorded.
    @param openings Openings of some of them.
    @param header RLP header of the attempt's first seed block; empty once the seed is captured.
    """
    progress: progresses.Progress = attempts._load(job, terms)
    ballot: ballots.Ballot = attempts._current(job)
    assert block.number > ballot.commit_end, "rounds: openings not open"
    assert block.number <= ballot.open_end, "rounds: openings closed"
    draw: votes.Draw = votes._draw(
        training.MARKET, job, ballot, terms, progress.cones, attempts.SEED_DELAY_BLOCKS, header
    )
    votes._record_openings(training.MARKET, job, ballot, draw, batch_index, batch, openings)


@external
def tally(
    job: uint256,
    terms: job_terms.JobTerms,
    groups: DynArray[IRounds.VoteGroup, limits.MAX_CONES],
    header: Bytes[4096],
):
    """
    @notice Count the votes of the current ballot and go on: decided, a larger execution set, a new
            attempt, or a void round. Anyone may call.
    @param job Job in training.
    @param terms Terms of the job.
    @param groups All groups of equal votes, strictly ascending by mini-round, digest and trace.
    @param header Bytes behind the decided digest; not looked at if none is decided.
    """
    progress: progresses.Progress = attempts._load(job, terms)
    ballot: ballots.Ballot = attempts._current(job)
    assert block.number > ballot.open_end, "rounds: openings still open"
    assert block.number <= ballot.open_end + terms.header_blocks, "rounds: header deadline passed"
    progress.barred |= slashes._execute(training.STAKE_POOL, job)
    if training._ends_unserved(job, terms, progress, ballot):
        return

    count: tallies.Count = tallies._count(
        groups, votes._group_voters(job, ballot.number, groups)
    )
    assert count.opened == votes._marks(job, ballot).opened, "rounds: votes missing"
    if tallies._is_decided(count, terms.lead, progress.cones):
        assert keccak256(header) == count.digest, "rounds: header does not open the digest"
        if ballots._kind(ballot.mini) == attempts.KIND_ROUND:
            training._decide_round(job, terms, progress, ballot, count, header)
        else:
            training._decide_final(job, terms, progress, ballot, count, header)
        return

    size: uint256 = execution_set._size(terms, progress.cones, ballots._m(ballot.mini))
    if size < progress.cones and not tallies._is_hopeless(count, terms.lead, progress.cones):
        attempts._open_mini_round(job, terms, progress, ballot)
    else:
        training._fail_attempt(job, terms, progress, ballot)


@external
def expire(job: uint256, terms: job_terms.JobTerms):
    """
    @notice Void a ballot that nobody counted, or whose header nobody brought. Anyone may call.
    @param job Job in training.
    @param terms Terms of the job.
    """
    progress: progresses.Progress = attempts._load(job, terms)
    ballot: ballots.Ballot = attempts._current(job)
    deadline: uint256 = ballot.open_end + terms.header_blocks
    assert block.number > deadline, "rounds: header deadline not passed"
    progress.barred |= slashes._execute(training.STAKE_POOL, job)
    if training._ends_unserved(job, terms, progress, ballot):
        return
    progress.barred |= training._slash_unopened(job, ballot)
    training._give_up(job, terms, progress, ballot, deadline)


@external
def execute_slashes(job: uint256):
    """
    @notice Slash whoever is due. Anyone may call; nothing happens before the appeal window ends.
    @param job Number of the job.
    """
    barred: uint256 = slashes._execute(training.STAKE_POOL, job)
    if barred != 0:
        attempts.progress_word[job] |= barred  # the lowest field


@external
@view
def cone_count(job: uint256) -> uint256:
    """
    @notice Number of nodes in a job's pool.
    @param job Number of the job.
    @return The count.
    """
    return pool.count[job]


@external
@view
def cone_at(job: uint256, index: uint256) -> pool.Cone:
    """
    @notice A node of a job's pool.
    @param job Number of the job.
    @param index Position in the pool.
    @return Account and end of the ticket chain.
    """
    return pool.cones[job][index]


@external
@view
def ballot(job: uint256) -> IRounds.BallotView:
    """
    @notice The current ballot of a job, or its last one.
    @param job Number of the job.
    @return Deadlines and marks; zero before training.
    """
    current: ballots.Ballot = ballots._unpack(attempts.ballot_word[job])
    marks: ballots.Marks = votes._marks(job, current)
    es_seed: bytes32 = empty(bytes32)
    if marks.is_seeded:
        es_seed = votes.es_seed[job]
    return IRounds.BallotView(
        ballot_number=current.number,
        round_index=current.round_index,
        kind=ballots._kind(current.mini),
        attempt=ballots._attempt(current.mini),
        m=ballots._m(current.mini),
        availability_end=current.availability_end,
        seed_block=current.seed_block,
        commit_end=current.commit_end,
        open_end=current.open_end,
        batch_count=marks.batch_count,
        committed=marks.committed,
        opened=marks.opened,
        es_seed=es_seed,
    )


@external
@view
def receipts(job: uint256, part: uint256) -> uint256:
    """
    @notice Which nodes hold validation data.
    @param job Number of the job.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    @return Bitmap of nodes.
    """
    return attempts.receipt_bits[job][part]


@external
@view
def outcome(job: uint256) -> uint256:
    """
    @notice How a job's training ended.
    @param job Number of the job.
    @return 0 while it has not; 1 target, 2 ended, 3 aborted, 4 unserved.
    """
    return progresses._unpack(attempts.progress_word[job]).outcome


@external
@view
def decided_digest(job: uint256, round_index: uint256) -> bytes32:
    """
    @notice Digest of a decided round, while it is the last one; older ones are in the events.
    @param job Number of the job.
    @param round_index Round.
    @return The digest; zero if the round is not the last decided one.
    """
    if progresses._unpack(attempts.progress_word[job]).last_round != round_index + 1:
        return empty(bytes32)
    return training.last_digest[job]


@external
@view
def training_result(job: uint256) -> IRounds.TrainingResult:
    """
    @notice What a settlement needs to know of a job whose training ended.
    @param job Number of the job.
    @return Outcome, rounds, utilities and credits; outcome 0 while the job is not over.
    """
    progress: progresses.Progress = progresses._unpack(attempts.progress_word[job])
    return training._result(job, progress)


@external
@view
def cone_accounts(job: uint256) -> DynArray[address, limits.MAX_CONES]:
    """
    @notice Accounts of a job's pool.
    @param job Number of the job.
    @return Accounts, by index.
    """
    return pool._accounts(job, max_value(uint256))


@external
@view
def participation(job: uint256) -> DynArray[uint256, limits.MAX_CONES]:
    """
    @notice In how many decided ballots each node revealed the accepted digest with the majority
            trace.
    @param job Number of the job.
    @return Counts, by index.
    """
    return pool._participation(job)


@internal
@view
def _check_market():
    """
    @notice Revert unless the market calls.
    """
    assert msg.sender == training.MARKET, "rounds: only the market"
