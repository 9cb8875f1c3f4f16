"""A job's failure ends the job, never the node."""

import pytest
import trio
from trio.testing import MockClock

from d2m_node.errors import ChainUnavailable, DataMismatch, JobFailed, UserError
from d2m_node.roles.boundary import run_to_failure
from protocol.errors import InvalidMessage
from protocol.types import JobId
from tests.support.market import Market, Node


@pytest.fixture
def node() -> Node:
    return Node(Market(), "node")


@pytest.mark.parametrize(
    "failure", [JobFailed(1, "gone"), UserError("moved"), InvalidMessage("garbage")]
)
async def test_a_failure_of_a_job_stops_at_its_boundary_and_is_kept(
    node: Node, nursery: trio.Nursery, failure: Exception
) -> None:
    async def work() -> None:
        raise failure

    await run_to_failure(node.post("cone", nursery), JobId(1), work)
    (kept,) = node.store.refusals.kept
    assert (kept.job_id, kept.role, kept.reason) == (1, "cone", str(failure))


async def test_work_starts_again_after_a_transient_failure(
    node: Node, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    runs = []

    async def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ChainUnavailable("down")

    await run_to_failure(node.post("cone", nursery), JobId(1), work)
    assert len(runs) == 3
    assert node.refusals() == []


async def test_failures_of_nested_tasks_stop_there_too(node: Node, nursery: trio.Nursery) -> None:
    async def fail() -> None:
        raise JobFailed(1, "gone")

    async def work() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            inner.start_soon(fail)
            outer.start_soon(fail)

    await run_to_failure(node.post("seller", nursery), JobId(1), work)


async def test_a_bug_passes_through(node: Node, nursery: trio.Nursery) -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as inner:
            inner.start_soon(run_to_failure, node.post("buyer", nursery), JobId(1), work)
    assert caught.group_contains(ZeroDivisionError)


@pytest.mark.parametrize(
    ("failure", "code"), [(JobFailed(1, "gone"), "failed"), (DataMismatch(1, "other data"), "data")]
)
async def test_a_refusal_has_the_code_of_its_failure(
    node: Node, nursery: trio.Nursery, failure: Exception, code: str
) -> None:
    async def work() -> None:
        raise failure

    await run_to_failure(node.post("seller", nursery), JobId(1), work)
    assert [one for *_, one in node.refusals()] == [code]
