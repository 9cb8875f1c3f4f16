#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Ballots
@license Apache-2.0
@notice Takes and counts the votes of the pools: signed commitments in batches, then their openings
        with private tickets. What a count leads to is up to Rounds, which opens the ballots.
@dev A job has one ballot at a time; its words are overwritten by the next one.
"""

from interfaces import IBallots
from modules import ballot as ballots
from modules import header as block_header
from modules import limits
from modules import params as deployment
from modules import pool as pools
from modules import tally as tallies
from modules import votes

initializes: pools
initializes: votes

implements: IBallots

KIND_FINAL: constant(uint256) = 1
PART_ROUNDS: constant(uint256) = 0
PART_FINAL: constant(uint256) = 1

MARKET: immutable(address)
ROUNDS: immutable(address)
SEED_DELAY_BLOCKS: immutable(uint256)

# The current ballot of each job; before training the end of its validation, as a ballot.
current: public(HashMap[uint256, uint256])


@deploy
def __init__(params: deployment.Params, market: address, rounds: address):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, whose address is in everything that is signed or hashed.
    @param rounds Who opens ballots.
    """
    MARKET = market
    ROUNDS = rounds
    SEED_DELAY_BLOCKS = params.seed_delay_blocks


@external
def open_pool(job: uint256, members: address, cones: uint256):
    """
    @notice Fix the pool of a job.
    @param job Job whose enrolment was closed.
    @param members Roster of its CONE nodes.
    @param cones How many there are.
    """
    self._check_rounds()
    pools._open(job, members, cones)


@external
def open_ballot(job: uint256, ballot_word: uint256):
    """
    @notice Replace the current ballot of a job.
    @param job Number of the job.
    @param ballot_word Packed ballot; zero once training has ended.
    """
    self._check_rounds()
    self.current[job] = ballot_word


@external
def bar(job: uint256, barred: uint256):
    """
    @notice Let some nodes vote no more.
    @param job Number of the job.
    @param barred Bitmap of nodes whose stake cannot pay another slash.
    """
    self._check_rounds()
    pools._bar(job, barred)


@external
def submit_commits(
    job: uint256,
    sender_index: uint256,
    members: uint256,
    entries: DynArray[IBallots.CommitEntry, limits.MAX_CONES],
):
    """
    @notice Record signed commitments of votes. What does not hold is skipped.
    @param job Job in training.
    @param sender_index The sender's index in the pool, for its refund.
    @param members Bitmap of the nodes that the entries are of.
    @param entries Commitments with signatures of `Vote`, by index of their nodes.
    """
    ballot: ballots.Ballot = self._open_ballot(job)
    assert block.number > ballot.seed_block, "ballots: commits not open"
    assert block.number <= ballot.commit_end, "ballots: commits closed"
    # Who commits must be able to open: the attempt's seed has to be proved as long as that takes.
    last_block: uint256 = (
        ballot.availability_end + SEED_DELAY_BLOCKS + block_header.HISTORY_REACH
    )
    assert ballot.open_end <= last_block, "ballots: seed out of reach"
    votes._record_commits(
        MARKET, job, ballot, pools._load(job), sender_index, members, entries
    )


@external
def submit_openings(
    job: uint256,
    sender_index: uint256,
    batch_index: uint256,
    members: uint256,
    batch: DynArray[IBallots.BatchEntry, limits.MAX_CONES],
    opened: DynArray[IBallots.Vote, limits.MAX_CONES],
    header: Bytes[1024],
):
    """
    @notice Open recorded commitments. Votes that were not drawn are skipped.
    @dev No signature: the element opens a commitment that was signed.
    @param job Job in training.
    @param sender_index The sender's index in the pool, for its refund.
    @param batch_index Batch of commitments, counted from 0 in each mini-round.
    @param members Bitmap of the nodes of the batch.
    @param batch Its entries, opened or as recorded, by index of their nodes.
    @param opened What the opened entries voted for.
    @param header RLP header of the attempt's first seed block.
    """
    ballot: ballots.Ballot = self._open_ballot(job)
    assert block.number > ballot.commit_end, "ballots: openings not open"
    assert block.number <= ballot.open_end, "ballots: openings closed"
    draw: votes.Draw = votes._draw(MARKET, job, ballot, SEED_DELAY_BLOCKS, header)
    votes._record_openings(
        MARKET,
        job,
        ballot,
        pools._load(job),
        draw,
        sender_index,
        batch_index,
        members,
        batch,
        opened,
    )


@external
@view
def count(
    job: uint256, groups: DynArray[IBallots.VoteGroup, limits.MAX_CONES], digest: bytes32
) -> IBallots.Counted:
    """
    @notice Count the votes of the current ballot so far.
    @param job Job in training.
    @param groups All groups of equal votes, strictly ascending by mini-round, digest and trace.
    @param digest A digest whose votes are wanted whether or not it leads.
    @return The ballot, its marks and its votes.
    """
    ballot_word: uint256 = self.current[job]
    ballot: ballots.Ballot = ballots._unpack(ballot_word)
    marks: ballots.Marks = votes._marks(job, ballot)
    voters: DynArray[uint256, limits.MAX_CONES] = votes._group_voters(
        job, ballot, marks.group_count, groups
    )
    tables: tallies.Tables = tallies._count(groups, voters)
    assert tables.opened == marks.opened, "ballots: votes missing"
    lead: tallies.Count = tallies._lead(tables)
    asked: tallies.Count = tallies._of_digest(tables, digest)
    newcomers: uint256 = 0
    for position: uint256 in range(len(groups), bound=limits.MAX_CONES):
        if groups[position].m == ballot.m:
            newcomers |= voters[position]
    return IBallots.Counted(
        ballot=ballot_word,
        committed=marks.committed,
        opened=marks.opened,
        refunds=marks.refunds,
        digest=lead.digest,
        votes=lead.votes,
        second=lead.second,
        no_data=lead.no_data,
        voters=lead.voters,
        wrong=lead.wrong,
        upheld_votes=asked.votes,
        upheld_voters=asked.voters,
        upheld_wrong=asked.wrong,
        newcomers=newcomers,
    )


@external
@view
def marks(job: uint256, ballot_word: uint256) -> IBallots.Counted:
    """
    @notice Who committed and who opened in a ballot, without a count.
    @param job Number of the job.
    @param ballot_word Packed ballot: the current one, or the one before it while that has no votes.
    @return The ballot and its marks; no votes.
    """
    found: ballots.Marks = votes._marks(job, ballots._unpack(ballot_word))
    counted: IBallots.Counted = empty(IBallots.Counted)
    counted.ballot = ballot_word
    counted.committed = found.committed
    counted.opened = found.opened
    counted.refunds = found.refunds
    return counted


@external
@view
def ballot(job: uint256) -> IBallots.BallotView:
    """
    @notice The current ballot of a job.
    @param job Number of the job.
    @return Deadlines and marks; number 0 before training and after it.
    """
    ballot: ballots.Ballot = ballots._unpack(self.current[job])
    marks: ballots.Marks = votes._marks(job, ballot)
    return IBallots.BallotView(
        ballot_number=ballot.number,
        round_index=ballot.round_index,
        kind=ballot.kind,
        attempt=ballot.attempt,
        m=ballot.m,
        is_pool_called=ballot.is_pool_called,
        availability_end=ballot.availability_end,
        seed_block=ballot.seed_block,
        commit_end=ballot.commit_end,
        open_end=ballot.open_end,
        batch_count=marks.batch_count,
        group_count=marks.group_count,
        committed=marks.committed,
        opened=marks.opened,
    )


@external
@view
def pool_of(job: uint256) -> (address, uint256, uint256):
    """
    @notice The pool of a job.
    @param job Number of the job.
    @return Roster of the nodes, how many there are, and a bitmap of those barred from voting.
    """
    pool: pools.Pool = pools._load(job)
    return pool.roster, pool.cones, pool.barred


@external
@view
def receipts_end(job: uint256, part: uint256) -> uint256:
    """
    @notice Until when receipts of a part of the validation data are taken.
    @param job Number of the job.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    @return The last block; 0 if they are not asked for now.
    """
    ballot: ballots.Ballot = ballots._unpack(self.current[job])
    is_asked: bool = False
    if part == PART_ROUNDS:
        is_asked = ballot.number == 0
    elif part == PART_FINAL:
        is_asked = ballot.number > 0 and ballot.kind == KIND_FINAL and not ballot.is_pool_called
    return ballot.availability_end if is_asked else 0


@internal
@view
def _open_ballot(job: uint256) -> ballots.Ballot:
    """
    @notice The ballot that takes votes.
    @param job Number of the job.
    @return The ballot; reverts before training and after its end.
    """
    ballot: ballots.Ballot = ballots._unpack(self.current[job])
    assert ballot.number > 0, "ballots: not in training"
    return ballot


@internal
@view
def _check_rounds():
    """
    @notice Revert unless Rounds calls.
    """
    assert msg.sender == ROUNDS, "ballots: only rounds"
