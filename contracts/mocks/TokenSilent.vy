#pragma version 0.4.3
"""
@title Silent token
@license Apache-2.0
@notice A token of the old kind: its functions return nothing, and it knows no permits. For tests
        only.
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
def transfer(receiver: address, amount: uint256):
    """
    @notice Send the caller's money.
    @param receiver Who gets it.
    @param amount How much.
    """
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[receiver] += amount


@external
def transferFrom(owner: address, receiver: address, amount: uint256):
    """
    @notice Send money that its owner allowed the caller to send.
    @param owner Who has it.
    @param receiver Who gets it.
    @param amount How much.
    """
    self.allowance[owner][msg.sender] -= amount
    self.balanceOf[owner] -= amount
    self.balanceOf[receiver] += amount


@external
def approve(spender: address, amount: uint256):
    """
    @notice Allow an account to send the caller's money.
    @param spender Account that may send it.
    @param amount How much.
    """
    self.allowance[msg.sender][spender] = amount
