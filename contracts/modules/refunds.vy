#pragma version 0.4.3
"""
@title What those who send batches spent
@license Apache-2.0
@notice A sender is refunded a fixed amount of gas for each entry that its batch recorded, at the
        price it paid, but at most a little more than the base fee (MECHANISM 9.2). Amounts are
        kept in units of 10 gwei, rounded down: the marks of a ballot hold those of its first two
        senders, and the course of a job the sums of all its nodes. The settlement pays them.
"""

from modules import ballot as ballots
from modules import limits

UNIT_WEI: constant(uint256) = 10**10
TIP_WEI: constant(uint256) = 2 * 10**9
GAS_PER_ENTRY: constant(uint256) = 8000

INDEX_BITS: constant(uint256) = 6
AMOUNT_BITS: constant(uint256) = 32
SLOT_BITS: constant(uint256) = 38
MAX_AMOUNT: constant(uint256) = 2**32 - 1
AMOUNTS_PER_WORD: constant(uint256) = 8
SLOT_MASK: constant(uint256) = 2**38 - 1
SLOTS: constant(uint256) = 2
INDEX_MASK: constant(uint256) = 2**6 - 1


@internal
@view
def _note(refunds: uint256, sender_index: uint256, entries: uint256) -> uint256:
    """
    @notice Note what a sender is owed for a batch.
    @dev With two other senders noted already nothing is added: a batch that is not needed costs
         its sender.
    @param refunds The slots of a ballot's marks.
    @param sender_index Index of the sender in the pool.
    @param entries Entries that its batch recorded.
    @return The slots.
    """
    price_wei: uint256 = min(tx.gasprice, block.basefee + TIP_WEI)
    amount: uint256 = entries * GAS_PER_ENTRY * price_wei // UNIT_WEI
    for slot: uint256 in range(SLOTS):
        offset: uint256 = slot * SLOT_BITS
        noted: uint256 = (refunds >> offset) & SLOT_MASK
        if noted >> INDEX_BITS != 0 and noted & INDEX_MASK != sender_index:
            continue
        total: uint256 = min((noted >> INDEX_BITS) + amount, MAX_AMOUNT)
        others: uint256 = refunds & ~(SLOT_MASK << offset)
        return others | ((sender_index | (total << INDEX_BITS)) << offset)
    return refunds


@internal
@pure
def _collect(sums: uint256[8], refunds: uint256) -> uint256[8]:
    """
    @notice Add what a ballot noted to the sums of a job.
    @param sums Eight words of eight sums, by index in the pool.
    @param refunds The slots of the ballot's marks.
    @return The new sums.
    """
    added: uint256[8] = sums
    for slot: uint256 in range(SLOTS):
        noted: uint256 = (refunds >> (slot * SLOT_BITS)) & SLOT_MASK
        amount: uint256 = noted >> INDEX_BITS
        if amount == 0:
            continue
        index: uint256 = noted & INDEX_MASK
        offset: uint256 = (index % AMOUNTS_PER_WORD) * AMOUNT_BITS
        word: uint256 = added[index // AMOUNTS_PER_WORD]
        before: uint256 = (word >> offset) & MAX_AMOUNT
        total: uint256 = min(before + amount, MAX_AMOUNT)
        added[index // AMOUNTS_PER_WORD] = (word & ~(MAX_AMOUNT << offset)) | (total << offset)
    return added


@internal
@pure
def _list(sums: uint256[8], cones: uint256) -> DynArray[uint256, limits.MAX_CONES]:
    """
    @notice The sums of a job, in wei.
    @param sums Eight words of eight sums.
    @param cones Nodes in the pool.
    @return What each node spent, by index.
    """
    amounts: DynArray[uint256, limits.MAX_CONES] = []
    for index: uint256 in range(cones, bound=limits.MAX_CONES):
        offset: uint256 = (index % AMOUNTS_PER_WORD) * AMOUNT_BITS
        amounts.append(((sums[index // AMOUNTS_PER_WORD] >> offset) & MAX_AMOUNT) * UNIT_WEI)
    return amounts
