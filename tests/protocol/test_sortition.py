import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.hashing import Domain, keccak, word
from protocol.sortition import (
    TICKET_RANGE,
    BallotKind,
    compute_es_seed,
    compute_fin_seed,
    compute_first_mini_round,
    compute_seller_seed,
    compute_set_sizes,
    compute_subset_seed,
    compute_threshold,
    compute_ticket,
    compute_ticket_chain,
    draw_execution_set,
    encode_mini,
    is_element_of_chain,
)
from protocol.types import Address, JobId, RoundIndex
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
DOMAIN = Domain(1337, Address(b"\x11" * 20))
JOB, ROUND = JobId(7), RoundIndex(3)
POOL = range(50)
SECRET = keccak(b"secret")
NODE = Address(b"\x01" * 20)


def test_es_seed_and_public_draw_are_the_recorded_ones() -> None:
    first = compute_es_seed(DOMAIN, JOB, ROUND, 0, b"\x22" * 32)
    assert first.hex() == VECTORS["es_seed"]["seed"]
    members = draw_execution_set(first, POOL, [], 25)
    assert list(members) == VECTORS["es"]["mini0"]
    second = compute_es_seed(DOMAIN, JOB, ROUND, 1, b"\x33" * 32)
    assert list(draw_execution_set(second, POOL, members, 38)) == VECTORS["es"]["mini1"]


def test_seeds_of_different_purposes_differ() -> None:
    randomness = b"\x22" * 32
    parts = DOMAIN.prefix + word(7)
    seeds = {
        "sellers": compute_seller_seed(DOMAIN, JOB, ROUND, randomness),
        "val": compute_subset_seed(DOMAIN, JOB, ROUND, randomness),
    }
    for name, seed in seeds.items():
        expected = keccak(f"D2M/v1/{name}\0".encode() + parts + word(3) + randomness)
        assert seed == expected
    split = compute_fin_seed(DOMAIN, JOB, randomness)
    assert split == keccak(b"D2M/v1/fin-split\0" + parts + randomness)


@pytest.mark.parametrize(("pool_size", "sizes"), VECTORS["schedule"].items())
def test_set_sizes_are_the_recorded_ones(pool_size: str, sizes: list[int]) -> None:
    assert list(compute_set_sizes(int(pool_size), 25, 3, 2)) == sizes


@given(st.integers(1, 300), st.integers(1, 50), st.integers(1, 20), st.integers(1, 20))
def test_sets_grow_until_they_are_the_pool(
    pool_size: int, first: int, denominator: int, more: int
) -> None:
    sizes = compute_set_sizes(pool_size, first, denominator + more, denominator)
    assert sizes[0] == min(pool_size, first)
    assert sizes[-1] == pool_size
    assert list(sizes) == sorted(set(sizes))


@pytest.mark.parametrize(
    ("pool_size", "first", "numerator", "denominator"),
    [(5, 4, 2, 2), (5, 4, 1, 2), (0, 4, 3, 2), (5, 0, 3, 2)],
)
def test_sets_that_could_not_grow_are_refused(
    pool_size: int, first: int, numerator: int, denominator: int
) -> None:
    with pytest.raises(ValueError, match="must"):
        compute_set_sizes(pool_size, first, numerator, denominator)


def test_mini_holds_kind_attempt_and_mini_round() -> None:
    assert encode_mini(BallotKind.ROUND, 0, 2) == 2
    assert encode_mini(BallotKind.FINAL, 1, 2) == (1 << 32) + (1 << 16) + 2
    with pytest.raises(ValueError, match="16 bits"):
        encode_mini(BallotKind.ROUND, 0, 1 << 16)


def test_each_chain_element_hashes_to_the_root_in_as_many_steps_as_its_number() -> None:
    chain = compute_ticket_chain(SECRET, 5)
    assert chain.length == 5
    assert chain.element(5) == SECRET
    for number in range(1, 6):
        assert is_element_of_chain(chain.element(number), number, chain.root)
        assert not is_element_of_chain(chain.element(number), number - 1, chain.root)


@pytest.mark.parametrize("number", [0, 6, -1])
def test_a_chain_gives_no_element_beyond_its_ballots(number: int) -> None:
    with pytest.raises(IndexError):
        compute_ticket_chain(SECRET, 5).element(number)


def test_ticket_binds_node_element_and_seed() -> None:
    seed = keccak(b"seed")
    expected = keccak(b"D2M/v1/ticket\0" + bytes(12) + NODE + SECRET + seed)
    assert compute_ticket(NODE, SECRET, seed) == int.from_bytes(expected, "big")
    other = Address(b"\x02" * 20)
    assert compute_ticket(other, SECRET, seed) != compute_ticket(NODE, SECRET, seed)


@given(st.integers(0, TICKET_RANGE - 1), st.integers(1, 60))
def test_every_ticket_is_drawn_in_exactly_one_mini_round(ticket: int, pool_size: int) -> None:
    sizes = compute_set_sizes(pool_size, 4, 3, 2)
    mini_round = compute_first_mini_round(ticket, sizes, pool_size)
    assert ticket < compute_threshold(sizes[mini_round], pool_size)
    if mini_round:
        assert ticket >= compute_threshold(sizes[mini_round - 1], pool_size)


def test_a_schedule_that_leaves_nodes_out_is_refused() -> None:
    with pytest.raises(ValueError, match="whole pool"):
        compute_first_mini_round(TICKET_RANGE - 1, [3], 4)


def test_first_sets_have_the_expected_size_on_average() -> None:
    sizes = compute_set_sizes(20, 8, 3, 2)
    drawn = sum(
        compute_first_mini_round(
            compute_ticket(Address(node.to_bytes(20, "big")), SECRET, keccak(word(ballot))),
            sizes,
            20,
        )
        == 0
        for ballot in range(100)
        for node in range(20)
    )
    # Binomial(2000, 0.4): mean 800, deviation 22.
    assert abs(drawn - 800) < 4 * 22


@given(st.binary(min_size=32, max_size=32), st.integers(1, 49))
def test_publicly_drawn_sets_are_nested_and_distinct(seed: bytes, size: int) -> None:
    first = draw_execution_set(keccak(seed), POOL, [], size)
    rest = draw_execution_set(keccak(seed + b"1"), POOL, first, 50)
    assert sorted(first + rest) == list(POOL)
