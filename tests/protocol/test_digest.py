from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import (
    MAX_SELLERS,
    NO_UTILITY,
    FinalResult,
    RoundHeader,
    add_credits,
    compute_credit_leaf,
    compute_credit_root,
    compute_sampler_digest,
    compute_trace,
    decode_sampler_state,
    encode_distances,
    encode_sampler_state,
)
from protocol.errors import InvalidMessage
from protocol.hashing import Domain, keccak, word
from protocol.merkle import compute_root
from protocol.model import MAX_PARAMETERS
from protocol.types import Address, Digest, JobId, RoundIndex, UtilityQ20
from protocol.update import MAX_UPDATE

DOMAIN = Domain(1337, Address(b"\x11" * 20))
HEADER = RoundHeader(
    job=JobId(7),
    round_index=RoundIndex(3),
    model_digest=keccak(b"model"),
    sampler_digest=keccak(b"sampler"),
    sampled=0b10110,
    available=0b00110,
    accepted=0b00010,
    utility_before=UtilityQ20(-5),
    utility_after=UtilityQ20(900_000),
    utilities=(UtilityQ20(12), NO_UTILITY, NO_UTILITY),
    domain=DOMAIN,
    previous_digest=keccak(b"previous"),
    credit_root=keccak(b"credits"),
    credit_sum=13,
)
RESULT = FinalResult(
    domain=DOMAIN,
    job=JobId(7),
    round_index=RoundIndex(3),
    model_digest=keccak(b"model"),
    initial_utility=UtilityQ20(-1),
    utility=UtilityQ20(900_000),
)
WORD = st.integers(0, (1 << 256) - 1)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1).map(UtilityQ20)
DIGEST = st.binary(min_size=32, max_size=32).map(Digest)


@st.composite
def headers(draw: st.DrawFn) -> RoundHeader:
    sampled = draw(WORD)
    count = sampled.bit_count()
    return RoundHeader(
        job=JobId(draw(WORD)),
        round_index=RoundIndex(draw(WORD)),
        model_digest=draw(DIGEST),
        sampler_digest=draw(DIGEST),
        sampled=sampled,
        available=draw(WORD),
        accepted=draw(WORD),
        utility_before=draw(INT64),
        utility_after=draw(INT64),
        utilities=tuple(draw(st.lists(INT64, min_size=count, max_size=count))),
        domain=Domain(draw(WORD), Address(draw(st.binary(min_size=20, max_size=20)))),
        previous_digest=draw(DIGEST),
        credit_root=draw(DIGEST),
        credit_sum=draw(WORD),
    )


@given(headers())
def test_decoding_a_header_undoes_encoding(header: RoundHeader) -> None:
    assert RoundHeader.decode(header.encode()) == header


def test_the_header_is_the_specified_bytes() -> None:
    assert HEADER.encode() == (
        b"D2M/v1/hdr"
        + word(7)
        + word(3)
        + keccak(b"model")
        + keccak(b"sampler")
        + word(0b10110)
        + word(0b00110)
        + word(0b00010)
        + (-5).to_bytes(8, "big", signed=True)
        + (900_000).to_bytes(8, "big")
        + (12).to_bytes(8, "big")
        + 2 * (-(1 << 62)).to_bytes(8, "big", signed=True)
        + word(1337)
        + bytes(12)
        + DOMAIN.market
        + keccak(b"previous")
        + keccak(b"credits")
        + word(13)
    )
    assert HEADER.digest == keccak(HEADER.encode())


@given(st.binary(max_size=60))
def test_hostile_bytes_are_no_header(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        RoundHeader.decode(data)
    with pytest.raises(InvalidMessage):
        RoundHeader.decode(b"D2M/v1/hdr" + data)


def test_a_changed_header_is_refused_or_has_another_digest() -> None:
    data = HEADER.encode()
    market_offset = len(data) - 4 * 32
    padded = data[:market_offset] + b"\x01" + data[market_offset + 1 :]
    for changed in (data[:-1], data + b"\x00", b"X" + data[1:], padded):
        with pytest.raises(InvalidMessage):
            RoundHeader.decode(changed)
    assert replace(HEADER, credit_sum=14).digest != HEADER.digest


def test_a_header_needs_one_utility_per_sampled_seller() -> None:
    with pytest.raises(ValueError, match="utilities"):
        replace(HEADER, utilities=()).encode()


def test_decoding_a_final_result_undoes_encoding() -> None:
    assert FinalResult.decode(RESULT.encode()) == RESULT
    assert RESULT.digest == keccak(RESULT.encode())


def test_a_changed_final_result_is_refused() -> None:
    data = RESULT.encode()
    padded = data[:43] + b"\x01" + data[44:]
    for changed in (data[:-1], data + b"\x00", b"X" + data[1:], padded, b""):
        with pytest.raises(InvalidMessage):
            FinalResult.decode(changed)


@given(st.lists(st.integers(0, 1 << 30), max_size=9))
def test_sampler_state_survives_its_encoding(state: list[int]) -> None:
    data = encode_sampler_state(state)
    assert data == b"".join(value.to_bytes(8, "big") for value in state)
    assert decode_sampler_state(data, len(state)) == tuple(state)
    assert compute_sampler_digest(state) == keccak(data)
    with pytest.raises(InvalidMessage):
        decode_sampler_state(data, len(state) + 1)


def test_trace_hashes_seed_logits_distances_and_state() -> None:
    seed = keccak(b"seed")
    logits = np.array([[[1, -2]], [[3, 4]]], dtype=np.int64)
    expected = keccak(
        seed
        + b"".join(value.to_bytes(8, "big", signed=True) for value in (1, -2, 3, 4))
        + (9).to_bytes(8, "big")
        + encode_sampler_state([5, 6])
    )
    assert compute_trace(seed, logits, encode_distances([9], 100), [5, 6]) == expected


def test_distances_of_large_models_take_sixteen_bytes() -> None:
    largest_small, smallest_large = 1 << 21, (1 << 21) + 1
    distance = largest_small * (2 * MAX_UPDATE) ** 2
    assert encode_distances([distance, 1], largest_small) == (
        distance.to_bytes(8, "big") + (1).to_bytes(8, "big")
    )
    assert encode_distances([1], smallest_large) == (1).to_bytes(16, "big")
    largest = MAX_PARAMETERS * (2 * MAX_UPDATE) ** 2
    assert encode_distances([largest], MAX_PARAMETERS) == largest.to_bytes(16, "big")


def test_a_distance_that_int64_cannot_hold_is_not_cut_off() -> None:
    with pytest.raises(OverflowError):
        encode_distances([1 << 63], 1 << 21)


def test_the_trace_of_one_mini_round_does_not_fit_the_next() -> None:
    logits = np.zeros((1, 1, 2), dtype=np.int64)
    traces = {compute_trace(keccak(word(mini)), logits, b"", [1]) for mini in range(3)}
    assert len(traces) == 3


def test_accepted_sellers_gain_one_credit() -> None:
    assert add_credits((3, 0, 1), accepted=0b101) == (4, 0, 2)
    with pytest.raises(ValueError, match="seller 3"):
        add_credits((3, 0, 1), accepted=0b1000)


def test_credit_root_is_the_tree_over_all_sellers_claims() -> None:
    payees = [Address(bytes([index]) * 20) for index in range(3)]
    leaves = [compute_credit_leaf(index, payees[index], 5 - index) for index in range(3)]
    assert compute_credit_root(payees, [5, 4, 3]) == compute_root(leaves)
    assert leaves[1] == keccak(b"D2M/v1/credit\0" + word(1) + bytes(12) + payees[1] + word(4))


def test_the_header_of_the_largest_round_is_one_that_the_contract_takes() -> None:
    everyone = (1 << MAX_SELLERS) - 1
    header = replace(
        HEADER,
        sampled=everyone,
        available=everyone,
        accepted=everyone,
        utilities=(UtilityQ20(-1),) * MAX_SELLERS,
        credit_sum=1000 * MAX_SELLERS,
    )
    data = header.encode()
    assert RoundHeader.decode(data) == header
    assert len(data) <= 4096
