from random import Random

from hypothesis import given
from hypothesis import strategies as st

from protocol.bitmap import compute_input_set, decode_bitmap, encode_bitmap


@given(st.sets(st.integers(0, 255)))
def test_a_bitmap_lists_its_indices_in_ascending_order(indices: set[int]) -> None:
    assert decode_bitmap(encode_bitmap(indices)) == tuple(sorted(indices))


def test_input_set_needs_more_than_half_of_the_recorded_bitmaps() -> None:
    recorded = [0b011, 0b001, 0b011, 0b001]
    assert compute_input_set(recorded, sampled=0b111) == 0b001


def test_input_set_ignores_sellers_that_were_not_sampled() -> None:
    assert compute_input_set([0b110, 0b110], sampled=0b010) == 0b010


def test_input_set_is_empty_without_bitmaps() -> None:
    assert compute_input_set([], sampled=0b111) == 0


@given(st.lists(st.integers(0, 255), max_size=9), st.randoms(use_true_random=False))
def test_input_set_does_not_depend_on_the_order_of_bitmaps(
    recorded: list[int], random: Random
) -> None:
    shuffled = recorded.copy()
    random.shuffle(shuffled)
    assert compute_input_set(shuffled, 0xFF) == compute_input_set(recorded, 0xFF)


@given(st.lists(st.integers(0, 255), max_size=9), st.integers(0, 255), st.integers(0, 7))
def test_input_set_is_whom_strictly_more_than_half_of_the_bitmaps_hold(
    recorded: list[int], sampled: int, seller: int
) -> None:
    is_in = compute_input_set(recorded, sampled) >> seller & 1
    holders = [bitmap for bitmap in recorded if bitmap >> seller & 1]
    has_majority = len(holders) > len(recorded) - len(holders)
    assert bool(is_in) == (has_majority and bool(sampled >> seller & 1))
