"""Terms whose windows fit each other."""

from typing import Any

import boa

from tests.contracts.world import Job, World


def test_an_appeal_window_holds_the_seed_of_an_audit(deployers: dict[str, Any]) -> None:
    world = World(deployers, seed_delay_blocks=4)
    Job(world, changes={"appeal_blocks": 5}).prepare().open_auction()
    job = Job(world, changes={"appeal_blocks": 4}).prepare()
    with boa.reverts("terms: appeal_blocks within the seed's delay"):
        job.open_auction()
