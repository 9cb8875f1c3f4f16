#pragma version 0.4.3
"""
@title Counting votes
@license Apache-2.0
@notice The acceptance test of MECHANISM 8.4 over the groups of a ballot.
"""

from interfaces import IBallots
from modules import bitmap
from modules import limits


struct Count:
    digest: bytes32  # leading digest; on a tie the smaller number
    votes: uint256
    second: uint256
    no_data: uint256
    voters: uint256  # of the leading digest, with the largest trace group of each mini-round
    wrong: uint256  # opened another digest, and not "no data"
    opened: uint256  # everybody that the groups hold


struct Tables:
    digests: DynArray[bytes32, limits.MAX_CONES]
    votes: DynArray[uint256, limits.MAX_CONES]
    majorities: DynArray[uint256, limits.MAX_CONES]  # voters with the largest trace groups
    everybody: DynArray[uint256, limits.MAX_CONES]
    no_data: uint256  # nodes that lacked an update
    opened: uint256  # everybody


@internal
@pure
def _count(
    groups: DynArray[IBallots.VoteGroup, limits.MAX_CONES],
    bitmaps: DynArray[uint256, limits.MAX_CONES],
) -> Tables:
    """
    @notice Count the votes of a ballot by digest.
    @dev Groups ascend, so those of one digest in one mini-round stand together and the largest
         trace group is a running maximum.
    @param groups Mini-round, digest and trace of each group, strictly ascending.
    @param bitmaps Voters of each group.
    @return The counts.
    """
    tables: Tables = empty(Tables)
    best: uint256 = 0
    best_voters: uint256 = 0
    run: uint256 = 0
    for position: uint256 in range(len(groups), bound=limits.MAX_CONES):
        group: IBallots.VoteGroup = groups[position]
        if position > 0:
            assert self._is_before(groups[position - 1], group), "ballots: groups not ascending"
        members: uint256 = bitmaps[position]
        tables.opened |= members
        if group.trace == empty(bytes32):
            # No honest trace is zero: this says "I lack an update", whatever the digest.
            tables.no_data |= members
            continue
        if (
            best_voters == 0
            or group.m != groups[run].m
            or group.digest != groups[run].digest
        ):
            run = position
            best = 0
            best_voters = 0
        slot: uint256 = self._slot(tables.digests, group.digest)
        if slot == len(tables.digests):
            tables.digests.append(group.digest)
            tables.votes.append(0)
            tables.majorities.append(0)
            tables.everybody.append(0)
        tables.everybody[slot] |= members
        size: uint256 = bitmap._count(members)
        if size > best:
            tables.votes[slot] += size - best
            # Voters of the smaller group leave; it had no member of another mini-round.
            tables.majorities[slot] ^= best_voters
            best = size
            best_voters = 0
        if size == best:
            tables.majorities[slot] |= members
            best_voters |= members
    return tables


@internal
@pure
def _lead(tables: Tables) -> Count:
    """
    @notice Find the leading digest and the runner-up.
    @param tables Votes by digest.
    @return The count.
    """
    leader: uint256 = 0
    second: uint256 = 0
    if len(tables.digests) == 0:
        return self._of_slot(tables, 0)
    for slot: uint256 in range(1, len(tables.digests), bound=limits.MAX_CONES):
        votes: uint256 = tables.votes[slot]
        is_smaller: bool = convert(tables.digests[slot], uint256) < convert(
            tables.digests[leader], uint256
        )
        if votes > tables.votes[leader] or (votes == tables.votes[leader] and is_smaller):
            second = tables.votes[leader]
            leader = slot
        else:
            second = max(second, votes)
    count: Count = self._of_slot(tables, leader)
    count.second = second
    return count


@internal
@pure
def _of_digest(tables: Tables, digest: bytes32) -> Count:
    """
    @notice The votes of one digest; `second` is left out.
    @param tables Votes by digest.
    @param digest Digest to count for.
    @return The count.
    """
    return self._of_slot(tables, self._slot(tables.digests, digest))


@internal
@pure
def _of_slot(tables: Tables, slot: uint256) -> Count:
    """
    @notice The votes at one position of the tables; `second` is left out.
    @param tables Votes by digest.
    @param slot Position; beyond the last one nobody voted.
    @return The count.
    """
    count: Count = empty(Count)
    count.no_data = bitmap._count(tables.no_data)
    count.opened = tables.opened
    count.wrong = tables.opened & ~tables.no_data
    if slot < len(tables.digests):
        count.digest = tables.digests[slot]
        count.votes = tables.votes[slot]
        count.voters = tables.majorities[slot]
        count.wrong &= ~tables.everybody[slot]
    return count


@internal
@pure
def _is_decided(count: IBallots.Counted, lead: uint256, cone_count: uint256) -> bool:
    """
    @notice Whether the leading digest is accepted.
    @param count Votes of the ballot so far.
    @param lead Lead that the job's terms ask for.
    @param cone_count Nodes in the pool.
    @return True with the lead over runner-up and "no data" together, or with an absolute majority.
    """
    return (
        count.votes >= count.second + count.no_data + lead or 2 * count.votes > cone_count
    )


@internal
@pure
def _is_hopeless(count: IBallots.Counted, lead: uint256, cone_count: uint256) -> bool:
    """
    @notice Whether so many nodes lack an update that the attempt ends.
    @param count Votes of the ballot so far.
    @param lead Lead that the job's terms ask for.
    @param cone_count Nodes in the pool.
    @return True if "no data" has the lead, or an absolute majority.
    """
    return count.no_data >= count.votes + lead or 2 * count.no_data > cone_count


@internal
@pure
def _slot(digests: DynArray[bytes32, limits.MAX_CONES], digest: bytes32) -> uint256:
    """
    @notice Where a digest is counted.
    @param digests Digests seen so far.
    @param digest Digest to find.
    @return Its position; the length if it is new.
    """
    for slot: uint256 in range(len(digests), bound=limits.MAX_CONES):
        if digests[slot] == digest:
            return slot
    return len(digests)


@internal
@pure
def _is_before(left: IBallots.VoteGroup, right: IBallots.VoteGroup) -> bool:
    """
    @notice Strict order of groups: mini-round, then digest, then trace.
    @param left First group.
    @param right Second group.
    @return True if the first comes before the second.
    """
    if left.m != right.m:
        return left.m < right.m
    if left.digest != right.digest:
        return convert(left.digest, uint256) < convert(right.digest, uint256)
    return convert(left.trace, uint256) < convert(right.trace, uint256)
