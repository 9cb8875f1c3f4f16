"""Allowances: what a contract may take of the deployment's token, before it takes it."""

from d2m_node.calls import ApproveToken
from d2m_node.ports import ChainPort
from protocol.types import NO_ACCOUNT, Address, Wei


async def allow_taking(
    chain: ChainPort, currency: Address, spender: str, amount_wei: Wei, *, key: str
) -> Wei:
    """Make sure that a contract can take an amount; return the ether that has to go along.

    Ether goes along with the call that pays. Of a token the contract named ``spender`` gets an
    allowance, once per ``key`` and block: one that another payment used up is given again.

    Raises TransactionReverted and ChainUnavailable, as `ChainPort.submit` does.
    """
    if currency == NO_ACCOUNT:
        return amount_wei
    approval = ApproveToken(spender=spender, amount_wei=amount_wei)
    await chain.submit(approval, key=f"approve/{key}/{chain.state.block_number}")
    return Wei(0)
