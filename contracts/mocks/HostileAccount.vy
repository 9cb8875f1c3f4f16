#pragma version 0.4.3
"""
@title Hostile account
@license Apache-2.0
@notice A contract that takes part in the market: it makes the calls a test wants, and when ether
        comes in it refuses it, or calls a contract of the test's choice, once each time it is
        armed. For tests only.
"""

has_tried: public(bool)
has_succeeded: public(bool)
is_refusing: public(bool)

target: address
data: Bytes[4096]


@external
@payable
def __default__():
    """
    @notice Take money, and do harm.
    """
    assert not self.is_refusing, "account: refused"
    if self.target != empty(address):
        target: address = self.target
        self.target = empty(address)
        self.has_tried = True
        self.has_succeeded = raw_call(target, self.data, revert_on_failure=False)


@external
@payable
def execute(target: address, data: Bytes[4096]):
    """
    @notice Make a call with the money sent.
    @param target Contract to call.
    @param data Call to make.
    """
    raw_call(target, data, value=msg.value)


@external
def arm(target: address, data: Bytes[4096]):
    """
    @notice Call a contract when ether comes in next.
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
    @notice Refuse ether, or stop that.
    @param is_refusing Whether to refuse.
    """
    self.is_refusing = is_refusing
