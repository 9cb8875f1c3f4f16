"""What a call will cost, whether it would succeed, and how to outbid oneself."""

from dataclasses import dataclass, replace

from d2m_node.chain.bindings import EncodedCall, decode_revert
from d2m_node.chain.client import (
    Json,
    Request,
    RequestRefused,
    RpcClient,
    parse_bytes,
    parse_quantity,
    to_hex,
)
from d2m_node.chain.signing import Transaction
from d2m_node.errors import ChainUnavailable, TransactionReverted
from protocol.types import Address, Wei

MAX_FEE_CEILING_WEI = Wei(5_000 * 10**9)
"""No fee per gas above this is ever signed, whatever an endpoint says: 5,000 gwei."""
_BASE_FEE_HEADROOM = 2  # six full blocks in a row
_GAS_HEADROOM = (3, 2)  # the state may have moved when the call is mined
_REVERTED = 3  # JSON-RPC error code of a revert


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a call takes, as of now."""

    gas: int
    tip_wei: Wei
    max_fee_wei: Wei
    next_nonce: int
    """The account's next nonce, transactions that wait in the pool included."""


async def quote_call(client: RpcClient, sender: Address, call: EncodedCall) -> Quote:
    """Simulate a call on the pending block and ask what it costs.

    On the pending block, because that is where the earliest transaction would run: a contract
    that compares block numbers answers there as it will then.

    Raises
    ------
    TransactionReverted
        If the contract refuses, or the account cannot pay.
    ChainUnavailable
        If no endpoint answers, or with nonsense.
    """
    gas_answer, block, tip_answer, balance_answer, nonce_answer = await client.batch(
        [
            Request("eth_estimateGas", (_describe(sender, call), "pending")),
            Request("eth_getBlockByNumber", ("latest", False)),
            Request("eth_maxPriorityFeePerGas"),
            Request("eth_getBalance", (to_hex(sender), "latest")),
            Request("eth_getTransactionCount", (to_hex(sender), "pending")),
        ]
    )
    if isinstance(gas_answer, RequestRefused):
        raise explain_refusal(call.label, gas_answer)
    if not isinstance(block, dict):
        raise ChainUnavailable("the endpoint does not know its latest block")
    numerator, denominator = _GAS_HEADROOM
    gas = parse_quantity(gas_answer) * numerator // denominator
    tip = parse_quantity(tip_answer)
    max_fee = parse_quantity(block.get("baseFeePerGas")) * _BASE_FEE_HEADROOM + tip
    if max_fee > MAX_FEE_CEILING_WEI:
        raise ChainUnavailable(f"the chain asks {max_fee} wei per gas; that is not believed")
    cost = call.value_wei + gas * max_fee
    balance = parse_quantity(balance_answer)
    if balance < cost:
        raise TransactionReverted(
            call.label, f"the account holds {balance} wei and may need {cost}; send it some"
        )
    return Quote(
        gas=min(gas, parse_quantity(block.get("gasLimit"))),
        tip_wei=Wei(tip),
        max_fee_wei=Wei(max_fee),
        next_nonce=parse_quantity(nonce_answer),
    )


async def find_revert_reason(
    client: RpcClient, sender: Address, transaction: Transaction, block_number: int
) -> str:
    """Ask why a transaction failed, by running it again on the state after its block.

    Raises ChainUnavailable.
    """
    call = EncodedCall(
        label="", to=transaction.to, data=transaction.data, value_wei=transaction.value_wei
    )
    try:
        await client.call("eth_call", _describe(sender, call), hex(block_number))
    except RequestRefused as exc:
        refusal = explain_refusal("", exc)
        if isinstance(refusal, TransactionReverted):
            return refusal.reason
        raise
    return "failed when it was mined, for a reason that no longer holds"


def explain_refusal(label: str, refused: RequestRefused) -> TransactionReverted | RequestRefused:
    """Tell a contract's no from an endpoint's trouble."""
    if isinstance(refused.data, str) and refused.data.startswith("0x"):
        reason = decode_revert(parse_bytes(refused.data))
        if reason is not None:
            return TransactionReverted(label, reason)
    message = refused.message
    if refused.code == _REVERTED or "revert" in message or "insufficient funds" in message.lower():
        return TransactionReverted(label, message)
    return refused


def raise_fees(transaction: Transaction) -> Transaction | None:
    """Outbid a transaction by an eighth on both fees; None beyond the ceiling.

    Nodes replace a transaction only if both fees rise by a tenth at least.
    """
    bid = replace(
        transaction,
        tip_wei=_add_eighth(transaction.tip_wei),
        max_fee_wei=_add_eighth(transaction.max_fee_wei),
    )
    return bid if bid.max_fee_wei <= MAX_FEE_CEILING_WEI else None


def _add_eighth(fee_wei: Wei) -> Wei:
    return Wei(fee_wei + -(-fee_wei // 8))


def _describe(sender: Address, call: EncodedCall) -> Json:
    described = {
        "from": to_hex(sender),
        "value": hex(call.value_wei),
        "data": to_hex(call.data),
    }
    return described if call.to is None else {**described, "to": to_hex(call.to)}
