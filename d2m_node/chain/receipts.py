"""What the chain knows of an account's nonces and transactions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d2m_node.chain.bindings import EncodedCall
from d2m_node.chain.client import RpcClient
from d2m_node.chain.fees import describe_call
from d2m_node.chain.json_rpc import (
    Json,
    Request,
    RequestRefused,
    parse_bytes,
    parse_quantity,
    to_hex,
)
from d2m_node.chain.reverts import explain_refusal
from d2m_node.chain.signing import Transaction
from d2m_node.errors import ChainUnavailable, TransactionReverted
from d2m_node.transaction_store import BlockId
from protocol.types import Address, BlockNumber, Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A mined transaction."""

    hash: bytes
    block: BlockId
    has_succeeded: bool
    gas_used: int
    fee_wei: Wei
    """What was paid for it; zero if the endpoint does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """An account as of a block, and as one endpoint's pool has it."""

    used_nonces: int
    """Nonces below this one are used in the block's branch."""
    pool_nonce: int
    """The first nonce for which neither the chain nor the pool has a transaction."""
    receipts: Mapping[bytes, Receipt]
    """By transaction hash, of those that are mined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceUser:
    """A mined transaction of the account, whoever signed it."""

    hash: bytes
    to: bytes
    data: bytes
    value_wei: int

    def makes(self, call: EncodedCall) -> bool:
        """Tell whether it does what a call asks for."""
        return (self.to, self.data, self.value_wei) == (call.to, call.data, call.value_wei)


async def read_account(
    client: RpcClient, account: Address, hashes: Sequence[bytes], block_number: int
) -> AccountFacts:
    """Read an account's nonces, and the receipts of its transactions. Raises ChainUnavailable."""
    used, pool, *answers = await client.batch(
        [
            Request("eth_getTransactionCount", (to_hex(account), hex(block_number))),
            Request("eth_getTransactionCount", (to_hex(account), "pending")),
            *(Request("eth_getTransactionReceipt", (to_hex(one),)) for one in hashes),
        ]
    )
    found = (
        _read_receipt(transaction_hash, answer)
        for transaction_hash, answer in zip(hashes, answers, strict=True)
        if answer is not None
    )
    return AccountFacts(
        used_nonces=parse_quantity(used),
        pool_nonce=parse_quantity(pool),
        receipts={receipt.hash: receipt for receipt in found},
    )


async def find_nonce_user(
    client: RpcClient, account: Address, nonce: int, *, first_block: int, last_block: int
) -> NonceUser | None:
    """Find which transaction used a nonce; None if it was before ``first_block``.

    The nonce must be used by ``last_block``. Raises ChainUnavailable.
    """
    numbers = range(max(first_block - 1, 0), last_block + 1)
    answers = await client.batch(
        [Request("eth_getTransactionCount", (to_hex(account), hex(n))) for n in numbers]
    )
    counts = [parse_quantity(answer) for answer in answers]
    using = next((n for n, count in zip(numbers, counts, strict=True) if count > nonce), None)
    if using is None:
        raise ChainUnavailable(f"nonce {nonce} is used, and then it is not")
    if using == numbers[0]:
        return None
    block = await client.call("eth_getBlockByNumber", hex(using), True)
    transactions = block.get("transactions") if isinstance(block, dict) else None
    for transaction in transactions or ():
        if not isinstance(transaction, dict):
            break
        is_ours = parse_bytes(transaction.get("from"), 20) == account
        if is_ours and parse_quantity(transaction.get("nonce")) == nonce:
            return NonceUser(
                hash=parse_bytes(transaction.get("hash"), 32),
                to=parse_bytes(transaction.get("to") or "0x"),
                data=parse_bytes(transaction.get("input") or "0x"),
                value_wei=parse_quantity(transaction.get("value") or "0x0"),
            )
    raise ChainUnavailable(f"block {using} does not hold the transaction that used nonce {nonce}")


async def find_revert_reason(
    client: RpcClient, sender: Address, transaction: Transaction, receipt: Receipt
) -> str:
    """Find out why a mined transaction failed, by running it again on the state after its block.

    Raises ChainUnavailable if no endpoint answers; one that cannot tell is no failure.
    """
    call = EncodedCall(
        label="", to=transaction.to, data=transaction.data, value_wei=transaction.value_wei
    )
    described = {**describe_call(sender, call), "gas": hex(transaction.gas)}
    if receipt.gas_used >= transaction.gas:
        return f"out of gas: all {transaction.gas} were used"
    (answer,) = await client.batch([Request("eth_call", (described, hex(receipt.block.number)))])
    if not isinstance(answer, RequestRefused):
        return "failed when it was mined, for a reason that no longer holds"
    refusal = explain_refusal("", answer)
    if isinstance(refusal, TransactionReverted):
        return refusal.reason
    return f"not known: {refusal}"


def _read_receipt(transaction_hash: bytes, answer: Json) -> Receipt:
    if isinstance(answer, RequestRefused):
        raise answer  # a receipt that cannot be asked for is not one that is missing
    if not isinstance(answer, dict):
        raise ChainUnavailable("a receipt that is no object")
    gas_used = parse_quantity(answer.get("gasUsed"))
    return Receipt(
        hash=transaction_hash,
        block=BlockId(
            BlockNumber(parse_quantity(answer.get("blockNumber"))),
            parse_bytes(answer.get("blockHash"), 32),
        ),
        has_succeeded=parse_quantity(answer.get("status")) == 1,
        gas_used=gas_used,
        fee_wei=Wei(gas_used * parse_quantity(answer.get("effectiveGasPrice", "0x0"))),
    )
