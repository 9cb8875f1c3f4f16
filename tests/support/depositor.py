"""A node's chain side in a process of its own, to be killed: deposits a stake once.

``python -m tests.support.depositor URL MARKET DEPLOYMENT_BLOCK FOLDER``
"""

import sys
from pathlib import Path

import trio

from d2m_node.chain.adapter import open_chain
from d2m_node.settings import ChainSettings
from d2m_node.storage.database import open_store
from protocol.types import Address
from tests.support.anvil import CHAIN_ID, cone, stake_some


async def deposit(url: str, market: str, deployment_block: str, folder: str) -> None:
    settings = ChainSettings(
        rpc_urls=(url,),
        chain_id=CHAIN_ID,
        market=Address(bytes.fromhex(market)),
        confirmations=0,
        poll_seconds=0.02,
        deployment_block=int(deployment_block),
    )
    async with (
        open_store(Path(folder)) as store,
        open_chain(settings, cone, store.transactions) as chain,
    ):
        await stake_some(chain)


if __name__ == "__main__":
    trio.run(deposit, *sys.argv[1:])
