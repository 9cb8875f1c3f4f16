"""StakePool: deposits, locks, slashes, releases."""

from typing import Any

import boa
import pytest

from tests.contracts.world import ONE_ETHER, World, make_actor

JOB = 1
WRONG, UNOPENED = 1, 2


class Pool:
    """A stake pool whose market, enrolment and rounds are the test's own."""

    def __init__(self, world: World, deployers: dict[str, Any]) -> None:
        self.market = deployers["ClosableMarket"].deploy()
        self.enrolment = deployers["ClosableMarket"].deploy()
        self.rounds = make_actor("rounds").address
        params = tuple(world.params.values())
        self.contract = deployers["StakePool"].deploy(
            params, self.market.address, self.enrolment.address, self.rounds
        )
        self.world = world

    def lock(self, account: str, amount_wei: int = 4 * ONE_ETHER) -> None:
        self.contract.lock(JOB, account, amount_wei, sender=self.enrolment.address)

    def slash(self, accounts: list[str], reason: int, beneficiaries: list[str]) -> None:
        self.contract.slash(JOB, accounts, reason, beneficiaries, sender=self.rounds)

    def left(self, account: str) -> int:
        return int(self.contract.lock_of(JOB, account).remaining_wei)

    def reward(self, account: str) -> int:
        return int(self.contract.holding_of(account).reward_wei)


@pytest.fixture
def pool(world: World, deployers: dict[str, Any]) -> Pool:
    return Pool(world, deployers)


@pytest.fixture
def nodes(pool: Pool) -> list[str]:
    """Three nodes with eight ether each."""
    accounts = [make_actor(f"node {number}").address for number in range(3)]
    for account in accounts:
        pool.contract.deposit(value=8 * ONE_ETHER, sender=account)
    return accounts


def test_the_latest_deposit_says_since_when_an_account_is_staked(pool: Pool) -> None:
    node = make_actor("node").address
    assert pool.contract.staked_since(node) == 0
    pool.contract.deposit(value=1, sender=node)
    pool.world.blocks.mine(5)
    pool.contract.deposit(value=2, sender=node)
    (event,) = pool.contract.get_logs()
    assert (event.amount_wei, event.free_wei) == (2, 3)
    assert event.since_block == pool.contract.staked_since(node) == pool.world.blocks.number


def test_an_empty_deposit_is_refused(pool: Pool) -> None:
    with boa.reverts("stake: nothing to deposit"):
        pool.contract.deposit()


def test_unbonding_stake_is_paid_after_the_wait(pool: Pool, nodes: list[str]) -> None:
    node, contract = nodes[0], pool.contract
    contract.request_unbond(3 * ONE_ETHER, sender=node)
    (event,) = contract.get_logs()
    assert event.release_block == pool.world.blocks.number + 10
    assert contract.holding_of(node).free_wei == 5 * ONE_ETHER
    pool.world.blocks.mine_to(event.release_block)
    with boa.reverts("stake: nothing to withdraw"):
        contract.withdraw(sender=node)
    pool.world.blocks.mine()
    before = pool.world.balance(node)
    contract.withdraw(sender=node)
    assert pool.world.balance(node) - before == 3 * ONE_ETHER
    with boa.reverts("stake: nothing to withdraw"):
        contract.withdraw(sender=node)


def test_a_second_request_restarts_the_wait(pool: Pool, nodes: list[str]) -> None:
    pool.contract.request_unbond(1, sender=nodes[0])
    pool.world.blocks.mine(8)
    pool.contract.request_unbond(1, sender=nodes[0])
    pool.world.blocks.mine(5)
    with boa.reverts("stake: nothing to withdraw"):
        pool.contract.withdraw(sender=nodes[0])


def test_only_free_stake_unbonds(pool: Pool, nodes: list[str]) -> None:
    pool.lock(nodes[0])
    with boa.reverts("stake: nothing to unbond"):
        pool.contract.request_unbond(0, sender=nodes[0])
    with boa.reverts("stake: not enough free stake"):
        pool.contract.request_unbond(4 * ONE_ETHER + 1, sender=nodes[0])


def test_only_the_enrolment_locks_and_once_per_job(pool: Pool, nodes: list[str]) -> None:
    for hostile in (nodes[0], pool.market.address, pool.rounds):
        with boa.reverts("stake: only the enrolment locks"):
            pool.contract.lock(JOB, nodes[0], 1, sender=hostile)
    with boa.reverts("stake: not enough free stake"):
        pool.lock(nodes[0], 9 * ONE_ETHER)
    pool.lock(nodes[0])
    with boa.reverts("stake: already locked"):
        pool.lock(nodes[0])


def test_half_of_a_slash_is_shared_and_half_burned(pool: Pool, nodes: list[str]) -> None:
    hostile, first, second = nodes
    for node in nodes:
        pool.lock(node)
    burned_wei = pool.world.burned_wei
    pool.slash([hostile], WRONG, [first, second])

    assert pool.left(hostile) == 2 * ONE_ETHER
    assert pool.reward(first) == pool.reward(second) == ONE_ETHER // 2
    assert pool.world.burned_wei - burned_wei == ONE_ETHER
    before = pool.world.balance(first)
    pool.contract.withdraw(sender=first)
    assert pool.world.balance(first) - before == ONE_ETHER // 2


def test_what_cannot_be_divided_is_burned(pool: Pool, nodes: list[str]) -> None:
    pool.lock(nodes[0], ONE_ETHER + 2)
    burned_wei = pool.world.burned_wei
    pool.slash([nodes[0]], WRONG, nodes)
    taken_wei = (ONE_ETHER + 2) // 2
    each = taken_wei // 2 // 3
    assert [pool.reward(node) for node in nodes] == [each] * 3
    assert pool.world.burned_wei - burned_wei == taken_wei - 3 * each


def test_without_beneficiaries_all_is_burned(pool: Pool, nodes: list[str]) -> None:
    pool.lock(nodes[0])
    burned_wei = pool.world.burned_wei
    pool.slash([nodes[0]], UNOPENED, [])
    assert pool.world.burned_wei - burned_wei == 2 * ONE_ETHER


def test_a_slash_takes_no_more_than_is_left(pool: Pool, nodes: list[str]) -> None:
    pool.lock(nodes[0])
    assert pool.contract.can_vote(JOB, nodes[0])
    pool.slash([nodes[0]], WRONG, [])
    assert pool.contract.can_vote(JOB, nodes[0])
    pool.slash([nodes[0]], UNOPENED, [])
    assert not pool.contract.can_vote(JOB, nodes[0])
    burned_wei = pool.world.burned_wei
    pool.slash([nodes[0]], WRONG, [])
    assert (pool.left(nodes[0]), pool.world.burned_wei) == (0, burned_wei)


def test_only_rounds_slash(pool: Pool, nodes: list[str]) -> None:
    for hostile in (nodes[1], pool.market.address, pool.enrolment.address):
        with boa.reverts("stake: only rounds slash"):
            pool.contract.slash(JOB, [nodes[0]], WRONG, [], sender=hostile)


def test_who_never_enrolled_cannot_vote(pool: Pool, nodes: list[str]) -> None:
    assert not pool.contract.can_vote(JOB, nodes[0])


def test_locked_stake_is_released_once_the_job_is_closed(pool: Pool, nodes: list[str]) -> None:
    pool.lock(nodes[0])
    pool.slash([nodes[0]], WRONG, [])
    with boa.reverts("stake: job not closed"):
        pool.contract.release(JOB, nodes[0])
    pool.market.close(JOB)
    pool.contract.release(JOB, nodes[0])
    assert pool.contract.holding_of(nodes[0]).free_wei == 6 * ONE_ETHER
    with boa.reverts("stake: nothing locked"):
        pool.contract.release(JOB, nodes[0])


def test_stake_of_a_node_that_was_left_out_is_released_while_the_job_runs(
    pool: Pool, nodes: list[str]
) -> None:
    left_out, member = nodes[:2]
    pool.lock(left_out)
    pool.lock(member)
    pool.enrolment.leave_out(JOB, left_out)
    pool.contract.release(JOB, left_out)
    (event,) = pool.contract.get_logs()
    assert (event.job, event.account, event.amount_wei) == (JOB, left_out, 4 * ONE_ETHER)
    assert pool.contract.holding_of(left_out).free_wei == 8 * ONE_ETHER
    with boa.reverts("stake: nothing locked"):
        pool.contract.release(JOB, left_out)
    with boa.reverts("stake: already locked"):
        pool.lock(left_out)
    with boa.reverts("stake: job not closed"):
        pool.contract.release(JOB, member)
    with boa.reverts("stake: job not closed"):
        pool.contract.release(JOB + 1, left_out)


def test_accounts_are_counted_at_their_first_deposit(pool: Pool) -> None:
    accounts = [make_actor(f"node {number}").address for number in range(3)]
    assert pool.contract.staker_count() == 0
    for expected, account in enumerate(accounts, start=1):
        pool.contract.deposit(value=1, sender=account)
        pool.contract.deposit(value=1, sender=account)
        assert pool.contract.staker_count() == expected
    pool.contract.request_unbond(2, sender=accounts[0])
    pool.world.blocks.mine(20)
    pool.contract.withdraw(sender=accounts[0])
    pool.contract.deposit(value=1, sender=accounts[0])
    assert pool.contract.staker_count() == 3


def test_the_pool_holds_what_it_owes(pool: Pool, nodes: list[str]) -> None:
    world, contract = pool.world, pool.contract
    hostile, honest, unbonding = nodes
    for node in nodes:
        pool.lock(node)
    pool.slash([hostile], WRONG, [honest])
    contract.request_unbond(ONE_ETHER, sender=unbonding)
    held = sum(
        part
        for node in nodes
        for part in (
            contract.holding_of(node).free_wei,
            contract.holding_of(node).unbonding_wei,
            contract.holding_of(node).reward_wei,
            pool.left(node),
        )
    )
    assert world.balance(contract.address) == held == 23 * ONE_ETHER
    pool.market.close(JOB)
    for node in nodes:
        contract.release(JOB, node)
        contract.request_unbond(contract.holding_of(node).free_wei, sender=node)
    world.blocks.mine(20)
    for node in nodes:
        contract.withdraw(sender=node)
    assert world.balance(contract.address) == 0
