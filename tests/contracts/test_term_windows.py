"""Terms whose windows fit each other."""

from typing import Any

import boa

from tests.contracts.scenarios import appeal, decide_by, hostile, make_job
from tests.contracts.world import Job, World


def test_an_appeal_window_holds_the_seed_of_an_audit(deployers: dict[str, Any]) -> None:
    world = World(deployers, seed_delay_blocks=4)
    Job(world, changes={"appeal_blocks": 5}).prepare().open_auction()
    job = Job(world, changes={"appeal_blocks": 4}).prepare()
    with boa.reverts("terms: appeal_blocks within the seed's delay"):
        job.open_auction()


def test_nobody_pays_for_an_appeal_that_could_not_be_heard(deployers: dict[str, Any]) -> None:
    world = World(deployers, max_window_blocks=10_000)
    # One vote ends while its seed can be proved, a second one after it would not.
    windows = {"vote_commit_blocks": 80, "vote_open_blocks": 80, "appeal_blocks": 8000}
    job = make_job(world, 7, **windows)
    decide_by(job, range(3), hostile(job))
    with boa.reverts("rounds: seed out of reach"):
        appeal(job, 6)
    assert not job.ballot.is_pool_called
