"""Headers rebuilt from JSON-RPC, against a block of anvil 1.7.1 as it was recorded."""

from typing import Any

import pytest
import rlp

from d2m_node.chain.blocks import (
    Block,
    compute_bloom_masks,
    may_hold_logs,
    parse_block,
    parse_header,
)
from d2m_node.errors import ChainUnavailable
from protocol.hashing import keccak
from protocol.types import Address, BlockNumber

EMPTY_ROOT = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
RECORDED: dict[str, Any] = {
    "hash": "0xd2875a13f9275c352449c174f9a440ec5441a778cf9baa81d32f49eebae69404",
    "parentHash": "0xb57d675057f2bc0f72132c97726b9b58b57547c0b202af501d6768d2a20c54ce",
    "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
    "miner": "0x" + "00" * 20,
    "stateRoot": "0x631499dfcde1f8c0bc5dbbb57f447dfaaa9f221405a4e7518771dd93df1a9dd0",
    "transactionsRoot": EMPTY_ROOT,
    "receiptsRoot": EMPTY_ROOT,
    "logsBloom": "0x" + "00" * 256,
    "difficulty": "0x0",
    "number": "0x4",
    "gasLimit": "0x1c9c380",
    "gasUsed": "0x0",
    "timestamp": "0x6b040cca",
    "extraData": "0x",
    "mixHash": "0xd7812c8751a5b880210111e3c0b8a57dcc9a2f4cc0e9e5ac04b3793401bb80e9",
    "nonce": "0x0000000000000000",
    "baseFeePerGas": "0x27ee3253",
    "withdrawalsRoot": EMPTY_ROOT,
    "blobGasUsed": "0x0",
    "excessBlobGas": "0x0",
    "parentBeaconBlockRoot": "0x" + "00" * 32,
    "requestsHash": "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "totalDifficulty": "0x0",
    "size": "0x267",
    "uncles": [],
    "transactions": [],
    "withdrawals": [],
}


def test_a_recorded_header_hashes_to_its_block() -> None:
    header = parse_header(RECORDED)
    assert keccak(header.rlp).hex() == RECORDED["hash"][2:]
    assert header.randomness.hex() == RECORDED["mixHash"][2:]
    assert rlp.decode(header.rlp)[13] == header.randomness


@pytest.mark.parametrize("field", ["mixHash", "parentHash", "number", "timestamp", "requestsHash"])
def test_a_header_with_a_changed_field_is_refused(field: str) -> None:
    last = "1" if RECORDED[field][-1] == "0" else "0"
    with pytest.raises(ChainUnavailable, match="does not hash"):
        parse_header({**RECORDED, field: RECORDED[field][:-1] + last})


@pytest.mark.parametrize("answer", [None, [], {}, {**RECORDED, "hash": "0x12"}])
def test_what_is_no_block_is_the_endpoints_fault(answer: Any) -> None:
    with pytest.raises(ChainUnavailable):
        parse_header(answer)


def test_a_bloom_without_our_contracts_rules_logs_out() -> None:
    ours, other = Address(b"\x01" * 20), Address(b"\x02" * 20)
    (bloom,) = compute_bloom_masks([ours])
    block = Block(number=BlockNumber(1), block_hash=b"", parent_hash=b"", bloom=bloom)
    assert may_hold_logs(block, compute_bloom_masks([other, ours]))
    assert not may_hold_logs(block, compute_bloom_masks([other]))
    assert not may_hold_logs(parse_block(RECORDED), compute_bloom_masks([ours, other]))
