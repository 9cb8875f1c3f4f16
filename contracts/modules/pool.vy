#pragma version 0.4.3
"""
@title Pools of CONE nodes
@license Apache-2.0
@notice Where each job's nodes are found, and which of them may not vote any more.
"""


struct Pool:
    roster: address
    cones: uint256
    barred: uint256  # nodes whose stake cannot pay another slash


# Roster, number of nodes and barred nodes: 160, 8 and 64 bits.
words: HashMap[uint256, uint256]


@internal
def _open(job: uint256, members: address, cones: uint256):
    """
    @notice Fix the pool of a job.
    @param job Number of the job.
    @param members Roster of its nodes.
    @param cones How many there are.
    """
    self.words[job] = convert(members, uint256) | (cones << 160)


@internal
@view
def _load(job: uint256) -> Pool:
    """
    @notice The pool of a job.
    @param job Number of the job.
    @return The pool; empty if the job has none.
    """
    word: uint256 = self.words[job]
    return Pool(
        roster=convert(convert(word & (2**160 - 1), uint160), address),
        cones=(word >> 160) & (2**8 - 1),
        barred=word >> 168,
    )


@internal
def _bar(job: uint256, barred: uint256):
    """
    @notice Note nodes that may not vote any more.
    @param job Number of the job.
    @param barred Bitmap of the nodes.
    """
    self.words[job] |= barred << 168
