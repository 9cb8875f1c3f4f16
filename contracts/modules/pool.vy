#pragma version 0.4.3
"""
@title Pools of CONE nodes
@license Apache-2.0
@notice The nodes of each job, by order of enrolment, and how often each voted with the majority.
"""

from modules import limits

COUNTER_BITS: constant(uint256) = 16
COUNTERS_PER_WORD: constant(uint256) = 16
COUNTER_WORDS: constant(uint256) = 4  # MAX_CONES / COUNTERS_PER_WORD


struct Cone:
    account: address
    ticket_root: bytes32


cones: HashMap[uint256, HashMap[uint256, Cone]]
count: HashMap[uint256, uint256]
# Sixteen counters of 16 bits in a word: a decided ballot writes as few words as it can.
counters: HashMap[uint256, uint256[COUNTER_WORDS]]


@internal
def _add(job: uint256, account: address, ticket_root: bytes32) -> uint256:
    """
    @notice Give a node the next index of a job's pool.
    @param job Job in enrolment.
    @param account CONE node.
    @param ticket_root End of the node's ticket chain.
    @return Index of the node.
    """
    index: uint256 = self.count[job]
    self.cones[job][index] = Cone(account=account, ticket_root=ticket_root)
    self.count[job] = index + 1
    return index


@internal
@view
def _accounts(job: uint256, members: uint256) -> DynArray[address, limits.MAX_CONES]:
    """
    @notice Accounts of some nodes.
    @param job Number of the job.
    @param members Bitmap of the nodes.
    @return Their accounts, by index.
    """
    accounts: DynArray[address, limits.MAX_CONES] = []
    for index: uint256 in range(self.count[job], bound=limits.MAX_CONES):
        if (members >> index) & 1 == 1:
            accounts.append(self.cones[job][index].account)
    return accounts


@internal
def _count_votes(job: uint256, voters: uint256):
    """
    @notice Add one to the participation of some nodes.
    @param job Number of the job.
    @param voters Bitmap of nodes that voted with the majority.
    """
    for position: uint256 in range(COUNTER_WORDS):
        bits: uint256 = (voters >> (position * COUNTERS_PER_WORD)) & (2**COUNTERS_PER_WORD - 1)
        if bits == 0:
            continue
        ones: uint256 = 0
        for counter: uint256 in range(COUNTERS_PER_WORD):
            ones |= ((bits >> counter) & 1) << (counter * COUNTER_BITS)
        self.counters[job][position] += ones


@internal
@view
def _participation(job: uint256) -> DynArray[uint256, limits.MAX_CONES]:
    """
    @notice How often each node voted with the majority in a decided ballot.
    @param job Number of the job.
    @return Counts, by index.
    """
    counts: DynArray[uint256, limits.MAX_CONES] = []
    for index: uint256 in range(self.count[job], bound=limits.MAX_CONES):
        word: uint256 = self.counters[job][index // COUNTERS_PER_WORD]
        offset: uint256 = (index % COUNTERS_PER_WORD) * COUNTER_BITS
        counts.append((word >> offset) & (2**COUNTER_BITS - 1))
    return counts
