"""DataRegistry: data sets by tags."""

import boa
import pytest

from tests.contracts.world import World, make_actor

A, B, C = (bytes(31) + bytes([value]) for value in (1, 2, 3))
METADATA = b"\x07" * 32


def test_data_sets_are_numbered_from_one(world: World) -> None:
    seller, other = make_actor("seller").address, make_actor("other seller").address
    assert world.data.register_dataset([A], METADATA, sender=seller) == 1
    assert world.data.register_dataset([A, B], METADATA, sender=other) == 2
    assert world.data.seller_of(1) == seller
    assert world.data.seller_of(2) == other
    assert world.data.dataset_count() == 2


def test_a_registration_is_logged_with_all_it_holds(world: World) -> None:
    seller = make_actor("seller").address
    world.data.register_dataset([A, C], METADATA, sender=seller)
    (event,) = world.data.get_logs()
    assert (event.dataset_id, event.seller) == (1, seller)
    assert (event.tags, event.metadata_hash) == ([A, C], METADATA)


@pytest.mark.parametrize("tags", [[], [B, A], [A, A], [A, C, B]])
def test_tags_that_do_not_ascend_are_refused(world: World, tags: list[bytes]) -> None:
    with boa.reverts("data: tags not ascending"):
        world.data.register_dataset(tags, METADATA)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [([A], True), ([C], True), ([A, C], True), ([B], False), ([A, B], False), ([A, B, C], False)],
)
def test_a_data_set_has_the_tags_that_it_was_registered_with(
    world: World, asked: list[bytes], expected: bool
) -> None:
    world.data.register_dataset([A, C], METADATA)
    assert world.data.has_tags(1, asked) is expected


def test_an_unknown_data_set_has_no_seller_and_no_tags(world: World) -> None:
    assert int(str(world.data.seller_of(1)), 16) == 0
    assert not world.data.has_tags(1, [A])
