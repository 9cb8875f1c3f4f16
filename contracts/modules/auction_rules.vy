#pragma version 0.4.3
"""
@title Rules of the auctions
@license Apache-2.0
@notice The arithmetic of MECHANISM 3.1: what a bid must be, when an auction is extended, and what
        the winner pays.
@dev The vectors in `tests/vectors/auctions.json` hold for both sides.
"""

from modules import limits

# Sealed bids, and the winner pays its own.
MODE_SEALED: constant(uint256) = 0
# Sealed bids, and the winner pays the next best one.
MODE_SECOND_PRICE: constant(uint256) = 1
# Bids in the clear, each higher than the one before.
MODE_OPEN: constant(uint256) = 2
# A bid in the clear is at least 5 % higher than the best one.
RAISE_BPS: constant(uint256) = 500
# A bid in the last tenth of the window moves the end.
LATE_PARTS: constant(uint256) = 10


@internal
@pure
def _least_bid(reserve_wei: uint256, best_wei: uint256) -> uint256:
    """
    @notice The smallest bid in the clear that is taken.
    @param reserve_wei Least amount of a bid.
    @param best_wei Best bid so far; zero if there is none.
    @return The reserve, or 5 % above the best bid, rounded up; at least one.
    """
    raised_wei: uint256 = (
        best_wei * (limits.BPS + RAISE_BPS) + limits.BPS - 1
    ) // limits.BPS
    return max(max(reserve_wei, raised_wei), 1)


@internal
@pure
def _extension(
    now_block: uint256,
    opened_block: uint256,
    commit_end: uint256,
    extended_blocks: uint256,
    max_window_blocks: uint256,
) -> uint256:
    """
    @notice How far a bid in the clear moves the end of its auction.
    @param now_block Block of the bid, in the window.
    @param opened_block Block in which the auction was opened.
    @param commit_end Last block of the window so far.
    @param extended_blocks Sum of the extensions so far.
    @param max_window_blocks Bound of that sum: nobody can keep an auction open for ever.
    @return A tenth of the window as it was opened, at least one block, if the bid is in the last
            blocks of that number, and no more than the bound leaves; else zero.
    """
    late_blocks: uint256 = max((commit_end - extended_blocks - opened_block) // LATE_PARTS, 1)
    if now_block + late_blocks <= commit_end:
        return 0
    return min(late_blocks, max_window_blocks - extended_blocks)


@internal
@pure
def _price(
    mode: uint256, best_wei: uint256, second_wei: uint256, reserve_wei: uint256
) -> uint256:
    """
    @notice What the winner pays.
    @param mode Mode of the auction.
    @param best_wei Amount of the winning bid.
    @param second_wei Best amount of the other valid bids; zero if there is none.
    @param reserve_wei Least amount of a bid.
    @return The winning amount; in a second-price auction the larger of the second and the reserve.
    """
    if mode == MODE_SECOND_PRICE:
        return max(second_wei, reserve_wei)
    return best_wei
