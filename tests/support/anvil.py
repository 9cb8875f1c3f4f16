"""A market on a real chain in a process of its own, and endpoints of it that misbehave."""

import itertools
import json
import random
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from d2m_node.calls import DepositStake
from d2m_node.chain.client import open_client
from d2m_node.chain.deployment import Deployment, deploy, load_params
from d2m_node.chain.json_rpc import to_hex
from d2m_node.devnet.anvil import open_anvil
from d2m_node.keys import LocalSigner
from d2m_node.ports import ChainPort
from d2m_node.settings import ChainSettings
from protocol.types import Wei
from tests.support.endpoints import Batch, Reply, serve_rpc

CHAIN_ID = 31337
ONE_ETHER = Wei(10**18)
PARAMS = load_params(Path(__file__).parents[2] / "configs" / "params" / "dev.toml")
deployer = LocalSigner(b"\x01" * 32)
cone = LocalSigner(b"\x02" * 32)


FIXED_PORTS = range(10_000, 32_000)
"""Below those that systems hand out: nobody is given one of these before it is used here."""

_ports = itertools.cycle(random.sample(FIXED_PORTS, len(FIXED_PORTS)))


def find_free_port() -> int:
    """Return a port that was free a moment ago, another one with each call."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is always a next port")


@asynccontextmanager
async def open_market() -> AsyncGenerator[tuple[str, Deployment], None]:
    """A chain with the contracts, mining a block per transaction and on demand."""
    balances = {signer.address: Wei(1000 * ONE_ETHER) for signer in (deployer, cone)}
    with trio.fail_after(60):
        async with open_anvil(
            port=find_free_port(), chain_id=CHAIN_ID, balances=balances, block_seconds=None
        ) as url:
            yield url, await deploy(url, deployer, PARAMS)


def make_settings(url: str, deployment: Deployment) -> ChainSettings:
    return ChainSettings(
        rpc_urls=(url,),
        chain_id=CHAIN_ID,
        market=deployment.market,
        confirmations=0,
        poll_seconds=0.02,
        deployment_block=deployment.deployment_block,
    )


async def ask(url: str, method: str, *params: object) -> Any:
    async with open_client([url]) as client:
        return await client.call(method, *params)


async def count_used_nonces(url: str) -> int:
    return int(await ask(url, "eth_getTransactionCount", to_hex(cone.address), "latest"), 16)


async def wait_used_nonces(url: str, count: int) -> None:
    """Return when as many of the cone's transactions are mined."""
    while await count_used_nonces(url) != count:
        pass


async def wait_pool(url: str, count: int) -> None:
    """Return when as many transactions wait in the chain's pool."""
    async with open_client([url]) as client:
        while int((await client.call("txpool_status"))["pending"], 16) != count:
            pass


async def stake_some(chain: ChainPort, key: str = "stake") -> None:
    await chain.submit(DepositStake(value_wei=ONE_ETHER), key=key)


async def wait_stake(chain: ChainPort, amount_wei: int) -> None:
    """Return when the cone's stake is that amount in the followed state."""

    def find(state: Any) -> bool | None:
        stake = state.stakes.get(cone.address)
        return True if (stake.free_wei if stake else 0) == amount_wei else None

    await chain.wait_for(find)


@dataclass(slots=True)
class FaultyEndpoint:
    """Stands between a node and its chain."""

    url: str = ""
    """The chain's own."""
    failure: Reply | None = None
    """Said to everything, without asking the chain."""
    behind_blocks: int = 0
    """How far the newest block that it knows is behind the chain's."""
    logs_max_blocks: int | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    before_send: Callable[[], Reply | None] = lambda: None
    """May answer a transaction, which the chain then never gets."""
    after_send: Callable[[], Reply | None] = lambda: None
    """May replace the answer to a transaction that the chain has got already."""

    def __call__(self, batch: Batch) -> Reply:
        self.asked += batch
        if self.failure is not None:
            return self.failure
        is_sending = any(one["method"] == "eth_sendRawTransaction" for one in batch)
        if is_sending and (reply := self.before_send()) is not None:
            return reply
        refused = [self._refuse(one) for one in batch if self._is_refused(one)]
        if refused:
            passed = [one for one in batch if not self._is_refused(one)]
            answers = json.loads(self._forward(passed)) if passed else []
            return Reply(json.dumps(answers + refused).encode())
        if self.behind_blocks:
            batch = self._look_back(batch)
        body = self._forward(batch)
        return (self.after_send() if is_sending else None) or Reply(body)

    def count(self, method: str) -> int:
        return sum(one["method"] == method for one in self.asked)

    def _forward(self, batch: Batch) -> bytes:
        return httpx.post(self.url, json=batch, timeout=10).content

    def _look_back(self, batch: Batch) -> Batch:
        request = {"jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber", "params": []}
        newest = int(json.loads(self._forward([request]))[0]["result"], 16)
        old = hex(max(newest - self.behind_blocks, 0))
        return [
            {"jsonrpc": "2.0", "id": one["id"], "method": "eth_getBlockByNumber"}
            | {"params": [old, False]}
            if one["method"] == "eth_getBlockByNumber" and one["params"][0] == "latest"
            else one
            for one in batch
        ]

    def _is_refused(self, request: dict[str, Any]) -> bool:
        if self.logs_max_blocks is None or request["method"] != "eth_getLogs":
            return False
        asked = request["params"][0]
        if "fromBlock" not in asked:
            return False
        return int(asked["toBlock"], 16) - int(asked["fromBlock"], 16) >= self.logs_max_blocks

    def _refuse(self, request: dict[str, Any]) -> dict[str, Any]:
        error = {"code": -32602, "message": "eth_getLogs is limited to a smaller range"}
        return {"jsonrpc": "2.0", "id": request["id"], "error": error}


@contextmanager
def open_endpoint(endpoint: FaultyEndpoint) -> Iterator[str]:
    """Serve a faulty endpoint while the context is open; yield its URL."""
    with serve_rpc(endpoint) as url:
        yield url
