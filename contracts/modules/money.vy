#pragma version 0.4.3
"""
@title Sending native money
@license Apache-2.0
@notice The only place where the contracts send ether. Callers write their state first.
"""

# No key is known for this account, and it has no code that could refuse.
BURN_ACCOUNT: constant(address) = 0x000000000000000000000000000000000000dEaD


@internal
def _pay(payee: address, amount_wei: uint256):
    """
    @notice Send money with all gas, so that contract accounts can be paid too.
    @param payee Receiver.
    @param amount_wei Amount; nothing happens for zero.
    """
    if amount_wei > 0:
        raw_call(payee, b"", value=amount_wei)


@internal
def _burn(amount_wei: uint256):
    """
    @notice Take money out of circulation.
    @param amount_wei Amount; nothing happens for zero.
    """
    self._pay(BURN_ACCOUNT, amount_wei)
