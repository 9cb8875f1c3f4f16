#pragma version 0.4.3
"""
@title Packing harness
@license Apache-2.0
@notice Opens to tests what the words of ballots and courses hold, and who may vote. Never
        deployed to a chain.
"""

from interfaces import IRounds
from modules import ballot as ballots
from modules import limits
from modules import participation
from modules import progress as progresses
from modules import refunds
from modules import slashes
from modules import utilities as job_utilities
from modules import votes

initializes: votes


@external
@pure
def pack_ballot(ballot: ballots.Ballot) -> uint256:
    return ballots._pack(ballot)


@external
@pure
def unpack_ballot(word: uint256) -> ballots.Ballot:
    return ballots._unpack(word)


@external
@pure
def mini(ballot: ballots.Ballot) -> uint256:
    return ballots._mini(ballot)


@external
@pure
def first_mini(ballot: ballots.Ballot) -> uint256:
    return ballots._first_mini(ballot)


@external
@pure
def pack_marks(marks: ballots.Marks) -> uint256:
    return ballots._pack_marks(marks)


@external
@pure
def unpack_marks(word: uint256, ballot: ballots.Ballot) -> ballots.Marks:
    return ballots._unpack_marks(word, ballot)


@external
@pure
def pack_progress(progress: progresses.Progress) -> uint256:
    return progresses._pack(progress)


@external
@pure
def unpack_progress(word: uint256) -> progresses.Progress:
    return progresses._unpack(word)


@external
@pure
def pack_utilities(utilities: job_utilities.Utilities) -> uint256:
    return job_utilities._pack(utilities)


@external
@pure
def unpack_utilities(word: uint256) -> job_utilities.Utilities:
    return job_utilities._unpack(word)


@external
@pure
def plan_slashes(wrong: uint256, unopened: uint256, voters: uint256, due: uint256) -> uint256:
    return slashes._plan(wrong, unopened, voters, due)


@external
@pure
def postpone_slashes(plan: uint256, due: uint256) -> uint256:
    return slashes._postpone(plan, due)


@external
@view
def is_slash_due(plan: uint256) -> bool:
    return slashes._is_due(plan)


@external
@pure
def count_participation(counters: uint256[4], voters: uint256) -> uint256[4]:
    return participation._count(counters, voters)


@external
@pure
def list_participation(
    counters: uint256[4], cones: uint256
) -> DynArray[uint256, limits.MAX_CONES]:
    return participation._list(counters, cones)


@external
@view
def note_refund(noted: uint256, sender_index: uint256, entries: uint256) -> uint256:
    return refunds._note(noted, sender_index, entries)


@external
@pure
def collect_refunds(sums: uint256[8], noted: uint256) -> uint256[8]:
    return refunds._collect(sums, noted)


@external
@pure
def list_refunds(sums: uint256[8], cones: uint256) -> DynArray[uint256, limits.MAX_CONES]:
    return refunds._list(sums, cones)


@external
@pure
def hash_course(course: IRounds.Course) -> bytes32:
    return keccak256(abi_encode(course))


@external
@view
def may_vote(
    draw: votes.Draw, ballot_number: uint256, voter: address, root: bytes32, element: bytes32
) -> bool:
    return votes._may_vote(draw, ballot_number, convert(voter, uint256), root, element)
