"""A scripted chain that answers JSON-RPC in memory, and a transaction store to go with it."""

from collections.abc import Sequence
from dataclasses import astuple, fields, is_dataclass, replace
from typing import Any

from eth_abi.abi import encode

from d2m_node.chain.artifacts import CONTRACTS, TOKEN, load_artifact
from d2m_node.chain.bindings import Bindings
from d2m_node.chain.json_rpc import Json, Request, RequestRefused, to_hex
from d2m_node.chain.signing import Transaction, parse_transaction
from d2m_node.errors import ChainUnavailable
from d2m_node.keys import LocalSigner
from d2m_node.settings import ChainSettings
from d2m_node.transaction_store import BlockId, PaidFee, StoredTransaction, TransactionState
from protocol.events import Event
from protocol.hashing import keccak
from protocol.types import Address

CHAIN_ID = 31337
SIGNER = LocalSigner(b"\x01" * 32)
"""The account that a scripted chain has."""
ADDRESSES = {
    name: Address(bytes([position]) * 20) for position, name in enumerate((*CONTRACTS, "Token"), 1)
}
SETTINGS = ChainSettings(
    chain_id=CHAIN_ID,
    market=ADDRESSES["Market"],
    confirmations=0,
    poll_seconds=0.5,
    deployment_block=1,
)


def make_bindings() -> Bindings:
    """Bind the compiled contracts, and the token, to made-up addresses."""
    artifacts = {name: load_artifact(name) for name in CONTRACTS}
    return Bindings({**artifacts, "Token": TOKEN}, ADDRESSES)


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
    """Stands in for `RpcClient`: a chain that grows, turns and refuses as a test says.

    It has one account. Its pool holds one transaction per nonce; another one takes its place only
    if both fees are a tenth higher. A block takes what is next by nonce, a dropped block gives
    nothing back to the pool.
    """

    def __init__(self) -> None:
        self.blocks: list[Json] = []
        self.logs: dict[str, list[Json]] = {}
        self.asked: list[Request] = []
        self.sent: list[bytes] = []
        self.pool: dict[int, bytes] = {}
        self.refusals: dict[str, RequestRefused] = {}
        self.available = True
        self.mines_transactions = True
        self.base_fee_wei = 10**9
        self.next_status = 1
        self.gas_used = 50_000
        self.gas_price_wei = 0
        self.logs_max: int | None = None
        self.distrusted = 0
        self.silent_seconds = 0.0
        self._mined: list[list[Json]] = []
        self._salt = 0
        self.mine()

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    @property
    def methods(self) -> list[str]:
        """What was asked for, in order."""
        return [request.method for request in self.asked]

    @property
    def mined(self) -> list[bytes]:
        """Our transactions on the chain, in its order."""
        return [bytes.fromhex(one["raw"]) for block in self._mined for one in block if one["raw"]]

    def mine(self, *logs: Json) -> None:
        """Add a block with these logs and, unless told otherwise, what the pool has next."""
        number = len(self.blocks)
        block_hash = keccak(number.to_bytes(8, "big") + self._salt.to_bytes(8, "big"))
        parent_hash = self.blocks[-1]["hash"] if self.blocks else to_hex(bytes(32))
        self.blocks.append(
            {
                "number": hex(number),
                "hash": to_hex(block_hash),
                "parentHash": parent_hash,
                "logsBloom": to_hex((b"\xff" if logs else b"\x00") * 256),
                "baseFeePerGas": hex(self.base_fee_wei),
                "gasLimit": hex(30_000_000),
            }
        )
        self._mined.append([])
        self.logs[to_hex(block_hash)] = [
            {
                **entry,
                "blockNumber": hex(number),
                "logIndex": hex(index),
                "transactionHash": to_hex(bytes(32)),
            }
            for index, entry in enumerate(logs)
        ]
        while self.mines_transactions and (nonce := self._count()) in self.pool:
            self._include(nonce, self.pool.pop(nonce))

    def mine_many(self, count: int) -> None:
        for _ in range(count):
            self.mine()

    def drop(self, count: int) -> None:
        """Take blocks off the tip; those mined next belong to another branch."""
        del self.blocks[-count:]
        del self._mined[-count:]
        self._salt += 1

    def forget_pool(self) -> None:
        """Lose the transactions that wait, as an endpoint does when it restarts."""
        self.pool.clear()

    def use_nonce_elsewhere(self) -> None:
        """Let a transaction that the node does not know take the account's next nonce."""
        self.pool.pop(self._count(), None)
        self._include(self._count(), b"")

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

    def _count(self, number: int | None = None) -> int:
        """Count the account's nonces used up to a block."""
        return sum(len(block) for block in self._mined[: None if number is None else number + 1])

    def _include(self, nonce: int, raw: bytes) -> None:
        block = self.blocks[-1]
        self._mined[-1].append(
            {
                "raw": raw.hex(),
                **_describe(raw),
                "hash": to_hex(keccak(raw)),
                "from": to_hex(SIGNER.address),
                "nonce": hex(nonce),
                "blockNumber": block["number"],
                "blockHash": block["hash"],
                "status": hex(self.next_status),
                "gasUsed": hex(self.gas_used),
                "effectiveGasPrice": hex(self.gas_price_wei),
            }
        )

    def _answer(self, request: Request) -> Json:
        self.asked.append(request)
        if request.method in self.refusals:
            return self.refusals[request.method]
        answer = getattr(self, f"_{request.method}")
        return answer(*request.params)

    def _eth_getBlockByNumber(self, number: str, is_full: bool) -> Json:
        position = self.height if number == "latest" else int(number, 16)
        if position > self.height:
            return None
        block = self.blocks[position]
        return {**block, "transactions": self._mined[position]} if is_full else block

    def _eth_getLogs(self, log_filter: Json) -> Json:
        if "blockHash" in log_filter:
            return self.logs[log_filter["blockHash"]]
        first, last = int(log_filter["fromBlock"], 16), int(log_filter["toBlock"], 16)
        if self.logs_max is not None and last - first >= self.logs_max:
            return RequestRefused("eth_getLogs", -32005, "block range too wide", None)
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

    def _eth_getTransactionCount(self, _account: str, block: str) -> Json:
        if block not in ("latest", "pending"):
            return hex(self._count(int(block, 16)))
        if block == "latest":
            return hex(self._count())
        count = self._count()
        while count in self.pool:
            count += 1
        return hex(count)

    def _eth_getTransactionReceipt(self, transaction_hash: str) -> Json:
        mined = [one for block in self._mined for one in block if one["hash"] == transaction_hash]
        return mined[0] if mined else None

    def _eth_sendRawTransaction(self, raw: str) -> Json:
        data = bytes.fromhex(raw[2:])
        transaction = parse_transaction(data)
        if transaction.nonce < self._count():
            return RequestRefused("eth_sendRawTransaction", -32000, "nonce too low", None)
        known = self.pool.get(transaction.nonce)
        if known == data:
            return RequestRefused("eth_sendRawTransaction", -32000, "already known", None)
        if known is not None and not _outbids(transaction, parse_transaction(known)):
            reason = "replacement transaction underpriced"
            return RequestRefused("eth_sendRawTransaction", -32000, reason, None)
        self.sent.append(data)
        self.pool[transaction.nonce] = data
        return to_hex(keccak(data))


def _outbids(new: Transaction, known: Transaction) -> bool:
    return new.tip_wei * 10 >= known.tip_wei * 11 and new.max_fee_wei * 10 >= known.max_fee_wei * 11


def _describe(raw: bytes) -> dict[str, Json]:
    """What a client says of a transaction's call; nothing of what is none."""
    if not raw.startswith(b"\x02"):
        return {}
    transaction = parse_transaction(raw)
    return {
        "to": to_hex(transaction.to or b""),
        "input": to_hex(transaction.data),
        "value": hex(transaction.value_wei),
    }


class MemoryTransactionStore:
    """`TransactionStore` without a disk."""

    def __init__(self) -> None:
        self.transactions: list[StoredTransaction] = []
        self.fees: dict[int, PaidFee] = {}

    async def load_watched(self) -> Sequence[StoredTransaction]:
        found = [one for one in self.transactions if _is_watched(one)]
        return sorted(found, key=lambda one: one.nonce)

    async def find_highest_nonce(self) -> int | None:
        return max((one.nonce for one in self.transactions), default=None)

    async def is_confirmed(self, key: str) -> bool:
        return any(
            one.key == key and one.state is TransactionState.CONFIRMED for one in self.transactions
        )

    async def add(self, transaction: StoredTransaction) -> None:
        self.transactions.append(transaction)

    async def note_fee(self, fee: PaidFee) -> None:
        self.fees[fee.nonce] = fee

    async def load_fees(self) -> Sequence[PaidFee]:
        return list(self.fees.values())

    async def settle(self, nonce: int, state: TransactionState, mined: BlockId | None) -> None:
        self.transactions = [
            replace(one, state=state, mined=mined)
            if one.nonce == nonce and _is_watched(one)
            else one
            for one in self.transactions
        ]


def _is_watched(transaction: StoredTransaction) -> bool:
    return transaction.state is TransactionState.OPEN or transaction.mined is not None
