"""An ERC-20 token on a devnet's chain, for jobs in it."""

from collections.abc import Sequence
from pathlib import Path

import vyper
from eth_abi.abi import encode

from d2m_node.chain.client import RpcClient, open_client
from d2m_node.chain.json_rpc import Json, Request, parse_bytes, parse_quantity, to_hex
from protocol.hashing import keccak
from protocol.types import Address

SOURCE = Path(__file__).parents[2] / "contracts" / "mocks" / "TokenPlain.vy"
TOKENS = 1000 * 10**18


async def deploy_token(url: str) -> Address:
    """Deploy the token from the chain's own account; return its address."""
    bytecode = vyper.compile_code(SOURCE.read_text(), output_formats=["bytecode"])["bytecode"]
    async with open_client([url]) as client:
        receipt = await _send(client, None, bytecode)
    assert isinstance(receipt, dict)
    return Address(parse_bytes(receipt["contractAddress"]))


async def mint(url: str, token: Address, accounts: Sequence[Address]) -> None:
    """Give every account as many tokens."""
    selector = keccak(b"mint(address,uint256)")[:4]
    async with open_client([url]) as client:
        for account in accounts:
            data = selector + encode(["address", "uint256"], [account, TOKENS])
            await _send(client, token, to_hex(data))


async def read_token_balance(client: RpcClient, token: Address, account: Address) -> int:
    """Ask for what an account has."""
    data = keccak(b"balanceOf(address)")[:4] + account.rjust(32, b"\x00")
    answer = await client.call("eth_call", {"to": to_hex(token), "data": to_hex(data)}, "latest")
    return parse_quantity(answer) if answer == "0x0" else int(str(answer), 16)


async def _send(client: RpcClient, to: Address | None, data: str) -> Json:
    """Let the chain sign for its own account, and mine."""
    (accounts,) = await client.batch([Request("eth_accounts")])
    assert isinstance(accounts, list)
    call = {"from": accounts[0], "data": data, "gas": hex(5_000_000)}
    if to is not None:
        call["to"] = to_hex(to)
    sent = await client.call("eth_sendTransaction", call)
    await client.call("anvil_mine", "0x1")
    return await client.call("eth_getTransactionReceipt", sent)
