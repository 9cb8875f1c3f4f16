#pragma version 0.4.3
"""
@title Commitments and openings of votes
@license Apache-2.0
@notice Batches of signed commitments, then batches of openings (MECHANISM 9.2). What does not
        hold is skipped, so that no entry of a stranger can stop a batch.
"""

from interfaces import IRounds
from modules import ballot as ballots
from modules import commitments
from modules import execution_set
from modules import header as block_header
from modules import limits
from modules import pool
from modules import terms as job_terms
from modules import typed_data

uses: pool

# (1000 rounds + 200 finals) * 6 attempts fit; one chain element per ballot.
MAX_BALLOTS: constant(uint256) = 8192


struct Draw:
    es_seed: bytes32
    first_ticket: uint256
    last_ticket: uint256


marks_of: HashMap[uint256, uint256]
batch_hash: HashMap[uint256, HashMap[uint256, bytes32]]
es_seed: HashMap[uint256, bytes32]
voters: HashMap[bytes32, uint256]


@internal
@pure
def _check_recorded(count: uint256):
    """
    @notice Revert if a batch was in vain, so that its sender can see that before it pays.
    @param count Entries that held.
    """
    assert count > 0, "rounds: nothing recorded"


@internal
@view
def _marks(job: uint256, ballot: ballots.Ballot) -> ballots.Marks:
    """
    @notice Who committed and who opened in a ballot.
    @param job Number of the job.
    @param ballot Its current ballot.
    @return The marks.
    """
    return ballots._unpack_marks(self.marks_of[job], ballot)


@internal
def _record_commits(
    market: address,
    job: uint256,
    ballot: ballots.Ballot,
    cone_count: uint256,
    barred: uint256,
    entries: DynArray[IRounds.CommitEntry, limits.MAX_CONES],
):
    """
    @notice Record the signed commitments that hold, and one hash over them.
    @param market Verifying contract of the signatures.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param cone_count Nodes in the pool.
    @param barred Bitmap of nodes that may not vote any more.
    @param entries Commitments with signatures.
    """
    marks: ballots.Marks = self._marks(job, ballot)
    separator: bytes32 = typed_data._domain_separator(market)
    recorded: DynArray[IRounds.RecordedCommit, limits.MAX_CONES] = []
    for entry: IRounds.CommitEntry in entries:
        if entry.cone_index >= cone_count:
            continue
        bit: uint256 = 1 << entry.cone_index
        if (marks.committed | barred) & bit != 0:
            continue
        digest: bytes32 = typed_data._vote(
            separator, job, ballot.round_index, ballot.mini, entry.commitment
        )
        signer: address = typed_data._signer(digest, entry.signature)
        if signer != pool.cones[job][entry.cone_index].account:
            continue
        marks.committed |= bit
        recorded.append(
            IRounds.RecordedCommit(cone_index=entry.cone_index, commitment=entry.commitment)
        )
    self._check_recorded(len(recorded))

    batch_index: uint256 = marks.batch_count
    marks.batch_count = batch_index + 1
    self.batch_hash[job][batch_index] = keccak256(abi_encode(recorded))
    self.marks_of[job] = ballots._pack_marks(marks)
    log IRounds.CommitsRecorded(
        job=job,
        ballot_number=ballot.number,
        mini=ballot.mini,
        batch_index=batch_index,
        entries=recorded,
    )


@internal
def _record_openings(
    market: address,
    job: uint256,
    ballot: ballots.Ballot,
    draw: Draw,
    batch_index: uint256,
    batch: DynArray[IRounds.RecordedCommit, limits.MAX_CONES],
    openings: DynArray[IRounds.Opening, limits.MAX_CONES],
):
    """
    @notice Record the openings that hold.
    @param market Market of the job.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param draw Which tickets may vote.
    @param batch_index Batch of commitments that is opened.
    @param batch Its entries, as recorded.
    @param openings Openings of some of them.
    """
    marks: ballots.Marks = self._marks(job, ballot)
    assert batch_index < marks.batch_count, "rounds: no such batch"
    batch_hash: bytes32 = keccak256(abi_encode(batch))
    assert batch_hash == self.batch_hash[job][batch_index], "rounds: not this batch"

    recorded: DynArray[IRounds.RecordedOpening, limits.MAX_CONES] = []
    for opening: IRounds.Opening in openings:
        if opening.position >= len(batch):
            continue
        entry: IRounds.RecordedCommit = batch[opening.position]
        bit: uint256 = 1 << entry.cone_index
        if marks.opened & bit != 0:
            continue
        if not self._holds(market, job, ballot, draw, entry, opening):
            continue
        marks.opened |= bit
        group: bytes32 = self._group(
            job, ballot.number, ballots._m(ballot.mini), opening.digest, opening.trace
        )
        self.voters[group] |= bit
        recorded.append(
            IRounds.RecordedOpening(
                cone_index=entry.cone_index, digest=opening.digest, trace=opening.trace
            )
        )
    self._check_recorded(len(recorded))

    marks.is_seeded = True
    self.marks_of[job] = ballots._pack_marks(marks)
    log IRounds.OpeningsRecorded(
        job=job, ballot_number=ballot.number, mini=ballot.mini, entries=recorded
    )


@internal
@view
def _holds(
    market: address,
    job: uint256,
    ballot: ballots.Ballot,
    draw: Draw,
    entry: IRounds.RecordedCommit,
    opening: IRounds.Opening,
) -> bool:
    """
    @notice Whether an opening is of its commitment, by a node drawn for this mini-round.
    @param market Market of the job.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param draw Which tickets may vote.
    @param entry Recorded commitment.
    @param opening Its opening.
    @return True if the vote counts.
    """
    account: address = pool.cones[job][entry.cone_index].account
    opened: bytes32 = commitments._vote(
        market,
        job,
        ballot.round_index,
        ballot.mini,
        account,
        opening.digest,
        opening.trace,
        opening.salt,
    )
    if opened != entry.commitment:
        return False
    ticket: uint256 = commitments._ticket(account, opening.element, draw.es_seed)
    if ticket < draw.first_ticket or ticket > draw.last_ticket:
        return False
    link: bytes32 = opening.element
    for _: uint256 in range(ballot.number, bound=MAX_BALLOTS):
        link = keccak256(link)
    return link == pool.cones[job][entry.cone_index].ticket_root


@internal
def _draw(
    market: address,
    job: uint256,
    ballot: ballots.Ballot,
    terms: job_terms.JobTerms,
    cone_count: uint256,
    seed_delay_blocks: uint256,
    header: Bytes[1024],
) -> Draw:
    """
    @notice Which tickets vote in the current mini-round; captures the attempt's seed once.
    @param market Market of the job.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param terms Terms of the job.
    @param cone_count Nodes in the pool.
    @param seed_delay_blocks Distance of a seed block from the deadline before it.
    @param header RLP header of the seed block; not looked at if the seed is known.
    @return Seed, and the smallest and largest ticket that may vote.
    """
    if not self._marks(job, ballot).is_seeded:
        seed_block: uint256 = ballot.availability_end + seed_delay_blocks
        randomness: bytes32 = block_header._randomness(seed_block, header)
        self.es_seed[job] = commitments._es_seed(
            market, job, ballot.round_index, ballots._first_mini(ballot.mini), randomness
        )
        log IRounds.SeedCaptured(
            job=job,
            ballot_number=ballot.number,
            seed_block=seed_block,
            randomness=randomness,
            es_seed=self.es_seed[job],
        )

    m: uint256 = ballots._m(ballot.mini)
    first_ticket: uint256 = 0
    if m > 0:
        before: uint256 = execution_set._size(terms, cone_count, m - 1)
        first_ticket = execution_set._last_ticket(before, cone_count) + 1
    size: uint256 = execution_set._size(terms, cone_count, m)
    return Draw(
        es_seed=self.es_seed[job],
        first_ticket=first_ticket,
        last_ticket=execution_set._last_ticket(size, cone_count),
    )


@internal
@view
def _group_voters(
    job: uint256, ballot_number: uint256, groups: DynArray[IRounds.VoteGroup, limits.MAX_CONES]
) -> DynArray[uint256, limits.MAX_CONES]:
    """
    @notice Who voted for each of some groups.
    @param job Number of the job.
    @param ballot_number Ballot of the job.
    @param groups Mini-round, digest and trace of each group.
    @return Bitmaps, in the order of the groups.
    """
    bitmaps: DynArray[uint256, limits.MAX_CONES] = []
    for group: IRounds.VoteGroup in groups:
        key: bytes32 = self._group(job, ballot_number, group.m, group.digest, group.trace)
        bitmaps.append(self.voters[key])
    return bitmaps


@internal
@pure
def _group(
    job: uint256, ballot_number: uint256, m: uint256, digest: bytes32, trace: bytes32
) -> bytes32:
    """
    @notice Key of equal votes.
    @param job Number of the job.
    @param ballot_number Ballot of the job.
    @param m Mini-round.
    @param digest What was computed.
    @param trace Evidence that it was computed.
    @return The key.
    """
    return keccak256(abi_encode(job, ballot_number, m, digest, trace))
