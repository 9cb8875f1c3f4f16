"""What voters earn by the slashes of others is paid once."""

import boa

from tests.contracts.scenarios import decide_against, make_job
from tests.contracts.world import World


def test_a_reward_is_paid_once(world: World) -> None:
    job = make_job(world, cones=7)
    decide_against(job, hostile=5, silent=6)
    job.decide_round()
    voter = job.cones[0].address
    reward_wei = world.stakes.holding_of(voter).reward_wei
    assert reward_wei > 0
    before_wei = world.balance(voter)
    world.stakes.withdraw(sender=voter)
    assert world.balance(voter) == before_wei + reward_wei
    with boa.reverts("stake: nothing to withdraw"):
        world.stakes.withdraw(sender=voter)
