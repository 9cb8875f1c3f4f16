from random import Random

from hypothesis import given
from hypothesis import strategies as st

from protocol.bitmap import (
    BitmapStatement,
    compute_input_set,
    decode_bitmap,
    encode_bitmap,
    group_statements,
    list_statements,
)


@given(st.sets(st.integers(0, 255)))
def test_a_bitmap_lists_its_indices_in_ascending_order(indices: set[int]) -> None:
    assert decode_bitmap(encode_bitmap(indices)) == tuple(sorted(indices))


def test_what_half_of_the_pool_lacks_is_not_used() -> None:
    lacking_seller_1 = [0b101, 0b101]
    assert compute_input_set(lacking_seller_1, sampled=0b111, pool_size=4) == 0b101
    assert compute_input_set(lacking_seller_1, sampled=0b111, pool_size=5) == 0b111


def test_input_set_ignores_sellers_that_were_not_sampled() -> None:
    assert compute_input_set([0b110, 0b110], sampled=0b010, pool_size=2) == 0b010


def test_silence_means_holding() -> None:
    assert compute_input_set([], sampled=0b111, pool_size=5) == 0b111


BITMAPS = st.lists(st.integers(0, 255), max_size=9)


@given(BITMAPS, st.integers(1, 64), st.randoms(use_true_random=False))
def test_input_set_does_not_depend_on_the_order_of_bitmaps(
    recorded: list[int], pool_size: int, random: Random
) -> None:
    shuffled = recorded.copy()
    random.shuffle(shuffled)
    expected = compute_input_set(recorded, 0xFF, pool_size)
    assert compute_input_set(shuffled, 0xFF, pool_size) == expected


@given(BITMAPS, st.integers(0, 255), st.integers(0, 7), st.integers(9, 64))
def test_input_set_is_what_strictly_more_than_half_of_the_pool_do_not_lack(
    recorded: list[int], sampled: int, seller: int, pool_size: int
) -> None:
    is_in = compute_input_set(recorded, sampled, pool_size) >> seller & 1
    lacking = [bitmap for bitmap in recorded if not bitmap >> seller & 1]
    has_majority = pool_size - len(lacking) > len(lacking)
    assert bool(is_in) == (has_majority and bool(sampled >> seller & 1))


@given(BITMAPS, st.integers(0, 255), st.integers(9, 64))
def test_saying_that_one_holds_everything_changes_nothing(
    recorded: list[int], sampled: int, pool_size: int
) -> None:
    expected = compute_input_set(recorded, sampled, pool_size)
    assert compute_input_set([*recorded, 0xFF], sampled, pool_size) == expected


statements = st.builds(
    BitmapStatement,
    cone_index=st.integers(0, 63),
    bitmap=st.integers(0, 3) | st.integers(0, (1 << 256) - 1),
    r=st.binary(min_size=32, max_size=32),
    vs=st.binary(min_size=32, max_size=32),
)


@given(st.lists(statements, max_size=64, unique_by=lambda one: one.cone_index))
def test_grouped_statements_are_the_same_statements(told: list[BitmapStatement]) -> None:
    groups, signatures = group_statements(told)
    assert len(groups) == len({one.bitmap for one in told})
    assert len(signatures) == len(told)
    listed = list_statements(groups, signatures)
    assert sorted(listed, key=lambda one: one.cone_index) == sorted(
        told, key=lambda one: one.cone_index
    )


def test_equal_statements_share_one_group() -> None:
    told = [
        BitmapStatement(cone_index=index, bitmap=bitmap, r=bytes([index]) * 32, vs=bytes(32))
        for index, bitmap in ((4, 0b11), (1, 0b11), (2, 0b01))
    ]
    groups, signatures = group_statements(told)
    assert groups == ((0b00100, 0b01), (0b10010, 0b11))
    assert [r[0] for r, _ in signatures] == [2, 1, 4]


def test_what_is_left_over_of_a_logged_group_is_dropped() -> None:
    signature = (bytes(32), bytes(32))
    assert list_statements([(0b11, 1)], []) == ()
    assert list_statements([], [signature]) == ()
    (kept,) = list_statements([(0b110, 5), (0b1, 6)], [signature])
    assert (kept.cone_index, kept.bitmap) == (1, 5)
    everybody = (1 << 256) - 1
    assert len(list_statements([(everybody, 0)] * 64, [signature] * 64)) == 64
