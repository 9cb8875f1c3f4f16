"""What a CONE node stakes: once per command, whatever happens, and again what a slash took."""

import trio
from trio.testing import wait_all_tasks_blocked

from d2m_node.calls import DepositStake
from d2m_node.roles.staking import top_up_stake
from protocol.events import StakeLocked, StakeSlashed
from protocol.market import MarketState
from protocol.types import Wei
from tests.protocol.test_earnings import SETTLED
from tests.support.market import Market, Node

WANTED = Wei(5)


class Staker:
    """A node with a CONE role that is started again and again."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.market = Market()
        self.market.state = MarketState(jobs={SETTLED.job_id: SETTLED})
        self.node = Node(self.market, "cone")
        self.nursery = nursery

    def begin(self, payment_key: str | None = None, wanted: Wei = WANTED) -> trio.CancelScope:
        """Start the role; cancelling what is returned is a crash."""
        scope = trio.CancelScope()

        async def start() -> None:
            with scope:
                await top_up_stake(self.node.post("cone", self.nursery), wanted, payment_key)

        self.nursery.start_soon(start)
        return scope

    async def start(self, payment_key: str | None = None) -> None:
        """Start the role, and let a deposit be mined if there is one."""
        self.begin(payment_key)
        await self.market.mine(2)

    def slash(self, amount: int) -> None:
        """Let a job lock some of the stake, and take it."""
        account, amount_wei = self.node.signer.address, Wei(amount)
        self.market.apply(
            StakeLocked(job=SETTLED.job_id, account=account, amount_wei=amount_wei),
            StakeSlashed(job=SETTLED.job_id, account=account, amount_wei=amount_wei, reason=1),
        )

    def deposits(self) -> list[int]:
        return [call.value_wei for call in self.market.sent(DepositStake)]


async def test_what_is_missing_is_staked_and_nothing_more(nursery: trio.Nursery) -> None:
    staker = Staker(nursery)
    await staker.start("a command")
    await staker.start("another command")
    await staker.start()
    assert staker.deposits() == [5]


async def test_a_role_that_starts_with_its_node_makes_good_what_a_slash_took(
    nursery: trio.Nursery,
) -> None:
    staker = Staker(nursery)
    await staker.start("a command")
    staker.slash(2)
    await staker.start()
    assert staker.deposits() == [5, 2]
    staker.slash(2)
    await staker.start()
    assert staker.deposits() == [5, 2, 2], "the same need at another time is another deposit"


async def test_a_command_that_is_repeated_does_not_make_good_a_slash(
    nursery: trio.Nursery,
) -> None:
    staker = Staker(nursery)
    await staker.start("a command")
    staker.slash(2)
    await staker.start("a command")
    assert staker.deposits() == [5]
    await staker.start("a new command")
    assert staker.deposits() == [5, 2]


async def test_a_command_that_is_cut_off_and_repeated_stakes_once(nursery: trio.Nursery) -> None:
    staker = Staker(nursery)
    crash = staker.begin("a command")
    await wait_all_tasks_blocked()
    crash.cancel()
    await staker.start("a command")
    await staker.start("a command")
    assert staker.deposits() == [5]


async def test_a_deposit_on_its_way_is_not_made_again_by_another_start(
    nursery: trio.Nursery,
) -> None:
    staker = Staker(nursery)
    crash = staker.begin("a command")
    await wait_all_tasks_blocked()
    crash.cancel()
    staker.begin()  # the settings, or an earlier command, want the role on
    staker.begin("another command, as the first was never answered")
    await staker.market.mine(2)
    assert staker.deposits() == [5]
