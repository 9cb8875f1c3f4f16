"""Terms whose windows fit each other: votes can be opened, decisions can be audited."""

from typing import Any

import boa
import pytest

from tests.contracts.world import Job, World

REACH = 8191
"""Blocks for which a chain proves a seed (EIP-2935)."""


def longest_windows(most: int, **changes: int) -> dict[str, int]:
    """Terms in which one vote commits as long as it may."""
    # From 4 nodes to 64 by a half: 6, 9, 14, 21, 32, 48, 64. With the first set and the call of the
    # whole pool these are nine times two windows, a wait for the tally and a seed's delay.
    fixed = {"vote_open_blocks": 3, "header_blocks": 20, "appeal_blocks": 2}
    return {**fixed, "vote_commit_blocks": (most - 2) // 9 - 24, **changes}


def test_votes_that_could_not_be_opened_any_more_are_refused(deployers: dict[str, Any]) -> None:
    world = World(deployers, max_window_blocks=100_000)
    Job(world, changes=longest_windows(REACH)).prepare().open_auction()
    job = Job(world, changes=longest_windows(REACH + 9))
    with boa.reverts("terms: votes outlast their seed"):
        job.prepare().open_auction()


@pytest.mark.parametrize(("growth", "is_fast"), [((64, 63), False), ((1000, 1), True)])
def test_slow_growth_makes_votes_last_longer(
    world: World, growth: tuple[int, int], is_fast: bool
) -> None:
    windows = ("vote_commit_blocks", "vote_open_blocks", "header_blocks", "appeal_blocks")
    numerator, denominator = growth
    sizes = {
        "first_set_size": 1,
        "growth_numerator": numerator,
        "growth_denominator": denominator,
    }
    job = Job(world, changes={**dict.fromkeys(windows, 100), **sizes}).prepare()
    if is_fast:
        job.open_auction()
    else:
        with boa.reverts("terms: votes outlast their seed"):
            job.open_auction()


def test_an_appeal_window_holds_the_seed_of_an_audit(deployers: dict[str, Any]) -> None:
    world = World(deployers, seed_delay_blocks=4)
    Job(world, changes={"appeal_blocks": 5}).prepare().open_auction()
    job = Job(world, changes={"appeal_blocks": 4}).prepare()
    with boa.reverts("terms: appeal_blocks within the seed's delay"):
        job.open_auction()
