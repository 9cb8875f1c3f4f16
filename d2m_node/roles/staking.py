"""What a CONE node puts into the stake pool."""

import structlog

from d2m_node.calls import DepositStake
from d2m_node.errors import TransactionReverted, TransientError
from d2m_node.roles.post import Post
from d2m_node.roles.wishes import remember_deposit
from protocol.stakes import Stake
from protocol.types import Wei

log = structlog.get_logger(__name__)


async def top_up_stake(post: Post, stake_wei: Wei, payment_key: str | None) -> None:
    """Deposit what this account's stake, free and locked, lacks.

    Not while the role drains: the stake is on its way out. A command under a ``payment_key`` makes
    at most one deposit, whatever became of it and of the stake since; a role that starts by itself
    has no such key, and makes good what a slash took.
    """
    if post.shift.is_draining:
        return
    chain = post.ports.chain
    stake = chain.state.stakes.get(post.ports.signer.address, Stake())
    total_wei = stake.free_wei + sum(stake.locked_wei.values())
    if total_wei >= stake_wei:
        return
    # A deposit changes the block since which the stake counts: until then the same need has the
    # same key, whoever has it, so that a node that died in the middle does not deposit again.
    key = f"stake/{stake.since_block}/{total_wei}/{stake_wei}"
    if payment_key is not None:
        begun = await remember_deposit(post.ports.store.journal, payment_key, key)
        if begun != key:
            log.warning("stake_not_topped_up", reason="this command has staked before")
            return
    await chain.submit(DepositStake(value_wei=Wei(stake_wei - total_wei)), key=key)


async def replace_stake(post: Post, stake_wei: Wei) -> None:
    """Deposit what a slash or a drain that was undone took; without it, go on with what is there.

    Money may be short, and jobs in which stake is locked need this node all the same.
    """
    try:
        await top_up_stake(post, stake_wei, None)
    except (TransactionReverted, TransientError) as refusal:
        log.warning("stake_not_topped_up", reason=str(refusal))
