"""A node that stops finishes what others count on, and begins nothing any more."""

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from d2m_node.calls import EnrolCone, EnrolSeller
from d2m_node.errors import UserError
from d2m_node.role_control import RoleOptions, RoleState
from d2m_node.roles.cone import run_cone
from d2m_node.roles.desk import BuyerDesk
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.policies import ConePolicy, SellerPolicy
from d2m_node.roles.promises import OpenPromises
from d2m_node.roles.runner import RoleRunner, Start, Starter
from d2m_node.roles.seller import run_seller
from d2m_node.roles.shift import Shift
from d2m_node.rpc.herald import Herald
from d2m_node.storage.database import Store, open_store
from protocol.events import CourseChanged
from protocol.types import Wei
from protocol.wire import messages as wire
from tests.support.decided import BEFORE
from tests.support.job import JOB, OPENED, Cast
from tests.support.market import wait_idle
from tests.support.training import Training


async def begin(nursery: trio.Nursery) -> Training:
    training = Training(nursery)
    training.cast.market.apply(CourseChanged(job=JOB, course=BEFORE))
    await training.start()
    return training


class NothingOwed:
    """No role has anything to open."""

    async def find_end(self, role: str) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_next(self) -> None:
        await trio.sleep_forever()


def make_runner(cone: Starter, store: Store, herald: Herald, nursery: trio.Nursery) -> RoleRunner:
    memory = (store.journal, herald)
    return RoleRunner({"cone": cone}, {"cone": True}, memory, NothingOwed(), nursery)


class Stopping:
    """Roles that are told to stop, and whether each has finished."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.finished: list[Shift] = []

    async def stop(self, *shifts: Shift) -> None:
        for shift in shifts:
            self._nursery.start_soon(self._stop, shift)
        await wait_idle()

    async def _stop(self, shift: Shift) -> None:
        await shift.stop()
        self.finished.append(shift)


async def test_a_vote_that_is_committed_is_opened_before_the_node_stops(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    market, stopping = training.cast.market, Stopping(nursery)
    await market.mine_to(OPENED.seed_block + 2)
    assert training.ballot.committed == training.drawn
    await stopping.stop(*training.cone_shifts)
    assert set(stopping.finished) == {
        shift for index, shift in enumerate(training.cone_shifts) if index not in training.drawn
    }
    await market.mine_to(OPENED.open_end)
    assert training.ballot.opened == training.drawn
    assert set(stopping.finished) == set(training.cone_shifts)


async def test_a_vote_that_is_sealed_is_opened_though_the_role_is_switched_off(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    market = training.cast.market
    owed = [OpenPromises(node.ports, BuyerDesk(node.ports)) for node in training.cast.cones]
    await market.mine_to(OPENED.seed_block + 2)
    for shift in training.cone_shifts:
        shift.close()
    found = [await one.find_end("cone") for one in owed]
    assert {index for index, end in enumerate(found) if end is not None} == training.drawn
    await market.mine_to(OPENED.open_end)
    assert training.ballot.opened == training.drawn
    assert [await one.find_end("cone") for one in owed] == [None] * len(owed)
    assert not any(shift.is_busy for shift in training.cone_shifts)


async def test_a_vote_that_is_not_sealed_yet_is_left_out(nursery: trio.Nursery) -> None:
    training = await begin(nursery)
    market, stopping = training.cast.market, Stopping(nursery)
    await market.mine_to(OPENED.seed_block - 1)
    await stopping.stop(*training.cone_shifts)
    assert set(stopping.finished) == set(training.cone_shifts)
    await market.mine_to(OPENED.commit_end)
    assert training.ballot.committed == frozenset()
    for node in training.cast.cones:
        assert not [kind for kind, _ in node.store.journal.values if kind == "vote"]


async def test_an_update_that_is_committed_to_is_opened_before_the_node_stops(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    market, stopping = training.cast.market, Stopping(nursery)
    await market.mine_to(OPENED.seller_seed_block + 1)
    room = training.cast.cones[0].rooms[JOB]
    committed = room.heard(wire.UpdateCommit, 0).keys()
    await stopping.stop(*training.seller_shifts)
    assert {training.seller_shifts.index(one) for one in stopping.finished} == (
        set(range(len(training.seller_shifts))) - committed
    )
    await market.mine_to(OPENED.update_commit_end + 1)
    assert room.heard(wire.UpdateOpening, 0).keys() == committed
    assert set(stopping.finished) == set(training.seller_shifts)


async def test_a_seller_that_stops_trains_no_more(nursery: trio.Nursery) -> None:
    training = await begin(nursery)
    await Stopping(nursery).stop(*training.seller_shifts)
    await training.cast.market.mine_to(OPENED.update_commit_end)
    assert sum(trainer.runs for trainer in training.trainers) == 0


async def test_roles_that_stop_apply_for_nothing(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.open_enrolment()
    cone, seller = cast.cones[0].post("cone", nursery), cast.sellers[0].post("seller", nursery)
    await Stopping(nursery).stop(cone.shift, seller.shift)
    nursery.start_soon(run_cone, cone, ConePolicy(stake_wei=Wei(1)), HonestExecutor())
    nursery.start_soon(run_seller, seller, SellerPolicy(dataset_path="dataset.toml"), None)
    await cast.market.mine(2)
    assert cast.market.sent(EnrolCone) == cast.market.sent(EnrolSeller) == []


async def test_the_runner_waits_for_its_roles_and_starts_none_any_more(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    may_finish, stopped = trio.Event(), trio.Event()

    async def work(start: Start, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with start.shift.finishing():
            await may_finish.wait()
        await trio.sleep_forever()

    async with open_store(tmp_path) as store, trio.open_nursery() as roles:
        herald = await Herald.open(store.facts)
        runner = make_runner(work, store, herald, roles)
        await runner.restore()

        async def stop() -> None:
            await runner.stop()
            stopped.set()

        nursery.start_soon(stop)
        await wait_all_tasks_blocked()
        assert not stopped.is_set()
        assert runner.states() == {"cone": RoleState.DRAINING}
        with pytest.raises(UserError, match="the node is stopping"):
            await runner.enable("cone", RoleOptions())
        may_finish.set()
        await stopped.wait()
        roles.cancel_scope.cancel()
    # What the operator wanted is as before.
    async with open_store(tmp_path) as store, trio.open_nursery() as roles:
        herald = await Herald.open(store.facts)
        runner = make_runner(work, store, herald, roles)
        await runner.restore()
        assert runner.states() == {"cone": RoleState.ON}
        roles.cancel_scope.cancel()


async def test_a_role_that_is_still_starting_is_cut_off(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async def start_for_ever(_: Start, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()
        task_status.started()

    async with open_store(tmp_path) as store, trio.open_nursery() as roles:
        herald = await Herald.open(store.facts)
        runner = make_runner(start_for_ever, store, herald, roles)
        nursery.start_soon(runner.restore)
        await wait_all_tasks_blocked(0.05)
        assert runner.states() == {"cone": RoleState.ON}
        await runner.stop()
        await wait_all_tasks_blocked()
        assert runner.states() == {"cone": RoleState.OFF}
        roles.cancel_scope.cancel()
