"""A node on an old copy of its data directory says nothing that contradicts what it has said."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from protocol.events import CourseChanged
from protocol.types import BlockNumber
from protocol.wire import messages as wire
from tests.support.decided import BEFORE
from tests.support.job import JOB, OPENED, ticket_secret
from tests.support.market import Node
from tests.support.training import HostileExecutor, Training

Journal = dict[tuple[str, str], bytes]
AFTER_TELLING = OPENED.availability_end - 1
AFTER_COMMITTING = OPENED.seed_block + 1


def listen_to(node: Node) -> list[Any]:
    """Return what a node says from now on, in every life."""
    said: list[Any] = []
    publish = node.network.publish

    async def note(topic: str, message: Any) -> None:
        said.append(message)
        await publish(topic, message)

    node.network.publish = note  # type: ignore[method-assign]
    return said


def commitments(said: list[Any], kind: type) -> list[bytes]:
    """What was committed to, each once, in order."""
    return list(dict.fromkeys(one.commitment for one in said if isinstance(one, kind)))


async def run_to(
    nursery: trio.Nursery, block: int, pick: Callable[[Training], Node]
) -> tuple[Training, Node, Journal, list[Any]]:
    """Run a job until some block; return the node, and what its journal held at the start."""
    training = Training(nursery)
    training.cast.market.apply(CourseChanged(job=JOB, course=BEFORE))
    await training.start()
    node = pick(training)
    said = listen_to(node)
    copy = dict(node.store.journal.values)
    await training.cast.market.mine_to(block)
    return training, node, copy, said


def first_voter(training: Training) -> Node:
    return training.cast.cones[min(training.drawn)]


async def put_back(training: Training, node: Node, copy: Journal) -> None:
    """Stop a CONE node, put an old copy of its journal in place, and start it."""
    index = training.cast.cones.index(node)
    await training.stop_cone(index)
    node.store.journal.values = dict(copy)
    await training.restart_cone(index)


async def test_an_old_copy_that_finds_the_same_result_votes_the_same_and_opens_it(
    nursery: trio.Nursery,
) -> None:
    training, node, copy, said = await run_to(nursery, AFTER_COMMITTING, first_voter)
    assert len(commitments(said, wire.VoteCommit)) == 1
    await put_back(training, node, copy)
    await training.cast.market.mine_to(OPENED.open_end)
    assert len(commitments(said, wire.VoteCommit)) == 1
    assert training.cast.cones.index(node) in training.ballot.opened


@pytest.mark.parametrize("block", [AFTER_COMMITTING, OPENED.seed_block + 3])
async def test_an_old_copy_that_finds_another_result_does_not_vote_twice(
    nursery: trio.Nursery, block: int
) -> None:
    """Known by its peers alone in the first case, by the chain in the second."""
    training, node, copy, said = await run_to(nursery, block, first_voter)
    index = training.cast.cones.index(node)
    await training.stop_cone(index)
    node.store.journal.values = dict(copy)
    node.restart()
    training.executors[index] = HostileExecutor()
    with capture_logs() as logs:
        training.run_cone(index)
        await training.cast.market.mine_to(OPENED.open_end)
    assert len(commitments(said, wire.VoteCommit)) == 1
    (failure,) = (one for one in logs if one["event"] == "job_failed")
    assert "committed to a vote that the journal does not know" in failure["error"]
    assert "goes on in all others" in failure["error"]
    assert node.refusals() == [(JOB, "cone", "failed")]


async def test_an_old_copy_tells_the_availability_that_its_peers_remember(
    nursery: trio.Nursery,
) -> None:
    training, node, copy, said = await run_to(nursery, AFTER_TELLING, first_voter)
    await put_back(training, node, copy)
    await training.cast.market.mine_to(OPENED.availability_end)
    told = {one.bitmap for one in said if isinstance(one, wire.AvailabilityBitmap)}
    assert len(told) == 1
    assert ("availability", f"{JOB}/1") in node.store.journal.values


async def test_a_node_that_lost_its_ticket_secret_does_not_vote_and_says_so(
    nursery: trio.Nursery,
) -> None:
    training, node, _, said = await run_to(nursery, 2, first_voter)
    with capture_logs() as logs:
        await put_back(training, node, {})
        await training.cast.market.mine_to(OPENED.open_end)
    assert commitments(said, wire.VoteCommit) == []
    (failure,) = (one for one in logs if one["event"] == "job_failed")
    assert "lacks the secret of the ticket root on the chain" in failure["error"]
    assert ("ticket-secret", str(JOB)) not in node.store.journal.values


async def test_a_node_with_another_ticket_secret_does_not_vote_and_says_so(
    nursery: trio.Nursery,
) -> None:
    training, node, _, said = await run_to(nursery, 2, first_voter)
    other = {("ticket-secret", str(JOB)): ticket_secret(training.cast.sellers[0])}
    with capture_logs() as logs:
        await put_back(training, node, other)
        await training.cast.market.mine_to(OPENED.open_end)
    assert commitments(said, wire.VoteCommit) == []
    (failure,) = (one for one in logs if one["event"] == "job_failed")
    assert "has another secret than the ticket root on the chain" in failure["error"]


async def test_a_restored_node_votes_in_nothing_that_was_open_then(nursery: trio.Nursery) -> None:
    training, node, copy, said = await run_to(nursery, 2, first_voter)
    index = training.cast.cones.index(node)
    await training.stop_cone(index)
    said.clear()
    object.__setattr__(node.store, "trusted_from", BlockNumber(3))
    with capture_logs() as logs:
        await put_back(training, node, copy)
        await training.cast.market.mine_to(OPENED.open_end)
    assert [one for one in said if isinstance(one, wire.VoteCommit | wire.AvailabilityBitmap)] == []
    assert [one["event"] for one in logs if one["event"] == "ballot_sat_out"] != []
    assert node.refusals() == []  # the next ballot is for it again


async def sell_again(training: Training, node: Node, copy: Journal) -> int:
    """Start a seller's next life on an old copy; return how often it trains."""
    index = training.cast.sellers.index(node)
    node.store.journal.values = dict(copy)
    node.restart()
    before = training.trainers[index].runs
    training.sell(index)
    await training.cast.market.mine_to(OPENED.update_open_end)
    return training.trainers[index].runs - before


def sampled_seller(training: Training) -> Node:
    return training.cast.sellers[0]


async def test_a_seller_on_an_old_copy_does_not_commit_twice(nursery: trio.Nursery) -> None:
    training, node, copy, said = await run_to(nursery, OPENED.seller_seed_block + 1, sampled_seller)
    first = commitments(said, wire.UpdateCommit)
    assert len(first) == 1
    training.stop_selling(0)
    with capture_logs() as logs:
        assert await sell_again(training, node, copy) == 0
    assert commitments(said, wire.UpdateCommit) == first
    (told,) = (one for one in logs if one["event"] == "round_sat_out")
    assert "committed already" in told["reason"]
    for cone in training.cast.cones:
        assert cone.rooms[JOB].equivocations == {}


async def test_a_seller_that_said_nothing_trains_after_a_restart(nursery: trio.Nursery) -> None:
    training, node, copy, said = await run_to(nursery, OPENED.seller_seed_block - 1, sampled_seller)
    assert commitments(said, wire.UpdateCommit) == []
    training.stop_selling(0)
    assert await sell_again(training, node, copy) == 1
    assert len(commitments(said, wire.UpdateCommit)) == 1


async def test_a_restored_seller_sits_out_the_open_round(nursery: trio.Nursery) -> None:
    training, node, copy, said = await run_to(nursery, OPENED.seller_seed_block - 1, sampled_seller)
    training.stop_selling(0)
    object.__setattr__(node.store, "trusted_from", BlockNumber(OPENED.seller_seed_block))
    assert await sell_again(training, node, copy) == 0
    assert commitments(said, wire.UpdateCommit) == []
