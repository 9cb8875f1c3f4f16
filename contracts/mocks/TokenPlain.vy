#pragma version 0.4.3
"""
@title Plain token
@license Apache-2.0
@notice An ERC-20 token with EIP-2612 permits that does what the standard says. For tests only.
"""

from ethereum.ercs import IERC20

implements: IERC20

PERMIT: constant(bytes32) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
DOMAIN: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)

name: public(constant(String[5])) = "Plain"
symbol: public(constant(String[3])) = "PLN"
decimals: public(constant(uint8)) = 18

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])


@external
def mint(account: address, amount: uint256):
    """
    @notice Make money. Anyone may call.
    @param account Who gets it.
    @param amount How much.
    """
    self.totalSupply += amount
    self.balanceOf[account] += amount
    log IERC20.Transfer(sender=empty(address), receiver=account, value=amount)


@external
def transfer(_to: address, _value: uint256) -> bool:
    """
    @notice Send the caller's money.
    @param _to Receiver.
    @param _value Amount.
    @return True.
    """
    self._move(msg.sender, _to, _value)
    return True


@external
def transferFrom(_from: address, _to: address, _value: uint256) -> bool:
    """
    @notice Send money that its owner allowed the caller to send.
    @param _from Owner.
    @param _to Receiver.
    @param _value Amount.
    @return True.
    """
    self.allowance[_from][msg.sender] -= _value
    self._move(_from, _to, _value)
    return True


@external
def approve(_spender: address, _value: uint256) -> bool:
    """
    @notice Allow an account to send the caller's money.
    @param _spender Account that may send it.
    @param _value Amount.
    @return True.
    """
    self._approve(msg.sender, _spender, _value)
    return True


@external
def permit(
    owner: address,
    spender: address,
    amount: uint256,
    deadline: uint256,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice Allow an account to send money, by a signature of its owner.
    @param owner Owner of the money.
    @param spender Account that may send it.
    @param amount Amount.
    @param deadline Last second in which the signature counts.
    @param v Recovery number of the signature.
    @param r First half of the signature.
    @param s Second half of the signature.
    """
    assert block.timestamp <= deadline, "token: permit expired"
    message: bytes32 = keccak256(
        abi_encode(PERMIT, owner, spender, amount, self.nonces[owner], deadline)
    )
    digest: bytes32 = keccak256(concat(b"\x19\x01", self._domain_separator(), message))
    assert owner != empty(address) and ecrecover(digest, v, r, s) == owner, "token: not signed"
    self.nonces[owner] += 1
    self._approve(owner, spender, amount)


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    """
    @notice Domain of the signatures.
    @return Hash of the domain's fields.
    """
    return self._domain_separator()


@internal
@view
def _domain_separator() -> bytes32:
    """
    @notice Domain of the signatures.
    @return Hash of the domain's fields.
    """
    return keccak256(abi_encode(DOMAIN, keccak256(name), keccak256("1"), chain.id, self))


@internal
def _move(owner: address, receiver: address, amount: uint256):
    """
    @notice Move money. Reverts if there is not enough.
    @param owner Who has it.
    @param receiver Who gets it.
    @param amount How much.
    """
    self.balanceOf[owner] -= amount
    self.balanceOf[receiver] += amount
    log IERC20.Transfer(sender=owner, receiver=receiver, value=amount)


@internal
def _approve(owner: address, spender: address, amount: uint256):
    """
    @notice Write an allowance.
    @param owner Owner of the money.
    @param spender Account that may send it.
    @param amount How much.
    """
    self.allowance[owner][spender] = amount
    log IERC20.Approval(owner=owner, spender=spender, value=amount)
