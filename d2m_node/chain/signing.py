"""Fee-market transactions (EIP-1559, type 2): encoding, signing, and reading them back."""

from dataclasses import dataclass

import rlp

from d2m_node.ports import SignerPort
from protocol.hashing import keccak
from protocol.types import Address, Wei

_TYPE = b"\x02"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What an account signs. ``to`` is None where a contract is created."""

    chain_id: int
    nonce: int
    tip_wei: Wei
    """Most that the block's proposer gets per gas."""
    max_fee_wei: Wei
    """Most that is paid per gas, tip included."""
    gas: int
    to: Address | None
    value_wei: Wei
    data: bytes


def sign_transaction(transaction: Transaction, signer: SignerPort) -> bytes:
    """Sign; return the bytes that eth_sendRawTransaction takes. Their Keccak-256 is the hash."""
    items = _list_items(transaction)
    signature = signer.sign_digest(keccak(_TYPE + rlp.encode(items)))
    signed = [
        *items,
        signature[64] - 27,
        int.from_bytes(signature[:32], "big"),
        int.from_bytes(signature[32:64], "big"),
    ]
    return _TYPE + bytes(rlp.encode(signed))


def parse_transaction(raw: bytes) -> Transaction:
    """Read back what `sign_transaction` wrote."""
    items = rlp.decode(raw[1:])
    chain_id, nonce, tip, max_fee, gas = (int.from_bytes(item, "big") for item in items[:5])
    return Transaction(
        chain_id=chain_id,
        nonce=nonce,
        tip_wei=Wei(tip),
        max_fee_wei=Wei(max_fee),
        gas=gas,
        to=Address(items[5]) if items[5] else None,
        value_wei=Wei(int.from_bytes(items[6], "big")),
        data=items[7],
    )


def _list_items(transaction: Transaction) -> list[object]:
    return [
        transaction.chain_id,
        transaction.nonce,
        transaction.tip_wei,
        transaction.max_fee_wei,
        transaction.gas,
        transaction.to or b"",
        transaction.value_wei,
        transaction.data,
        [],  # no access list
    ]
