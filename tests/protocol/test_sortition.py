import math
from collections.abc import Sequence
from itertools import pairwise

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
    decode_mini,
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


def test_a_ticket_at_the_threshold_waits_for_the_next_set() -> None:
    threshold = compute_threshold(4, 10)
    assert compute_first_mini_round(threshold - 1, (4, 10), 10) == 0
    assert compute_first_mini_round(threshold, (4, 10), 10) == 1


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


def ticket_of(node: int, ballot: int) -> int:
    """The ticket of a node with a chain of its own."""
    element = keccak(word(node) + word(ballot))
    return compute_ticket(Address(node.to_bytes(20, "big")), element, keccak(word(ballot)))


def chi_square(counts: Sequence[int], expected: Sequence[float]) -> float:
    return sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True))


CHI_SQUARE_LIMIT = {9: 33.7, 19: 50.8}
"""Exceeded once in 10,000 times, by degrees of freedom."""


def test_tickets_are_uniform() -> None:
    counts = [0] * 10
    for ballot in range(300):
        for node in range(20):
            counts[ticket_of(node, ballot) * 10 // TICKET_RANGE] += 1
    assert chi_square(counts, [600] * 10) < CHI_SQUARE_LIMIT[9]


def test_every_node_is_drawn_by_ticket_as_often_as_any_other() -> None:
    threshold = compute_threshold(8, 20)
    counts = [
        sum(ticket_of(node, ballot) < threshold for ballot in range(300)) for node in range(20)
    ]
    # Each count is binomial: its variance is 0.6 of its mean, of a multinomial it would be 0.95.
    assert chi_square(counts, [120] * 20) < CHI_SQUARE_LIMIT[19] * 0.6


def test_sizes_of_ticket_sets_are_binomial() -> None:
    threshold, trials = compute_threshold(8, 20), 600
    observed = [0] * 21
    for ballot in range(trials):
        observed[sum(ticket_of(node, ballot) < threshold for node in range(20))] += 1
    expected = [trials * math.comb(20, k) * 0.4**k * 0.6 ** (20 - k) for k in range(21)]
    # Ten classes: up to 4, 5 to 11 one by one, 12, and from 13 on.
    cuts = [slice(0, 5), *(slice(k, k + 1) for k in range(5, 13)), slice(13, 21)]
    counts, means = ([sum(numbers[cut]) for cut in cuts] for numbers in (observed, expected))
    assert chi_square(counts, means) < CHI_SQUARE_LIMIT[9]


def test_every_node_is_drawn_in_public_as_often_as_any_other() -> None:
    counts, trials = [0] * 20, 600
    for ballot in range(trials):
        for node in draw_execution_set(keccak(word(ballot)), range(20), [], 8):
            counts[node] += 1
    # Without replacement a count varies by 0.6 * 20/19 of what a multinomial one does.
    assert chi_square(counts, [trials * 0.4] * 20) < CHI_SQUARE_LIMIT[19] * 0.65


def test_places_in_a_public_draw_are_uniform() -> None:
    firsts = [draw_execution_set(keccak(word(i)), range(10), [], 3)[0] for i in range(2000)]
    counts = [firsts.count(node) for node in range(10)]
    assert chi_square(counts, [200] * 10) < CHI_SQUARE_LIMIT[9]


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 20))
def test_ticket_sets_are_nested_and_end_with_everybody(
    ballot: int, pool_size: int, first: int
) -> None:
    sizes = compute_set_sizes(pool_size, first, 3, 2)
    tickets = [ticket_of(node, ballot) for node in range(pool_size)]
    sets = [
        {node for node, ticket in enumerate(tickets) if ticket < compute_threshold(size, pool_size)}
        for size in sizes
    ]
    assert all(smaller <= larger for smaller, larger in pairwise(sets))
    assert len(sets[-1]) == pool_size
    for node, ticket in enumerate(tickets):
        mini_round = compute_first_mini_round(ticket, sizes, pool_size)
        assert [node in members for members in sets].index(True) == mini_round


def test_different_seeds_draw_different_sets() -> None:
    public = {draw_execution_set(keccak(word(i)), POOL, [], 25) for i in range(50)}
    assert len(public) == 50
    threshold = compute_threshold(25, 50)
    private = {
        frozenset(node for node in POOL if ticket_of(node, ballot) < threshold)
        for ballot in range(50)
    }
    assert len(private) == 50


def test_nodes_that_share_a_chain_have_tickets_of_their_own() -> None:
    seed = keccak(b"seed")
    nodes = [Address(bytes([number]) * 20) for number in range(1, 30)]
    tickets = {compute_ticket(node, SECRET, seed) for node in nodes}
    assert len(tickets) == len(nodes)


@pytest.mark.parametrize("number", range(1, 6))
def test_an_element_of_another_chain_is_refused(number: int) -> None:
    other = compute_ticket_chain(keccak(b"other"), 5)
    assert not is_element_of_chain(
        other.element(number), number, compute_ticket_chain(SECRET, 5).root
    )


@given(st.sampled_from(BallotKind), st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1))
def test_mini_can_be_read_back(kind: BallotKind, attempt: int, mini_round: int) -> None:
    assert decode_mini(encode_mini(kind, attempt, mini_round)) == (kind, attempt, mini_round)
