"""DataRegistry: data sets by tags."""

import boa
import pytest

from tests.contracts.world import World, make_actor

A, B, C = (bytes(31) + bytes([value]) for value in (1, 2, 3))
METADATA = b"\x07" * 32


def test_data_sets_are_numbered_from_one(world: World) -> None:
    seller, other = make_actor("seller").address, make_actor("other seller").address
    assert world.data.register_dataset([A], METADATA, 0, 0, sender=seller) == 1
    assert world.data.register_dataset([A, B], METADATA, 0, 0, sender=other) == 2
    assert world.data.seller_of(1) == seller
    assert world.data.seller_of(2) == other
    assert world.data.dataset_count() == 2


def test_a_registration_is_logged_with_all_it_holds(world: World) -> None:
    seller = make_actor("seller").address
    world.data.register_dataset([A, C], METADATA, 5, 7, sender=seller)
    (event,) = world.data.get_logs()
    assert (event.dataset_id, event.seller) == (1, seller)
    assert (event.tags, event.metadata_hash) == ([A, C], METADATA)
    assert (event.min_price_wei, event.min_price_token) == (5, 7)


@pytest.mark.parametrize("tags", [[], [B, A], [A, A], [A, C, B]])
def test_tags_that_do_not_ascend_are_refused(world: World, tags: list[bytes]) -> None:
    with boa.reverts("data: tags not ascending"):
        world.data.register_dataset(tags, METADATA, 0, 0)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [([A], True), ([C], True), ([A, C], True), ([B], False), ([A, B], False), ([A, B, C], False)],
)
def test_a_data_set_has_the_tags_that_it_was_registered_with(
    world: World, asked: list[bytes], expected: bool
) -> None:
    world.data.register_dataset([A, C], METADATA, 0, 0)
    assert world.data.has_tags(1, asked) is expected


def test_an_unknown_data_set_has_no_seller_and_no_tags(world: World) -> None:
    assert int(str(world.data.seller_of(1)), 16) == 0
    assert not world.data.has_tags(1, [A])
    assert world.data.min_price_of(1, True) == world.data.min_price_of(1, False) == 0


def test_each_currency_has_its_least_price(world: World) -> None:
    world.data.register_dataset([A], METADATA, 5, 7)
    world.data.register_dataset([A], METADATA, 0, 2**256 - 1)
    assert (world.data.min_price_of(1, False), world.data.min_price_of(1, True)) == (5, 7)
    assert (world.data.min_price_of(2, False), world.data.min_price_of(2, True)) == (0, 2**256 - 1)


def test_data_sets_are_counted_by_the_rarest_tag(world: World) -> None:
    for tags in ([A], [A, B], [A, B], [A, C]):
        world.data.register_dataset(tags, METADATA, 0, 0)
    assert world.data.count_of([A]) == 4
    assert world.data.count_of([B]) == 2
    assert world.data.count_of([A, B]) == 2
    # No data set carries both: the count is an upper bound.
    assert world.data.count_of([B, C]) == 1
    assert world.data.count_of([A, bytes(31) + b"\x09"]) == 0
    assert world.data.count_of([]) == 0


def test_a_registration_that_is_refused_counts_nothing(world: World) -> None:
    with boa.reverts("data: tags not ascending"):
        world.data.register_dataset([B, A], METADATA, 0, 0)
    assert (world.data.count_of([A]), world.data.count_of([B])) == (0, 0)
