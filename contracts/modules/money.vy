#pragma version 0.4.3
"""
@title Money: ether, or the one ERC-20 token of a deployment
@license Apache-2.0
@notice The only place where the contracts take and send money. Callers write their state first.
        A currency is an address: zero for ether, else the token. Amounts are in the smallest unit.
"""

from ethereum.ercs import IERC20

# No key is known for this account, and it has no code that could refuse.
BURN_ACCOUNT: constant(address) = 0x000000000000000000000000000000000000dEaD


struct Permit:
    value: uint256
    deadline: uint256
    v: uint8
    r: bytes32
    s: bytes32


@internal
@payable
def _take(currency: address, payer: address, amount_wei: uint256):
    """
    @notice Take money from whoever calls: the ether that came along, or an allowance.
    @dev What arrives is measured: a token that keeps a fee is refused.
    @param currency Zero for ether, else the token.
    @param payer Account whose allowance is used; the sender of the ether.
    @param amount_wei Amount that must arrive.
    """
    if currency == empty(address):
        assert msg.value == amount_wei, "money: not the amount"
        return
    assert msg.value == 0, "money: ether for a token"
    before_wei: uint256 = staticcall IERC20(currency).balanceOf(self)
    # Tokens that return nothing count as agreeing.
    is_taken: bool = extcall IERC20(currency).transferFrom(
        payer, self, amount_wei, default_return_value=True
    )
    assert is_taken, "money: token refused"
    after_wei: uint256 = staticcall IERC20(currency).balanceOf(self)
    assert after_wei == before_wei + amount_wei, "money: token keeps a fee"


@internal
def _permit(currency: address, owner: address, permit: Permit):
    """
    @notice Ask the token for an allowance that its owner signed.
    @dev A failure is ignored: somebody else may have used the permit first, and what counts is
         the allowance.
    @param currency Token.
    @param owner Account that signed.
    @param permit What it signed.
    """
    if currency == empty(address):
        return
    _: bool = raw_call(
        currency,
        abi_encode(
            owner,
            self,
            permit.value,
            permit.deadline,
            permit.v,
            permit.r,
            permit.s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )


@internal
def _pay(currency: address, payee: address, amount_wei: uint256):
    """
    @notice Send money. Ether goes with all gas, so that contract accounts can be paid too.
    @param currency Zero for ether, else the token.
    @param payee Receiver.
    @param amount_wei Amount; nothing happens for zero.
    """
    if amount_wei == 0:
        return
    if currency == empty(address):
        raw_call(payee, b"", value=amount_wei)
        return
    is_paid: bool = extcall IERC20(currency).transfer(
        payee, amount_wei, default_return_value=True
    )
    assert is_paid, "money: token refused"


@internal
def _burn(currency: address, amount_wei: uint256):
    """
    @notice Take money out of circulation.
    @dev Nobody waits for a token that does not let it go: it stays here, where nobody can take it.
    @param currency Zero for ether, else the token.
    @param amount_wei Amount; nothing happens for zero.
    """
    if amount_wei == 0:
        return
    if currency == empty(address):
        raw_call(BURN_ACCOUNT, b"", value=amount_wei)
        return
    _: bool = raw_call(
        currency,
        abi_encode(BURN_ACCOUNT, amount_wei, method_id=method_id("transfer(address,uint256)")),
        revert_on_failure=False,
    )
