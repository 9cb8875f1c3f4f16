#pragma version 0.4.3
"""
@title Commitments and openings of votes
@license Apache-2.0
@notice Batches of signed commitments, then batches of openings (MECHANISM 9.2). A commitment that
        does not hold is skipped, so that no entry of a stranger can stop a batch.
"""

from interfaces import IBallots
from modules import ballot as ballots
from modules import bitmap
from modules import commitments as hashes
from modules import execution_set
from modules import header as block_header
from modules import limits
from modules import pool as pools
from modules import refunds
from modules import roster
from modules import typed_data

# (1000 rounds + 200 finals) * 6 attempts fit; one chain element per ballot.
MAX_BALLOTS: constant(uint256) = 8192
STEPS_AT_ONCE: constant(uint256) = 8
# A group's key shares a word with its voters: 192 bits are more than anybody can collide with.
KEY_AT: constant(uint256) = 64
MASK_64: constant(uint256) = 2**64 - 1


struct Draw:
    es_seed: bytes32
    first_ticket: uint256
    last_ticket: uint256


# The words below are those of a job's current ballot.
marks_of: HashMap[uint256, uint256]
batch_hash: HashMap[uint256, HashMap[uint256, bytes32]]
groups_of: HashMap[uint256, HashMap[uint256, uint256]]


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
    pool: pools.Pool,
    sender_index: uint256,
    members: uint256,
    entries: DynArray[IBallots.CommitEntry, limits.MAX_CONES],
):
    """
    @notice Record the signed commitments that hold, and one hash over them.
    @param market Verifying contract of the signatures.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param pool Its pool.
    @param sender_index Index of the sender in the pool, for its refund.
    @param members Bitmap of the nodes that the entries are of.
    @param entries Commitments with signatures, by index of their nodes.
    """
    assert len(entries) == bitmap._count(members), "ballots: not one entry per node"
    marks: ballots.Marks = self._marks(job, ballot)
    separator: bytes32 = typed_data._domain_separator(market)
    mini: uint256 = ballots._mini(ballot)
    records: Bytes[roster.MAX_CONES_SIZE] = roster._read_cones(pool.roster)
    taken: uint256 = marks.committed | pool.barred
    recorded: uint256 = 0
    commitments: DynArray[bytes32, limits.MAX_CONES] = []
    position: uint256 = 0
    for index: uint256 in range(pool.cones, bound=limits.MAX_CONES):
        if (members >> index) & 1 == 0:
            continue
        entry: IBallots.CommitEntry = entries[position]
        position += 1
        if (taken >> index) & 1 == 1:
            continue
        message: bytes32 = typed_data._vote(
            separator, job, ballot.round_index, mini, entry.commitment
        )
        signer: address = typed_data._signer_compact(message, entry.r, entry.vs)
        # Read here: an argument of this size would be copied for each node.
        record: bytes32 = extract32(records, index * roster.CONE_SIZE)
        if convert(signer, uint256) != convert(record, uint256) >> roster.ACCOUNT_AT:
            continue
        recorded |= 1 << index
        commitments.append(entry.commitment)
    assert recorded != 0, "ballots: nothing recorded"

    batch_index: uint256 = marks.batch_count
    marks.batch_count = batch_index + 1
    marks.committed |= recorded
    marks.refunds = self._refund(marks.refunds, pool, sender_index, len(commitments))
    self.batch_hash[job][batch_index] = keccak256(abi_encode(recorded, commitments))
    self.marks_of[job] = ballots._pack_marks(marks)
    log IBallots.CommitsRecorded(
        job=job,
        ballot_number=ballot.number,
        mini=mini,
        batch_index=batch_index,
        members=recorded,
        commitments=commitments,
    )


@internal
def _record_openings(
    market: address,
    job: uint256,
    ballot: ballots.Ballot,
    pool: pools.Pool,
    draw: Draw,
    sender_index: uint256,
    batch_index: uint256,
    members: uint256,
    batch: DynArray[IBallots.BatchEntry, limits.MAX_CONES],
    votes: DynArray[IBallots.Vote, limits.MAX_CONES],
):
    """
    @notice Record the openings of a batch. A vote without a ticket is skipped.
    @dev No signature: the element opens a commitment that was signed. What opens another
         commitment changes the hash of the batch, and the call reverts.
    @param market Market of the job.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param pool Its pool.
    @param draw Which tickets may vote.
    @param sender_index Index of the sender in the pool, for its refund.
    @param batch_index Batch of commitments that is opened.
    @param members Bitmap of the nodes of the batch.
    @param batch Its entries, opened or as recorded, by index of their nodes.
    @param votes What the opened entries voted for.
    """
    assert len(batch) == bitmap._count(members), "ballots: not one entry per node"
    marks: ballots.Marks = self._marks(job, ballot)
    assert batch_index < marks.batch_count, "ballots: no such batch"
    opened_before: uint256 = marks.opened
    records: Bytes[roster.MAX_CONES_SIZE] = roster._read_cones(pool.roster)
    place: Bytes[172] = hashes._vote_place(
        market, job, ballot.round_index, ballots._mini(ballot)
    )
    commitments: DynArray[bytes32, limits.MAX_CONES] = []
    voters: uint256[limits.MAX_CONES] = empty(uint256[limits.MAX_CONES])
    position: uint256 = 0
    for index: uint256 in range(pool.cones, bound=limits.MAX_CONES):
        if (members >> index) & 1 == 0:
            continue
        entry: IBallots.BatchEntry = batch[position]
        position += 1
        if entry.vote >= len(votes):
            commitments.append(entry.secret)
            continue
        record: bytes32 = extract32(records, index * roster.CONE_SIZE)
        voter: uint256 = convert(record, uint256) >> roster.ACCOUNT_AT
        vote: IBallots.Vote = votes[entry.vote]
        commitments.append(
            hashes._vote_at(place, voter, vote.digest, vote.trace, entry.secret)
        )
        bit: uint256 = 1 << index
        root: bytes32 = extract32(records, index * roster.CONE_SIZE + roster.ROOT_AT)
        if marks.opened & bit == 0 and self._may_vote(
            draw, ballot.number, voter, root, entry.secret
        ):
            marks.opened |= bit
            voters[entry.vote] |= bit
    assert (
        keccak256(abi_encode(members, commitments)) == self.batch_hash[job][batch_index]
    ), "ballots: not this batch"
    assert marks.opened != opened_before, "ballots: nothing recorded"

    groups: DynArray[IBallots.RecordedGroup, limits.MAX_CONES] = []
    for kind: uint256 in range(len(votes), bound=limits.MAX_CONES):
        if voters[kind] == 0:
            continue
        vote: IBallots.Vote = votes[kind]
        marks.group_count = self._add_voters(job, ballot, vote, voters[kind], marks.group_count)
        groups.append(
            IBallots.RecordedGroup(digest=vote.digest, trace=vote.trace, voters=voters[kind])
        )
    recorded_count: uint256 = bitmap._count(marks.opened ^ opened_before)
    marks.refunds = self._refund(marks.refunds, pool, sender_index, recorded_count)
    self.marks_of[job] = ballots._pack_marks(marks)
    log IBallots.OpeningsRecorded(
        job=job, ballot_number=ballot.number, mini=ballots._mini(ballot), groups=groups
    )


@internal
@view
def _may_vote(
    draw: Draw, ballot_number: uint256, voter: uint256, root: bytes32, element: bytes32
) -> bool:
    """
    @notice Whether a node is drawn for this mini-round, by the chain element of this ballot.
    @param draw Which tickets may vote.
    @param ballot_number Number of the ballot: steps from the element to the end of its chain.
    @param voter Account of the CONE node, as a number.
    @param root End of its ticket chain.
    @param element The chain element that it shows.
    @return True if the vote counts.
    """
    ticket: uint256 = hashes._ticket(voter, element, draw.es_seed)
    if ticket < draw.first_ticket or ticket > draw.last_ticket:
        return False
    link: bytes32 = element
    for _: uint256 in range(ballot_number // STEPS_AT_ONCE, bound=MAX_BALLOTS):
        link = keccak256(keccak256(keccak256(keccak256(link))))
        link = keccak256(keccak256(keccak256(keccak256(link))))
    for _: uint256 in range(ballot_number % STEPS_AT_ONCE, bound=STEPS_AT_ONCE):
        link = keccak256(link)
    return link == root


@internal
def _add_voters(
    job: uint256,
    ballot: ballots.Ballot,
    vote: IBallots.Vote,
    voters: uint256,
    group_count: uint256,
) -> uint256:
    """
    @notice Add voters to the group of their vote.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param vote What they voted for.
    @param voters Bitmap of the voters.
    @param group_count Groups of the ballot so far.
    @return Groups of the ballot now.
    """
    key: uint256 = self._group_key(ballot.number, ballot.m, vote.digest, vote.trace)
    for slot: uint256 in range(group_count, bound=limits.MAX_CONES):
        word: uint256 = self.groups_of[job][slot]
        if word >> KEY_AT == key:
            self.groups_of[job][slot] = word | voters
            return group_count
    self.groups_of[job][group_count] = (key << KEY_AT) | voters
    return group_count + 1


@internal
@view
def _group_voters(
    job: uint256,
    ballot: ballots.Ballot,
    group_count: uint256,
    groups: DynArray[IBallots.VoteGroup, limits.MAX_CONES],
) -> DynArray[uint256, limits.MAX_CONES]:
    """
    @notice Who voted for each of some groups.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param group_count Groups of the ballot.
    @param groups Mini-round, digest and trace of each group.
    @return Bitmaps, in the order of the groups; empty for a group that there is not.
    """
    words: DynArray[uint256, limits.MAX_CONES] = []
    for slot: uint256 in range(group_count, bound=limits.MAX_CONES):
        words.append(self.groups_of[job][slot])
    bitmaps: DynArray[uint256, limits.MAX_CONES] = []
    for group: IBallots.VoteGroup in groups:
        key: uint256 = self._group_key(ballot.number, group.m, group.digest, group.trace)
        voters: uint256 = 0
        for word: uint256 in words:
            if word >> KEY_AT == key:
                voters = word & MASK_64
        bitmaps.append(voters)
    return bitmaps


@internal
@pure
def _group_key(ballot_number: uint256, m: uint256, digest: bytes32, trace: bytes32) -> uint256:
    """
    @notice Key of equal votes.
    @param ballot_number Ballot of the job.
    @param m Mini-round.
    @param digest What was computed.
    @param trace Evidence that it was computed.
    @return 192 bits of a hash.
    """
    return convert(keccak256(abi_encode(ballot_number, m, digest, trace)), uint256) >> KEY_AT


@internal
@view
def _refund(noted: uint256, pool: pools.Pool, sender_index: uint256, entries: uint256) -> uint256:
    """
    @notice Note a refund for the sender of a batch, if it is of the pool.
    @param noted Refunds of the ballot so far.
    @param pool Pool of the job.
    @param sender_index Index that the sender claims; a stranger gives any other number.
    @param entries Entries that the batch recorded.
    @return Refunds of the ballot now.
    """
    if sender_index >= pool.cones:
        return noted
    if roster._cone_account(pool.roster, sender_index) != msg.sender:
        return noted
    return refunds._note(noted, sender_index, entries)


@internal
@view
def _draw(
    market: address,
    job: uint256,
    ballot: ballots.Ballot,
    seed_delay_blocks: uint256,
    header: Bytes[1024],
) -> Draw:
    """
    @notice Which tickets vote in the current mini-round.
    @param market Market of the job.
    @param job Number of the job.
    @param ballot Its current ballot.
    @param seed_delay_blocks Distance of a seed block from the deadline before it.
    @param header RLP header of the attempt's first seed block.
    @return Seed, and the smallest and largest ticket that may vote.
    """
    randomness: bytes32 = block_header._randomness(
        ballot.availability_end + seed_delay_blocks, header
    )
    first_ticket: uint256 = 0
    if ballot.size_before > 0:
        first_ticket = execution_set._last_ticket(ballot.size_before, ballot.cones) + 1
    return Draw(
        es_seed=hashes._es_seed(
            market, job, ballot.round_index, ballots._first_mini(ballot), randomness
        ),
        first_ticket=first_ticket,
        last_ticket=execution_set._last_ticket(ballot.size, ballot.cones),
    )
