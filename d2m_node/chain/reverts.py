"""Why a contract refused, in the words of its revert data."""

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from d2m_node.chain.json_rpc import RequestRefused, parse_bytes, shorten
from d2m_node.errors import ChainUnavailable, TransactionReverted

_ERROR_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)
_PANIC_SELECTOR = bytes.fromhex("4e487b71")  # Panic(uint256)
_REVERTED = 3  # JSON-RPC error code of a revert
_WORDS_OF_REFUSAL = ("revert", "insufficient funds", "out of gas", "gas required exceeds")
"""How clients say in prose that a transaction cannot succeed, as opposed to trouble of theirs."""

PANICS = {
    0x00: "generic panic",
    0x01: "assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "no such enum value",
    0x22: "storage bytes encoded wrongly",
    0x31: "pop of an empty array",
    0x32: "index out of range",
    0x41: "out of memory",
    0x51: "call of an unset function",
}
"""Causes of Solidity's Panic(uint256). Tokens and other contracts of strangers may panic."""


def decode_revert(data: bytes) -> str | None:
    """Read the reason out of a revert's data; None if it holds none.

    Our contracts say "module: cause". Of a custom error only the selector can be shown.
    """
    selector, arguments = data[:4], data[4:]
    try:
        if selector == _ERROR_SELECTOR:
            (reason,) = decode(["string"], arguments)
            return shorten(reason)
        if selector == _PANIC_SELECTOR:
            (code,) = decode(["uint256"], arguments)
            return f"panic 0x{code:02x}: {PANICS.get(code, 'unknown')}"
    except (DecodingError, ValueError, OverflowError):
        return f"unreadable: {shorten(data.hex())}"
    return f"custom error 0x{shorten(data.hex())}" if data else None


def explain_refusal(label: str, refused: RequestRefused) -> TransactionReverted | RequestRefused:
    """Tell a contract's no, or an account that cannot pay, from an endpoint's trouble."""
    message = refused.message
    is_refusal = refused.code == _REVERTED or any(
        words in message.lower() for words in _WORDS_OF_REFUSAL
    )
    reason = _read_data(refused)
    if reason is None and not is_refusal:
        return refused
    return TransactionReverted(label, reason or shorten(message))


def _read_data(refused: RequestRefused) -> str | None:
    try:
        return decode_revert(parse_bytes(refused.data))
    except ChainUnavailable:  # no data, or none in hexadecimal: the message must do
        return None
