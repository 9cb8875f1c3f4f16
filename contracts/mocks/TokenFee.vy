#pragma version 0.4.3
"""
@title Token with a fee
@license Apache-2.0
@notice A token that keeps a hundredth of what is sent. For tests only.
"""

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])


@external
def mint(account: address, amount: uint256):
    """
    @notice Make money. Anyone may call.
    @param account Who gets it.
    @param amount How much.
    """
    self.balanceOf[account] += amount


@external
def transfer(receiver: address, amount: uint256) -> bool:
    """
    @notice Send the caller's money.
    @param receiver Who gets it, less the fee.
    @param amount How much.
    @return True.
    """
    self._move(msg.sender, receiver, amount)
    return True


@external
def transferFrom(owner: address, receiver: address, amount: uint256) -> bool:
    """
    @notice Send money that its owner allowed the caller to send.
    @param owner Who has it.
    @param receiver Who gets it, less the fee.
    @param amount How much.
    @return True.
    """
    self.allowance[owner][msg.sender] -= amount
    self._move(owner, receiver, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    """
    @notice Allow an account to send the caller's money.
    @param spender Account that may send it.
    @param amount How much.
    @return True.
    """
    self.allowance[msg.sender][spender] = amount
    return True


@internal
def _move(owner: address, receiver: address, amount: uint256):
    """
    @notice Move money and keep the fee.
    @param owner Who has it.
    @param receiver Who gets it, less the fee.
    @param amount How much.
    """
    self.balanceOf[owner] -= amount
    self.balanceOf[receiver] += amount - amount // 100
