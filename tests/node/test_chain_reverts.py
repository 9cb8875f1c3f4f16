"""Reasons out of revert data, and a contract's no apart from an endpoint's trouble."""

import pytest
from eth_abi.abi import encode

from d2m_node.chain.json_rpc import RequestRefused, to_hex
from d2m_node.chain.reverts import decode_revert, explain_refusal
from d2m_node.errors import TransactionReverted

ERROR = bytes.fromhex("08c379a0")
PANIC = bytes.fromhex("4e487b71")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ERROR + encode(["string"], ["stake: amount is zero"]), "stake: amount is zero"),
        (PANIC + encode(["uint256"], [0x11]), "panic 0x11: arithmetic overflow"),
        (PANIC + encode(["uint256"], [0x99]), "panic 0x99: unknown"),
        (bytes.fromhex("deadbeef"), "custom error 0xdeadbeef"),
        (ERROR + b"\xff" * 40, "unreadable: 08c379a0" + "ff" * 40),
        (b"", None),
    ],
)
def test_revert_data_is_put_into_words(data: bytes, reason: str | None) -> None:
    assert decode_revert(data) == reason


def test_a_reason_without_end_is_cut() -> None:
    reason = decode_revert(ERROR + encode(["string"], ["a" * 10_000]))
    assert reason is not None
    assert len(reason) < 300


@pytest.mark.parametrize(
    ("code", "message", "data", "reason"),
    [
        (3, "execution reverted", to_hex(ERROR + encode(["string"], ["a: b"])), "a: b"),
        (3, "execution reverted: a: b", None, "execution reverted: a: b"),
        (-32000, "execution reverted", "0x", "execution reverted"),
        (-32000, "gas required exceeds allowance (100)", None, "gas required exceeds"),
        (-32003, "Out of gas: gas required exceeds", None, "Out of gas"),
        (-32000, "insufficient funds for transfer", None, "insufficient funds"),
        (-32015, "VM execution error", to_hex(PANIC + encode(["uint256"], [1])), "panic 0x01"),
    ],
)
def test_a_contracts_no_is_told_with_its_reason(
    code: int, message: str, data: str | None, reason: str
) -> None:
    refusal = explain_refusal("A.b", RequestRefused("eth_call", code, message, data))
    assert isinstance(refusal, TransactionReverted)
    assert refusal.call == "A.b"
    assert refusal.reason.startswith(reason)


@pytest.mark.parametrize("data", [None, {"retry": 1}, "not hexadecimal"])
def test_an_endpoints_trouble_is_no_revert(data: object) -> None:
    refused = RequestRefused("eth_call", -32000, "missing trie node", data)
    assert explain_refusal("A.b", refused) is refused
