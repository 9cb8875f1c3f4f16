"""How a CONE node's stake comes back once the role has drained."""

import structlog

from d2m_node.calls import RequestUnbond
from d2m_node.errors import TransactionReverted, TransientError
from d2m_node.roles.post import Post
from protocol.market import MarketState
from protocol.stakes import Stake
from protocol.types import BlockNumber

log = structlog.get_logger(__name__)


async def unbond(post: Post) -> bool:
    """Take all free stake out once none is locked; payday pulls it when the wait is over.

    Returns True when no stake is left in the pool, False if the drain was undone meanwhile.
    """
    chain, me = post.ports.chain, post.ports.signer.address

    def find_free(state: MarketState) -> Stake | bool | None:
        """Return a stake to take out, True if there is none, False if it stays, None to wait."""
        if not post.shift.is_draining:
            return False
        stake = state.stakes.get(me, Stake())
        if any(stake.locked_wei.values()):
            return None
        return stake if stake.free_wei > 0 else True

    while True:
        found: Stake | bool = await chain.wait_for(find_free)
        if not isinstance(found, Stake):
            return found
        call = RequestUnbond(amount_wei=found.free_wei)
        # The same stake has the same key, so that a restart does not ask twice.
        key = f"unbond/{found.since_block}/{found.release_block}/{found.free_wei}"
        try:
            await chain.submit(call, key=key)
            log.info("stake_unbonding", amount_wei=found.free_wei)
        except (TransactionReverted, TransientError) as refusal:
            # What is free has changed since, or the chain does not answer.
            log.info("unbond_refused", reason=str(refusal))
        await chain.wait_block(BlockNumber(chain.state.block_number + 1))
