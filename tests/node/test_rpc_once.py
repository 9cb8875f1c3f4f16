"""Idempotency keys: what they stand for, and that none of them pays twice."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from d2m_node import client as api
from d2m_node.client import AsyncRpcClient, CallRefused
from d2m_node.errors import ChainUnavailable
from d2m_node.rpc.once import KeyReused, OnceDesk, PaidCall, hash_plan
from d2m_node.storage.database import open_store
from protocol.types import JobId
from tests.support.market import Journal
from tests.support.rpc import FakeNode, serve_fake_node

REQUEST = Path(__file__).parents[2] / "configs" / "requests" / "digits.toml"


class Purse:
    """Counts what is paid."""

    def __init__(self) -> None:
        self.paid: list[str] = []

    def pay(self, what: str) -> Callable[[], Awaitable[list[str]]]:
        async def act() -> list[str]:
            self.paid.append(what)
            return [what]

        return act


def make_call(key: str = "k", method: str = "request.submit", plan: object = 1) -> PaidCall:
    return PaidCall(key=key, method=method, plan_hash=hash_plan(plan))


async def test_the_same_key_acts_once_and_answers_the_same() -> None:
    desk, purse = OnceDesk(Journal()), Purse()
    assert await desk.run(make_call(), purse.pay("a"), list[str]) == ["a"]
    assert await desk.run(make_call(), purse.pay("b"), list[str]) == ["a"]
    assert await desk.run(make_call(key="other"), purse.pay("c"), list[str]) == ["c"]
    assert purse.paid == ["a", "c"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_call(plan=2), "'k' was used for other params before; take a new one"),
        (make_call(method="roles.enable"), "'k' was used for request.submit before"),
    ],
)
async def test_a_key_stands_for_one_thing(other: PaidCall, message: str) -> None:
    desk, purse = OnceDesk(Journal()), Purse()
    await desk.run(make_call(), purse.pay("a"), list[str])
    with pytest.raises(KeyReused, match=message):
        await desk.run(other, purse.pay("b"), list[str])
    assert purse.paid == ["a"]


async def test_calls_under_one_key_at_once_act_once() -> None:
    desk, purse, go = OnceDesk(Journal()), Purse(), trio.Event()
    answers: list[list[str]] = []

    async def act() -> list[str]:
        await go.wait()
        return await purse.pay("a")()

    async def call() -> None:
        answers.append(await desk.run(make_call(), act, list[str]))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert (answers, purse.paid) == ([["a"]] * 5, ["a"])


async def test_a_call_that_failed_is_tried_again_under_its_key() -> None:
    desk, purse = OnceDesk(Journal()), Purse()

    async def fail() -> list[str]:
        raise ChainUnavailable("no")

    with pytest.raises(ChainUnavailable):
        await desk.run(make_call(), fail, list[str])
    with pytest.raises(KeyReused):
        await desk.run(make_call(plan=2), purse.pay("b"), list[str])
    assert await desk.run(make_call(), purse.pay("a"), list[str]) == ["a"]


async def test_keys_are_remembered_across_restarts(tmp_path: Path) -> None:
    purse = Purse()
    for _ in range(2):
        async with open_store(tmp_path) as store:
            desk = OnceDesk(store.journal)
            assert await desk.run(make_call(), purse.pay("a"), list[str]) == ["a"]
            with pytest.raises(KeyReused):
                await desk.run(make_call(plan=2), purse.pay("b"), list[str])
    assert purse.paid == ["a"]


async def test_a_node_that_died_in_the_middle_acts_again_under_the_same_key(
    tmp_path: Path,
) -> None:
    purse = Purse()
    async with open_store(tmp_path) as store:
        with trio.CancelScope() as scope:

            async def die() -> list[str]:
                purse.paid.append("sent under the key")
                scope.cancel()
                await trio.sleep_forever()
                raise AssertionError

            await OnceDesk(store.journal).run(make_call(), die, list[str])
    async with open_store(tmp_path) as store:
        desk = OnceDesk(store.journal)
        with pytest.raises(KeyReused):
            await desk.run(make_call(plan=2), purse.pay("b"), list[str])
        assert await desk.run(make_call(), purse.pay("resumed"), list[str]) == ["resumed"]
        assert await desk.run(make_call(), purse.pay("c"), list[str]) == ["resumed"]
    assert purse.paid == ["sent under the key", "resumed"]


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
async def client(node: FakeNode, tmp_path: Path) -> AsyncGenerator[AsyncRpcClient, None]:
    socket = tmp_path / "rpc.sock"
    async with serve_fake_node(node, socket), AsyncRpcClient(socket) as client:
        yield client


def submit(path: Path) -> api.SubmitRequestParams:
    return api.SubmitRequestParams(idempotency_key="k", path=str(path))


async def test_a_request_is_submitted_once_over_the_socket(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
    first = await client.call(api.SUBMIT_REQUEST, submit(REQUEST))
    node.desk.submitted.clear()
    await client.call(api.DISABLE_ROLE, api.DisableRoleParams(role="buyer"))
    assert await client.call(api.SUBMIT_REQUEST, submit(REQUEST)) == first
    assert not node.desk.submitted, "answered from the journal"


async def test_a_key_is_refused_for_a_changed_file_and_for_another_method(
    client: AsyncRpcClient, tmp_path: Path
) -> None:
    await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
    file = tmp_path / "request.toml"
    text = REQUEST.read_text()
    file.write_text(text)
    await client.call(api.SUBMIT_REQUEST, submit(file))
    file.write_text(text.replace('bid_wei = "2ether"', 'bid_wei = "3ether"'))
    with pytest.raises(CallRefused, match="'k' was used for other params") as refusal:
        await client.call(api.SUBMIT_REQUEST, submit(file))
    assert refusal.value.code == api.ErrorCode.KEY_REUSED
    stake = api.EnableRoleParams(role="cone", stake_wei=1, idempotency_key="k")
    with pytest.raises(CallRefused, match=r"'k' was used for request\.submit"):
        await client.call(api.ENABLE_ROLE, stake)


async def test_a_mistake_in_the_params_costs_no_key(client: AsyncRpcClient) -> None:
    await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
    with pytest.raises(CallRefused, match="nowhere"):
        await client.call(api.SUBMIT_REQUEST, submit(Path("/nowhere")))
    assert (await client.call(api.SUBMIT_REQUEST, submit(REQUEST))).job == JobId(1)


async def test_a_stake_needs_a_key(client: AsyncRpcClient) -> None:
    with pytest.raises(CallRefused, match="a CONE node stakes money; give a key"):
        await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="cone"))
