#pragma version 0.4.3
"""
@title Greedy seller
@license Apache-2.0
@notice A seller that asks for its deposit again while it is being paid. For tests only.
"""

from interfaces import ISellerDeposits

DEPOSITS: immutable(ISellerDeposits)

is_greedy: public(bool)
has_tried: public(bool)
has_succeeded: public(bool)
job: uint256


@deploy
def __init__(deposits: address):
    """
    @notice Choose whom to cheat.
    @param deposits Contract that holds the deposit.
    """
    DEPOSITS = ISellerDeposits(deposits)


@external
@payable
def __default__():
    """
    @notice Take money, and ask for more of it.
    """
    if self.is_greedy and not self.has_tried:
        self.has_tried = True
        self.has_succeeded = raw_call(
            DEPOSITS.address,
            abi_encode(self.job, method_id=method_id("reclaim(uint256)")),
            revert_on_failure=False,
        )


@external
def reclaim(job: uint256, is_greedy: bool):
    """
    @notice Ask for the deposit.
    @param job Number of the job.
    @param is_greedy Whether to ask again when it comes.
    """
    self.job = job
    self.is_greedy = is_greedy
    extcall DEPOSITS.reclaim(job)
