"""A scripted chain that answers JSON-RPC in memory, and a transaction store to go with it."""

from collections.abc import Sequence
from dataclasses import astuple, fields, is_dataclass, replace
from typing import Any

import rlp
from eth_abi.abi import encode

from d2m_node.chain.artifacts import CONTRACTS, load_artifact
from d2m_node.chain.bindings import Bindings
from d2m_node.chain.client import Json, Request, RequestRefused, to_hex
from d2m_node.chain.signing import parse_transaction
from d2m_node.errors import ChainUnavailable
from d2m_node.transaction_store import StoredTransaction, TransactionState
from protocol.events import Event
from protocol.hashing import keccak
from protocol.types import Address

CHAIN_ID = 31337
ADDRESSES = {name: Address(bytes([position]) * 20) for position, name in enumerate(CONTRACTS, 1)}


def make_bindings() -> Bindings:
    """Bind the compiled contracts to made-up addresses."""
    return Bindings({name: load_artifact(name) for name in CONTRACTS}, ADDRESSES)


def make_log(event: Event) -> Json:
    """Write an event as the contracts would log it, without its place in the chain."""
    name, signature = next(
        (name, artifact.events[type(event).__name__])
        for name, artifact in ((name, load_artifact(name)) for name in CONTRACTS)
        if type(event).__name__ in artifact.events
    )
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    plain = [field for field in signature.fields if not field.indexed]
    return {
        "address": to_hex(ADDRESSES[name]),
        "topics": [
            to_hex(signature.topic),
            *(
                to_hex(encode([field.abi_type], [values[field.name]]))
                for field in signature.fields
                if field.indexed
            ),
        ],
        "data": to_hex(
            encode(
                [field.abi_type for field in plain],
                [_to_abi(values[field.name]) for field in plain],
            )
        ),
    }


def _to_abi(value: Any) -> Any:
    return astuple(value) if is_dataclass(value) and not isinstance(value, type) else value


class ScriptedChain:
    """Stands in for `RpcClient`: a chain that grows, turns and refuses as a test says."""

    def __init__(self) -> None:
        self.blocks: list[Json] = []
        self.logs: dict[str, list[Json]] = {}
        self.asked: list[str] = []
        self.sent: list[bytes] = []
        self.receipts: dict[str, Json] = {}
        self.refusals: dict[str, RequestRefused] = {}
        self.available = True
        self.mines_transactions = True
        self.next_status = 1
        self.account_nonce = 0
        self.distrusted = 0
        self.silent_seconds = 0.0
        self._waiting: list[bytes] = []
        self._salt = 0
        self.mine()

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    def mine(self, *logs: Json) -> None:
        """Add a block with these logs and, unless told otherwise, all waiting transactions."""
        number = len(self.blocks)
        block_hash = keccak(number.to_bytes(8, "big") + self._salt.to_bytes(8, "big"))
        parent_hash = self.blocks[-1]["hash"] if self.blocks else to_hex(bytes(32))
        self.blocks.append(
            {
                "number": hex(number),
                "hash": to_hex(block_hash),
                "parentHash": parent_hash,
                "logsBloom": to_hex((b"\xff" if logs else b"\x00") * 256),
                "baseFeePerGas": hex(10**9),
                "gasLimit": hex(30_000_000),
            }
        )
        self.logs[to_hex(block_hash)] = [
            {
                **entry,
                "blockNumber": hex(number),
                "logIndex": hex(index),
                "transactionHash": to_hex(bytes(32)),
            }
            for index, entry in enumerate(logs)
        ]
        if self.mines_transactions:
            self._mine_transactions(number)

    def mine_many(self, count: int) -> None:
        for _ in range(count):
            self.mine()

    def drop(self, count: int) -> None:
        """Take blocks off the tip; those mined next belong to another fork."""
        del self.blocks[-count:]
        self._salt += 1

    def forget_pool(self) -> None:
        """Lose the transactions that wait, as an endpoint does when it restarts."""
        self._waiting.clear()

    def use_nonce_elsewhere(self) -> None:
        """Let a transaction that the node does not know take the account's next nonce."""
        self._waiting.clear()
        self.account_nonce += 1

    def refuse(self, method: str, code: int, message: str, data: Json = None) -> None:
        self.refusals[method] = RequestRefused(method, code, message, data)

    async def call(self, method: str, *params: Json) -> Json:
        (answer,) = await self.batch([Request(method, params)])
        if isinstance(answer, RequestRefused):
            raise answer
        return answer

    async def batch(self, batch: Sequence[Request]) -> list[Json]:
        if not self.available:
            raise ChainUnavailable("the scripted chain is down")
        return [self._answer(request) for request in batch]

    def distrust_endpoint(self) -> None:
        self.distrusted += 1

    def _mine_transactions(self, number: int) -> None:
        waiting, self._waiting = self._waiting, []
        for raw in waiting:
            self.receipts[to_hex(keccak(raw))] = {
                "blockNumber": hex(number),
                "status": hex(self.next_status),
            }
            self.account_nonce = max(self.account_nonce, parse_transaction(raw).nonce + 1)

    def _answer(self, request: Request) -> Json:
        self.asked.append(request.method)
        if request.method in self.refusals:
            return self.refusals[request.method]
        answer = getattr(self, f"_{request.method}")
        return answer(*request.params)

    def _eth_getBlockByNumber(self, number: str, _full: bool) -> Json:
        position = self.height if number == "latest" else int(number, 16)
        return self.blocks[position] if position <= self.height else None

    def _eth_getLogs(self, log_filter: Json) -> Json:
        if "blockHash" in log_filter:
            return self.logs[log_filter["blockHash"]]
        first, last = int(log_filter["fromBlock"], 16), int(log_filter["toBlock"], 16)
        return [
            entry for block in self.blocks[first : last + 1] for entry in self.logs[block["hash"]]
        ]

    def _eth_estimateGas(self, _call: Json, _block: str) -> Json:
        return hex(100_000)

    def _eth_call(self, _call: Json, _block: str) -> Json:
        return "0x"

    def _eth_maxPriorityFeePerGas(self) -> Json:
        return hex(10**9)

    def _eth_getBalance(self, _account: str, _block: str) -> Json:
        return hex(10**21)

    def _eth_getTransactionCount(self, _account: str, _block: str) -> Json:
        return hex(self.account_nonce)

    def _eth_getTransactionReceipt(self, transaction_hash: str) -> Json:
        return self.receipts.get(transaction_hash)

    def _eth_sendRawTransaction(self, raw: str) -> Json:
        data = bytes.fromhex(raw[2:])
        assert rlp.decode(data[1:]), "a transaction"
        self.sent.append(data)
        self._waiting.append(data)
        return to_hex(keccak(data))


class MemoryTransactionStore:
    """`TransactionStore` without a disk."""

    def __init__(self) -> None:
        self.transactions: list[StoredTransaction] = []

    async def load_open(self) -> Sequence[StoredTransaction]:
        found = [one for one in self.transactions if one.state is TransactionState.OPEN]
        return sorted(found, key=lambda one: one.nonce)

    async def is_confirmed(self, key: str) -> bool:
        return any(
            one.key == key and one.state is TransactionState.CONFIRMED for one in self.transactions
        )

    async def add(self, transaction: StoredTransaction) -> None:
        self.transactions.append(transaction)

    async def close_nonce(self, nonce: int, state: TransactionState) -> None:
        self.transactions = [
            replace(one, state=state)
            if one.nonce == nonce and one.state is TransactionState.OPEN
            else one
            for one in self.transactions
        ]
