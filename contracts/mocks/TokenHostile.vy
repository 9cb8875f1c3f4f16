#pragma version 0.4.3
"""
@title Hostile token
@license Apache-2.0
@notice A token that calls a contract of the test's choice while money is moved, once each time it
        is armed. It can also say no without reverting. For tests only.
"""

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
has_tried: public(bool)
has_succeeded: public(bool)
is_refusing: public(bool)

target: address
data: Bytes[4096]


@external
def arm(target: address, data: Bytes[4096]):
    """
    @notice Call a contract when money is moved next.
    @param target Contract to call.
    @param data Call to make.
    """
    self.target = target
    self.data = data
    self.has_tried = False
    self.has_succeeded = False


@external
def refuse(is_refusing: bool):
    """
    @notice Answer false instead of moving money, or stop that.
    @param is_refusing Whether to refuse.
    """
    self.is_refusing = is_refusing


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
    @param receiver Who gets it.
    @param amount How much.
    @return False if the token refuses.
    """
    return self._move(msg.sender, receiver, amount)


@external
def transferFrom(owner: address, receiver: address, amount: uint256) -> bool:
    """
    @notice Send money that its owner allowed the caller to send.
    @param owner Who has it.
    @param receiver Who gets it.
    @param amount How much.
    @return False if the token refuses.
    """
    self.allowance[owner][msg.sender] -= amount
    return self._move(owner, receiver, amount)


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
def _move(owner: address, receiver: address, amount: uint256) -> bool:
    """
    @notice Call back if armed, then move money.
    @param owner Who has it.
    @param receiver Who gets it.
    @param amount How much.
    @return False if the token refuses.
    """
    if self.target != empty(address):
        target: address = self.target
        self.target = empty(address)
        self.has_tried = True
        self.has_succeeded = raw_call(target, self.data, revert_on_failure=False)
    if self.is_refusing:
        return False
    self.balanceOf[owner] -= amount
    self.balanceOf[receiver] += amount
    return True
