"""The nonces of an account that are in use, and what was signed for each."""

from dataclasses import dataclass

from d2m_node.chain.bindings import EncodedCall
from d2m_node.chain.fees import Quote
from d2m_node.chain.signing import Transaction, parse_transaction, sign_transaction
from d2m_node.chain.submissions import Submission
from d2m_node.ports import SignerPort
from d2m_node.transaction_store import BlockId, StoredTransaction, TransactionState
from protocol.hashing import keccak
from protocol.types import Address, Wei

_FILLER_GAS = 21_000  # a transfer's


@dataclass(slots=True, eq=False)
class Slot:
    """One nonce, and every transaction that was signed for it; one of them may be mined."""

    nonce: int
    key: str
    attempts: list[StoredTransaction]
    submission: Submission | None
    """None where nobody is to be told: it was done, or the nonce is only filled."""
    state: TransactionState = TransactionState.OPEN
    """What it came to in `mined`; still known when a reorganisation has dropped that block."""
    mined: BlockId | None = None
    """None while it is not mined deep enough."""
    sent_block: int | None = None
    """Block at which this run last sent it; None if it has yet to."""
    first_sent_block: int | None = None
    """Block at which this run first sent anything for it."""
    is_counted: bool = False
    """It was mined before, in a block that a reorganisation may have dropped since."""
    is_underpriced: bool = False
    """An endpoint wants more for the latest attempt."""

    @property
    def latest(self) -> Transaction:
        """The transaction with the highest fees."""
        return parse_transaction(self.attempts[-1].raw)

    @property
    def label(self) -> str:
        """What it was signed for, for people."""
        return self.key if self.submission is None else self.submission.call.label

    @property
    def call(self) -> EncodedCall:
        """What the nonce was first signed for; the key must do as its label."""
        first = parse_transaction(self.attempts[0].raw)
        return EncodedCall(label=self.key, to=first.to, data=first.data, value_wei=first.value_wei)


def build_transaction(chain_id: int, nonce: int, call: EncodedCall, quote: Quote) -> Transaction:
    """Put a call into a transaction."""
    return Transaction(
        chain_id=chain_id,
        nonce=nonce,
        tip_wei=quote.fees.tip_wei,
        max_fee_wei=quote.fees.max_fee_wei,
        gas=quote.gas,
        to=call.to,
        value_wei=call.value_wei,
        data=call.data,
    )


def sign_attempt(key: str, transaction: Transaction, signer: SignerPort) -> StoredTransaction:
    """Sign a transaction and make it ready to be stored."""
    raw = sign_transaction(transaction, signer)
    return StoredTransaction(
        key=key, nonce=transaction.nonce, raw=raw, transaction_hash=keccak(raw)
    )


def make_filler(transaction: Transaction, account: Address) -> Transaction:
    """Empty a transaction: it only uses its nonce up, and sends nothing to the account itself."""
    return Transaction(
        chain_id=transaction.chain_id,
        nonce=transaction.nonce,
        tip_wei=transaction.tip_wei,
        max_fee_wei=transaction.max_fee_wei,
        gas=_FILLER_GAS,
        to=account,
        value_wei=Wei(0),
        data=b"",
    )


def is_filler(transaction: Transaction, account: Address) -> bool:
    """Tell whether a transaction only uses its nonce up."""
    return transaction.to == account and not transaction.data
