"""The operator's door: who may knock, what is answered, and what ends the node."""

import stat
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from d2m_node import client as api
from d2m_node.client import AsyncRpcClient, CallRefused, NodeUnreachable, RpcClient
from d2m_node.errors import (
    ChainUnavailable,
    StoreCorrupted,
    TransactionReverted,
    UserError,
)
from d2m_node.ports import DialFailure, PeerStatus, Refusal
from d2m_node.rpc.server import serve_rpc
from d2m_node.settings import RpcSettings
from d2m_node.user_input import read_toml
from protocol.errors import InvalidParams, ProtocolError
from protocol.events import AuctionOpened, PeerBound, RecordedEvent
from protocol.market import MarketState, apply_event
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Digest, JobId, Wei
from tests.support.rpc import ACCOUNT, QUIET_NETWORK, FakeNode, serve_fake_node

CONE = api.EnableRoleParams(role="cone", stake_wei="5ether", idempotency_key="stake")
REQUEST = Path(__file__).parents[2] / "configs" / "requests" / "digits.toml"


def record(event: Any, block_number: int = 7) -> RecordedEvent:
    return RecordedEvent(
        block_number=BlockNumber(block_number),
        log_index=0,
        transaction_hash=bytes(32),
        event=event,
    )


def market_with_an_auction() -> MarketState:
    opened = AuctionOpened(
        auction=JobId(1),
        opener=ACCOUNT,
        tags=(Digest(b"\x05" * 32),),
        mode=0,
        currency=NO_ACCOUNT,
        deposit_wei=Wei(10**20),
        reserve_wei=Wei(1),
        commit_end=BlockNumber(9),
        reveal_end=BlockNumber(12),
    )
    return apply_event(MarketState(), record(opened))


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "rpc.sock"


@pytest.fixture
async def client(node: FakeNode, socket: Path) -> AsyncGenerator[AsyncRpcClient, None]:
    async with serve_fake_node(node, socket), AsyncRpcClient(socket) as client:
        yield client


async def post(socket: Path, content: bytes) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport) as http:
        headers = {"content-type": "application/json"}
        return await http.post("http://node/", content=content, headers=headers)


async def test_the_status_says_who_and_where_the_node_is(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    node.chain.state = market_with_an_auction()
    status = await client.call(api.NODE_STATUS, api.NoParams())
    assert status.account == "0x" + ACCOUNT.hex()
    assert status.chain_id == 31337
    assert status.jobs == {"auction": 1}
    assert status.roles == {"buyer": "off", "seller": "off", "cone": "off"}


async def test_peers_carry_the_accounts_that_name_them(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    bound = PeerBound(account=Address(b"\x0c" * 20), peer_id=b"\x09", multiaddr=b"/ip4/1.2.3.4")
    node.chain.state = apply_event(MarketState(), record(bound))
    node.network.known = (
        PeerStatus(peer_id=b"\x09", multiaddr="/ip4/1.2.3.4", connected=True, last_error=None),
    )
    (peer,) = await client.call(api.NODE_PEERS, api.NoParams())
    assert peer.peer_id == "0x09"
    assert peer.accounts == ["0x" + "0c" * 20]


async def test_a_status_names_the_dials_that_failed_and_the_next_ones(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    failure = DialFailure(multiaddr="/ip4/1.2.3.4/tcp/1", source="registry", reason="refused")
    missed = PeerStatus(
        peer_id=b"\x09", multiaddr="/ip4/1.2.3.4/tcp/1", connected=False, last_error="refused",
        failures=(failure,), next_dial_seconds=7.5,
    )  # fmt: skip
    others = [
        replace(missed, peer_id=bytes([one]), next_dial_seconds=30.0) for one in range(20, 40)
    ]
    unwanted = replace(missed, peer_id=b"\x08", next_dial_seconds=None)
    node.network.known = (*others, missed, unwanted)
    found = (await client.call(api.NODE_STATUS, api.NoParams())).peers_missed
    assert len(found) == 8
    assert (found[0].peer_id, found[0].next_dial_seconds) == ("0x09", 7.5)
    assert [(one.multiaddr, one.source, one.reason) for one in found[0].failures] == [
        ("/ip4/1.2.3.4/tcp/1", "registry", "refused")
    ]


async def test_a_status_tells_who_was_turned_away_at_which_limit(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    node.facts.network = replace(
        QUIET_NETWORK,
        refusals={"handshakes": 1, "strangers": 2, "streams": 3, "slow": 4},
        verdicts={"accept": 99, "flood": 5, "outside": 6},
        denied=7,
    )
    status = await client.call(api.NODE_STATUS, api.NoParams())
    assert status.turned_away == api.TurnedAwayView(
        handshakes=1, strangers=2, streams=3, slow=4, flood=5, outside=6, denied=7
    )


async def test_peers_tell_their_faults_bans_and_what_they_were_refused(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    quiet = PeerStatus(peer_id=b"\x08", multiaddr="", connected=True, last_error=None)
    flooding = replace(
        quiet, peer_id=b"\x09", penalty=3.456, turned_away={"flood": 12, "denied": 1}
    )
    banned = replace(quiet, peer_id=b"\x0a", connected=False, banned_seconds=250.04)
    node.network.known = (quiet, flooding, banned)
    found = await client.call(api.NODE_PEERS, api.NoParams())
    assert [one.penalty for one in found] == [0.0, 3.46, 0.0]
    assert [one.banned_seconds for one in found] == [None, None, 250.0]
    assert [one.turned_away for one in found] == [
        api.TurnedAwayView(),
        api.TurnedAwayView(flood=12, denied=1),
        api.TurnedAwayView(),
    ]
    assert (await client.call(api.NODE_STATUS, api.NoParams())).peers_banned == 1


async def test_jobs_are_listed_and_described(node: FakeNode, client: AsyncRpcClient) -> None:
    node.chain.state = market_with_an_auction()
    (summary,) = await client.call(api.LIST_JOBS, api.NoParams())
    job = await client.call(api.GET_JOB, api.JobParams(job=1))
    assert (summary.job, summary.phase, summary.utility) == (1, "auction", None)
    assert job.summary == summary
    assert job.tags == ["0x" + "05" * 32]


async def test_an_unknown_job_is_the_askers_mistake(client: AsyncRpcClient) -> None:
    with pytest.raises(CallRefused, match="job 9: the market has no such job") as refusal:
        await client.call(api.GET_JOB, api.JobParams(job=9))
    assert refusal.value.code == api.ErrorCode.USER_ERROR


async def test_a_request_is_submitted_by_path(node: FakeNode, client: AsyncRpcClient) -> None:
    params = api.SubmitRequestParams(idempotency_key="k1", path=str(REQUEST))
    with pytest.raises(CallRefused, match="buyer role is off"):
        await client.call(api.SUBMIT_REQUEST, params)
    await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
    submitted = await client.call(api.SUBMIT_REQUEST, params)
    assert submitted.job == 1
    assert node.desk.submitted["k1"].bid_wei == 2 * 10**18


async def test_a_request_is_submitted_as_json(node: FakeNode, client: AsyncRpcClient) -> None:
    await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
    table: dict[str, Any] = read_toml(REQUEST)
    table["training"]["learning_rate"] = 0.01
    table["terms"]["target"] = 0.9
    del table["sampling"]
    params = api.SubmitRequestParams(idempotency_key="k1", request=table)
    await client.call(api.SUBMIT_REQUEST, params)
    assert node.desk.submitted["k1"].terms.target == 943718


@pytest.mark.parametrize("path", ["request.toml", "/nowhere/request.toml"])
async def test_a_request_that_cannot_be_read_is_named(client: AsyncRpcClient, path: str) -> None:
    params = api.SubmitRequestParams(idempotency_key="k1", path=path)
    with pytest.raises(CallRefused, match=r"request\.toml") as refusal:
        await client.call(api.SUBMIT_REQUEST, params)
    assert refusal.value.code == api.ErrorCode.USER_ERROR


async def test_roles_take_their_own_options_only(node: FakeNode, client: AsyncRpcClient) -> None:
    await client.call(api.ENABLE_ROLE, CONE)
    assert node.roles.on["cone"].stake_wei == 5 * 10**18
    roles = await client.call(api.DISABLE_ROLE, api.DisableRoleParams(role="cone"))
    assert {role.state for role in roles} == {"off"}
    with pytest.raises(CallRefused, match="only a CONE node has one"):
        await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer", stake_wei=1))


async def test_a_role_drains_and_its_drain_is_undone(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    with pytest.raises(CallRefused, match="the buyer role is off: it has nothing to drain"):
        await client.call(api.DRAIN_ROLE, api.RoleParams(role="buyer"))
    await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
    roles = await client.call(api.DRAIN_ROLE, api.RoleParams(role="buyer"))
    assert {one.role: one.state for one in roles}["buyer"] == "draining"
    assert (await client.call(api.NODE_STATUS, api.NoParams())).roles["buyer"] == "draining"
    params = api.SubmitRequestParams(idempotency_key="k1", path=str(REQUEST))
    with pytest.raises(CallRefused, match="the buyer role is draining"):
        await client.call(api.SUBMIT_REQUEST, params)
    roles = await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
    assert {one.role: one.state for one in roles}["buyer"] == "on"


async def test_refusals_are_listed_newest_first_and_stand_in_status_and_job(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    for block in range(1, 8):
        refusal = Refusal(
            job_id=JobId(block % 2 + 1),
            role="cone",
            code=f"code {block}",
            reason="too little",
            block_number=BlockNumber(block),
        )
        await node.store.refusals.add(refusal)
    listed = await client.call(api.LIST_REFUSALS, api.RefusalsParams())
    assert [one.block for one in listed] == [7, 6, 5, 4, 3, 2, 1]
    assert listed[0].code == "code 7"
    of_job = await client.call(api.LIST_REFUSALS, api.RefusalsParams(job=1, count=2))
    assert [one.block for one in of_job] == [6, 4]
    status = await client.call(api.NODE_STATUS, api.NoParams())
    assert [one.block for one in status.refusals] == [7, 6, 5, 4, 3]


async def test_the_only_error_of_a_group_is_answered(client: AsyncRpcClient) -> None:
    with pytest.raises(CallRefused, match=r"roles\.seller\.dataset: not set"):
        await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="seller"))


async def test_a_model_is_handed_out_once_it_is_there(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    with pytest.raises(CallRefused, match="it has no model"):
        await client.call(api.JOB_MODEL, api.JobParams(job=1))
    node.models.files[JobId(1)] = b"\x00\xff" * 2_000_000
    model = await client.call(api.JOB_MODEL, api.JobParams(job=1))
    assert model.safetensors == b"\x00\xff" * 2_000_000
    assert model.is_delivered


async def test_a_model_that_was_not_delivered_is_fetched(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    node.models.at_peers = {JobId(1): b"a model", JobId(2): b"another"}
    node.models.files[JobId(2)] = b"the copy"
    for job, expected in ((1, (b"a model", False)), (2, (b"the copy", True))):
        model = await client.call(api.JOB_MODEL, api.JobParams(job=job))
        assert (model.safetensors, model.is_delivered) == expected


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (UserError("no"), api.ErrorCode.USER_ERROR),
        (ChainUnavailable("no"), api.ErrorCode.UNAVAILABLE),
        (TransactionReverted("Market.open_auction", "market: no"), api.ErrorCode.REVERTED),
        (InvalidParams("lead", "no"), api.ErrorCode.RULE_BROKEN),
        (ProtocolError("no\nno"), api.ErrorCode.RULE_BROKEN),
    ],
)
async def test_each_kind_of_error_has_its_code(
    node: FakeNode, client: AsyncRpcClient, failure: Exception, code: api.ErrorCode
) -> None:
    await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
    node.desk.failure = failure
    with pytest.raises(CallRefused, match="no") as refusal:
        await client.call(
            api.SUBMIT_REQUEST, api.SubmitRequestParams(idempotency_key="k", path=str(REQUEST))
        )
    assert refusal.value.code == code
    assert "\n" not in str(refusal.value)


async def test_a_fatal_error_is_answered_and_ends_the_server(node: FakeNode, socket: Path) -> None:
    node.desk.failure = StoreCorrupted("blob changed")
    params = api.SubmitRequestParams(idempotency_key="k", path=str(REQUEST))
    with pytest.RaisesGroup(
        pytest.RaisesExc(StoreCorrupted, match="blob changed"), flatten_subgroups=True
    ):
        async with serve_fake_node(node, socket), AsyncRpcClient(socket) as client:
            await client.call(api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"))
            with pytest.raises(CallRefused) as refusal:
                await client.call(api.SUBMIT_REQUEST, params)
            assert refusal.value.code == api.ErrorCode.FATAL
            await trio.sleep_forever()


async def test_a_node_told_to_stop_answers_first(node: FakeNode, socket: Path) -> None:
    async with serve_fake_node(node, socket), AsyncRpcClient(socket) as client:
        await client.call(api.NODE_STOP, api.NoParams())
        with trio.fail_after(5):
            await node.stop.wait()


async def test_every_method_is_listed(client: AsyncRpcClient) -> None:
    methods = await client.call(api.LIST_METHODS, api.NoParams())
    assert {
        "rpc.methods",
        "rpc.discover",
        "tokens.rotate",
        "node.status",
        "node.peers",
        "node.stop",
        "jobs.list",
        "jobs.get",
        "payouts.explain",
        "earnings.list",
        "job.model",
        "roles.list",
        "roles.enable",
        "roles.disable",
        "roles.drain",
        "refusals.list",
        "request.submit",
    } == {method.name for method in methods}


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"{", -32700, "the body is no JSON"),
        (b"\xff", -32700, "the body is no JSON"),
        (b"[" * 100_000, -32600, "brackets"),
        (b"[]", -32600, "expected `object`"),
        (b'{"jsonrpc": "2.0", "id": 1}', -32600, "missing required field `method`"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "jobs.lst"}', -32601, "did you mean 'jobs.list'?"),
        (
            b'{"jsonrpc": "2.0", "id": 1, "method": "jobs.get", "params": {"job": "1"}}',
            -32602,
            "job: expected `int`, got `str`",
        ),
        (
            b'{"jsonrpc": "2.0", "id": 1, "method": "node.status", "params": {"x": 1}}',
            -32602,
            "unknown field `x`",
        ),
    ],
)
async def test_a_malformed_call_is_answered_with_its_code(
    client: AsyncRpcClient, socket: Path, content: bytes, code: int, message: str
) -> None:
    error = (await post(socket, content)).json()["error"]
    assert error["code"] == code
    assert message in error["message"]
    assert "\n" not in error["message"]


async def test_a_notification_is_not_answered(client: AsyncRpcClient, socket: Path) -> None:
    response = await post(socket, b'{"jsonrpc": "2.0", "method": "node.status"}')
    assert (response.status_code, response.content) == (204, b"")


async def test_a_body_beyond_the_limit_is_refused(client: AsyncRpcClient, socket: Path) -> None:
    response = await post(socket, b" " * (api.MAX_REQUEST_BYTES + 1))
    assert response.status_code == 413
    assert (await client.call(api.LIST_JOBS, api.NoParams())) == []


async def test_the_socket_is_for_its_owner_alone_and_goes_with_the_node(
    node: FakeNode, socket: Path
) -> None:
    async with serve_fake_node(node, socket):
        assert stat.S_IMODE(mode_of(socket)) == 0o600
    with pytest.raises(FileNotFoundError):
        mode_of(socket)


async def test_a_stale_socket_is_replaced_and_a_file_is_not(node: FakeNode, socket: Path) -> None:
    leave_a_stale_socket(socket)
    async with serve_fake_node(node, socket), AsyncRpcClient(socket) as client:
        await client.call(api.LIST_JOBS, api.NoParams())
    write_file(socket)
    with pytest.raises(UserError, match=r"rpc\.socket"):
        await serve_rpc(RpcSettings(socket=socket), node.context())


async def test_a_path_too_long_for_a_socket_is_named(node: FakeNode, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rpc\.socket: .* too long; set another path"):
        await serve_rpc(RpcSettings(socket=tmp_path / ("x" * 120)), node.context())


async def test_a_node_that_does_not_run_is_unreachable(socket: Path) -> None:
    async with AsyncRpcClient(socket) as client:
        with pytest.raises(NodeUnreachable, match="start it with d2m-node run"):
            await client.call(api.LIST_JOBS, api.NoParams())


async def test_commands_call_without_an_event_loop(node: FakeNode, socket: Path) -> None:
    def ask() -> tuple[int, object]:
        with RpcClient(socket) as client:
            status = client.call(api.NODE_STATUS, api.NoParams())
            return status.chain_id, client.call_by_name("jobs.list", {})

    async with serve_fake_node(node, socket):
        assert await trio.to_thread.run_sync(ask) == (31337, [])


def mode_of(path: Path) -> int:
    return path.stat().st_mode


def write_file(path: Path) -> None:
    path.write_text("not a socket")


def leave_a_stale_socket(path: Path) -> None:
    import socket as sockets

    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(str(path))
