"""What a call will cost, whether it would succeed, and how to outbid oneself."""

from dataclasses import dataclass, replace

from d2m_node.chain.bindings import EncodedCall
from d2m_node.chain.client import RpcClient
from d2m_node.chain.json_rpc import Json, Request, RequestRefused, parse_quantity, to_hex
from d2m_node.chain.reverts import explain_refusal
from d2m_node.chain.signing import Transaction
from d2m_node.errors import ChainUnavailable, TransactionReverted
from protocol.types import Address, Wei

_BASE_FEE_HEADROOM = 2  # six full blocks in a row
_GAS_HEADROOM = (3, 2)  # the state may have moved when the call is mined
_MOST_USED_NONCES = 10**8  # a transaction per second for three years
_MOST_WAITING = 1_000  # more than a node's pool takes of one account
_FEE_REQUESTS = (
    Request("eth_getBlockByNumber", ("latest", False)),
    Request("eth_maxPriorityFeePerGas"),
)


@dataclass(frozen=True, slots=True)
class Fees:
    """What a unit of gas may cost."""

    tip_wei: Wei
    """Most that the block's proposer gets."""
    max_fee_wei: Wei
    """Most that is paid, tip included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a call takes, as of now."""

    gas: int
    fees: Fees
    next_nonce: int
    """The account's next nonce, transactions that wait in the pool included."""


async def quote_call(
    client: RpcClient, sender: Address, call: EncodedCall, *, max_fee_wei: Wei
) -> Quote:
    """Simulate a call on the pending block and ask what it costs.

    On the pending block, because that is where the earliest transaction would run: a contract
    that compares block numbers answers there as it will then.

    Raises
    ------
    TransactionReverted
        If the contract refuses, or the account cannot pay.
    ChainUnavailable
        If no endpoint answers, or with nonsense, or gas costs more than calls may pay under
        ``max_fee_wei``; see `cap_call_fee`.
    """
    gas_answer, balance_answer, used_answer, nonce_answer, block, tip = await client.batch(
        [
            Request("eth_estimateGas", (describe_call(sender, call), "pending")),
            Request("eth_getBalance", (to_hex(sender), "latest")),
            Request("eth_getTransactionCount", (to_hex(sender), "latest")),
            Request("eth_getTransactionCount", (to_hex(sender), "pending")),
            *_FEE_REQUESTS,
        ]
    )
    if isinstance(gas_answer, RequestRefused):
        raise explain_refusal(call.label, gas_answer)
    fees = _read_fees(block, tip, cap_call_fee(max_fee_wei))
    numerator, denominator = _GAS_HEADROOM
    gas = parse_quantity(gas_answer) * numerator // denominator
    cost = call.value_wei + gas * fees.max_fee_wei
    balance = parse_quantity(balance_answer)
    if balance < cost:
        raise TransactionReverted(
            call.label, f"the account holds {balance} wei and may need {cost}; send it some"
        )
    return Quote(
        gas=min(gas, parse_quantity(block.get("gasLimit"))),
        fees=fees,
        next_nonce=_read_next_nonce(used_answer, nonce_answer),
    )


def _read_next_nonce(used_answer: Json, next_answer: Json) -> int:
    """Read an account's next nonce. Raises ChainUnavailable if it is not to be believed.

    What is signed for a nonce far ahead waits for ever, and so does all that is signed after it.
    """
    used, following = parse_quantity(used_answer), parse_quantity(next_answer)
    if used > _MOST_USED_NONCES or following > used + _MOST_WAITING:
        raise ChainUnavailable(
            f"the endpoint says that the account's next nonce is {following}, {used} being used; "
            "no account has sent that many transactions"
        )
    return following


def cap_call_fee(max_fee_wei: Wei) -> Wei:
    """Return what calls may pay per gas: an empty transaction can outbid them within the cap."""
    return Wei(max_fee_wei * 8 // 9)


async def quote_fees(client: RpcClient, *, max_fee_wei: Wei) -> Fees:
    """Ask what gas costs. Raises ChainUnavailable, also if it is more than ``max_fee_wei``."""
    block, tip = await client.batch(_FEE_REQUESTS)
    return _read_fees(block, tip, max_fee_wei)


def _read_fees(block: Json, tip_answer: Json, max_fee_wei: Wei) -> Fees:
    if not isinstance(block, dict):
        raise ChainUnavailable("the endpoint does not know its latest block")
    tip = parse_quantity(tip_answer)
    base_fee = parse_quantity(block.get("baseFeePerGas"))
    if base_fee + tip > max_fee_wei:
        raise ChainUnavailable(
            f"the chain asks {base_fee + tip} wei per gas, and chain.sending.max_fee_wei allows "
            f"{max_fee_wei}; wait, or raise it"
        )
    return Fees(Wei(tip), Wei(min(base_fee * _BASE_FEE_HEADROOM + tip, max_fee_wei)))


def raise_fees(transaction: Transaction, market: Fees, *, max_fee_wei: Wei) -> Transaction | None:
    """Outbid a transaction, by an eighth on both fees and up to the market's; None beyond the cap.

    Nodes replace a transaction only if both fees rise by a tenth at least.
    """
    least = Fees(_add_eighth(transaction.tip_wei), _add_eighth(transaction.max_fee_wei))
    if least.max_fee_wei > max_fee_wei:
        return None
    raised = Wei(min(max(least.max_fee_wei, market.max_fee_wei), max_fee_wei))
    tip = Wei(min(max(least.tip_wei, market.tip_wei), raised))
    return replace(transaction, tip_wei=tip, max_fee_wei=raised)


def _add_eighth(fee_wei: Wei) -> Wei:
    return Wei(fee_wei + max(-(-fee_wei // 8), 1))


def describe_call(sender: Address, call: EncodedCall) -> dict[str, Json]:
    """Write a call as eth_call and eth_estimateGas take it."""
    described = {
        "from": to_hex(sender),
        "value": hex(call.value_wei),
        "data": to_hex(call.data),
    }
    return described if call.to is None else {**described, "to": to_hex(call.to)}
