import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.hashing import Domain, Stream, address_word, fixed_bytes, hash_domain, keccak, word
from protocol.types import Address
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
SEED = keccak(b"d2m-test-seed")
MARKET = Address(b"\x11" * 20)


def test_keccak_is_not_sha3() -> None:
    expected = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak(b"").hex() == expected


def test_stream_gives_the_recorded_words() -> None:
    assert SEED.hex() == VECTORS["prng"]["seed"]
    stream = Stream(SEED)
    assert [stream.next_word() for _ in range(5)] == VECTORS["prng"]["u64"]


def test_below_gives_the_recorded_values() -> None:
    stream = Stream(SEED)
    assert [stream.below(10) for _ in range(12)] == VECTORS["below10"]


def test_draw_gives_the_recorded_order() -> None:
    assert Stream(SEED).draw(7, 20) == VECTORS["draw7of20"]


def test_label_replaces_the_seed_by_its_domain_hash() -> None:
    labelled = Stream(SEED, "purpose")
    expected = Stream(keccak(b"D2M/v1/purpose\x00" + SEED))
    assert labelled.next_word() == expected.next_word()


@given(st.integers(0, 9), st.integers(0, 40), st.integers(1, 1 << 63))
def test_vectorised_draws_equal_single_ones(skipped: int, count: int, bound: int) -> None:
    vectorised, single = Stream(SEED), Stream(SEED)
    for _ in range(skipped):
        assert vectorised.next_word() == single.next_word()
    assert vectorised.below_many(bound, count).tolist() == [
        single.below(bound) for _ in range(count)
    ]
    # Both streams stand at the same word afterwards, rejected words included.
    assert vectorised.next_word() == single.next_word()


def test_words_that_would_bias_the_result_are_rejected() -> None:
    # A third of all words is at or above the limit of this bound.
    bound = (1 << 64) // 3 + 1
    stream, words = Stream(SEED), Stream(SEED).words(200).tolist()
    fair = [value % bound for value in words if value < 2 * bound]
    assert len(fair) < 150
    assert [stream.below(bound) for _ in range(len(fair))] == fair


@given(st.binary(min_size=32, max_size=32), st.integers(0, 60), st.integers(0, 60))
def test_draw_gives_distinct_members_of_the_pool(seed: bytes, count: int, extra: int) -> None:
    drawn = Stream(seed).draw(count, count + extra)
    assert len(set(drawn)) == count
    assert all(0 <= member < count + extra for member in drawn)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 30))
def test_drawing_fewer_gives_the_beginning_of_drawing_more(seed: bytes, count: int) -> None:
    assert Stream(seed).draw(count, 30) == Stream(seed).draw(30, 30)[:count]


def test_draw_is_uniform() -> None:
    counts = [0] * 10
    for number in range(2000):
        for member in Stream(keccak(word(number))).draw(3, 10):
            counts[member] += 1
    chi_square = sum((count - 600) ** 2 / 600 for count in counts)
    assert chi_square < 27.9  # 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize(("count", "pool_size"), [(5, 4), (-1, 4)])
def test_draw_refuses_what_the_pool_cannot_give(count: int, pool_size: int) -> None:
    with pytest.raises(ValueError, match="cannot draw"):
        Stream(SEED).draw(count, pool_size)


@pytest.mark.parametrize("bound", [0, -1, (1 << 63) + 1])
def test_below_refuses_a_bound_outside_its_range(bound: int) -> None:
    with pytest.raises(ValueError, match="bound"):
        Stream(SEED).below(bound)


def test_domain_prefix_is_chain_then_padded_market() -> None:
    assert Domain(1337, MARKET).prefix == word(1337) + bytes(12) + MARKET


def test_hash_domain_separates_name_from_content() -> None:
    assert hash_domain("a", b"b") == keccak(b"D2M/v1/a\x00b")
    assert hash_domain("a", b"b") != hash_domain("ab")


def test_inputs_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="20 bytes"):
        address_word(Address(bytes(19)))
    with pytest.raises(ValueError, match="32 bytes"):
        fixed_bytes(bytes(31))
    with pytest.raises(OverflowError):
        word(-1)
