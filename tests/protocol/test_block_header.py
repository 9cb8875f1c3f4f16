"""Randomness out of a block's header, by the vector that the contract is tested with too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.block_header import (
    FIRST_NUMBER_AT,
    compute_anchor_block,
    read_randomness,
    read_timestamp,
)
from protocol.errors import InvalidMessage, ProtocolError, RuleViolation
from protocol.hashing import keccak
from protocol.types import BlockNumber, Digest
from tests.protocol.vectors import load_vectors

CASE = load_vectors("block_header")
HEADER = bytes.fromhex(CASE["rlp"][2:])
HASH = Digest(bytes.fromhex(CASE["hash"][2:]))
MIX_HASH = bytes.fromhex(CASE["mix_hash"][2:])


def test_randomness_of_a_header_of_a_real_client() -> None:
    assert read_randomness(HEADER, HASH) == MIX_HASH


def test_the_timestamp_of_a_header_of_a_real_client() -> None:
    # Prefix of four bytes of seconds, before the extra data.
    before = swap_extra_data(b"").index(HEADER[HEADER.index(MIX_HASH) - 1 :])
    assert read_timestamp(HEADER) == int.from_bytes(HEADER[before - 4 : before], "big")
    assert 1_500_000_000 < read_timestamp(HEADER) < 2_500_000_000


@pytest.mark.parametrize(
    ("field", "seconds"),
    [(b"\x80", 0), (b"\x07", 7), (b"\x81\xff", 255), (b"\x88" + b"\xff" * 8, 2**64 - 1)],
)
def test_a_timestamp_of_any_length_is_read(field: bytes, seconds: int) -> None:
    header = bytes(FIRST_NUMBER_AT) + b"\x80\x01\x01\x01" + field + b"\x80"
    assert read_timestamp(header) == seconds


@pytest.mark.parametrize("field", [b"", b"\x84abc", b"\x89" + bytes(9), b"\xb8\x40" + bytes(64)])
def test_a_header_without_a_timestamp_is_refused(field: bytes) -> None:
    with pytest.raises(InvalidMessage):
        read_timestamp(bytes(FIRST_NUMBER_AT) + b"\x80\x01\x01\x01" + field)


def test_a_header_of_another_block_is_refused() -> None:
    with pytest.raises(RuleViolation, match="not of block"):
        read_randomness(HEADER, keccak(b"another block"))
    with pytest.raises(RuleViolation, match="not of block"):
        read_randomness(HEADER[:-1] + b"\x00", HASH)


def swap_extra_data(extra: bytes) -> bytes:
    """The same header with other extra data, encoded by hand."""
    before = HEADER.index(MIX_HASH) - 1
    position = FIRST_NUMBER_AT
    for _ in range(5):
        prefix = HEADER[position]
        position += 1 if prefix < 0x80 else 1 + prefix - 0x80
    return HEADER[:position] + extra + HEADER[before:]


def test_extra_data_of_a_chain_that_signs_there_is_skipped() -> None:
    for extra in (b"\x80", b"\x05", b"\x83abc", b"\xb8\xff" + bytes(255)):
        header = swap_extra_data(extra)
        assert read_randomness(header, keccak(header)) == MIX_HASH


@pytest.mark.parametrize("extra", [b"\xb9\x01\x00" + bytes(256), b"\xc0"])
def test_a_field_of_another_kind_of_chain_is_refused(extra: bytes) -> None:
    header = swap_extra_data(extra)
    with pytest.raises(InvalidMessage, match="too long"):
        read_randomness(header, keccak(header))


def test_a_header_without_a_mix_hash_is_refused() -> None:
    header = HEADER.replace(b"\xa0" + MIX_HASH, b"\x9f" + MIX_HASH)
    with pytest.raises(InvalidMessage, match="no mix hash"):
        read_randomness(header, keccak(header))


@given(st.integers(0, len(HEADER) - 1))
def test_a_header_that_ends_early_is_refused(length: int) -> None:
    # The mix hash may be whole although what follows it is cut off.
    header = HEADER[:length]
    if length >= HEADER.index(MIX_HASH) + 32:
        assert read_randomness(header, keccak(header)) == MIX_HASH
    else:
        with pytest.raises(ProtocolError):
            read_randomness(header, keccak(header))


@pytest.mark.parametrize(
    ("head", "anchor"), [(101, 100), (356, 100), (357, 356), (612, 356), (613, 612)]
)
def test_a_seed_moves_on_only_when_its_block_is_out_of_reach(head: int, anchor: int) -> None:
    found = compute_anchor_block(BlockNumber(100), BlockNumber(head), 256)
    assert found == anchor


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.sampled_from([256, 8191]))
def test_an_anchor_is_always_mined_and_in_reach(seed: int, later: int, reach: int) -> None:
    head = seed + later
    anchor = compute_anchor_block(BlockNumber(seed), BlockNumber(head), reach)
    assert 1 <= head - anchor <= reach
    assert (anchor - seed) % reach == 0


def test_a_seed_block_that_is_not_mined_is_refused() -> None:
    with pytest.raises(RuleViolation, match="not mined"):
        compute_anchor_block(BlockNumber(100), BlockNumber(100), 256)
