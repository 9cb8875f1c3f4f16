"""The TCP listener: a token opens it as far as its scope goes, a web page never does."""

import socket as sockets
import stat
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from d2m_node import client as api
from d2m_node.client import AsyncRpcClient, CallRefused, RpcClient, Scope, TcpPlace
from d2m_node.errors import UserError
from d2m_node.rpc import listeners, server
from d2m_node.rpc.server import serve_rpc
from d2m_node.settings import RpcSettings
from protocol.types import JobId
from tests.support.rpc import FakeNode, serve_fake_node

STATUS = b'{"jsonrpc": "2.0", "id": 1, "method": "node.status"}'
JSON = {"content-type": "application/json"}


class Listener:
    """A fake node's TCP listener, and its tokens."""

    def __init__(self, node: FakeNode, folder: Path, port: int) -> None:
        self.node = node
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def token(self, scope: Scope) -> str:
        return (self.folder / "tokens" / scope).read_text().strip()

    def place(self, scope: Scope) -> TcpPlace:
        return TcpPlace(self.url, self.folder / "tokens" / scope)

    async def post(
        self, headers: dict[str, str], content: bytes = STATUS, scope: Scope | None = Scope.READ
    ) -> httpx.Response:
        token = {} if scope is None else {"authorization": f"Bearer {self.token(scope)}"}
        transport = httpx.AsyncHTTPTransport()
        async with httpx.AsyncClient(transport=transport) as http:
            return await http.post(self.url, content=content, headers=JSON | token | headers)


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncGenerator[Listener, None]:
    node = FakeNode()
    settings: dict[str, Any] = {"tcp": "127.0.0.1:0", "hosts": ("node.example",)}
    async with serve_fake_node(node, tmp_path / "rpc.sock", **settings) as port:
        assert port is not None
        yield Listener(node, tmp_path, port)


def error_of(response: httpx.Response) -> tuple[int, int, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


async def test_both_clients_call_over_tcp_with_a_token_from_its_file(listener: Listener) -> None:
    def ask() -> int:
        with RpcClient(listener.place(Scope.READ)) as client:
            return client.call(api.NODE_STATUS, api.NoParams()).chain_id

    assert await trio.to_thread.run_sync(ask) == 31337
    async with AsyncRpcClient(listener.place(Scope.READ)) as client:
        assert (await client.call(api.NODE_STATUS, api.NoParams())).chain_id == 31337


async def test_there_is_no_tcp_listener_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with serve_fake_node(FakeNode(), tmp_path / "rpc.sock") as port:
        assert port is None
        assert not (tmp_path / "tokens").exists()
        async with AsyncRpcClient(tmp_path / "rpc.sock") as client:
            with pytest.raises(CallRefused, match=r"rpc\.tcp: not set"):
                await client.call(api.ROTATE_TOKENS, api.RotateTokensParams())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer d2m_admin_9999999999_" + "A" * 43},
        {"authorization": "Basic YWRtaW46YWRtaW4="},
        {"authorization": "Bearer \xff"},
    ],
)
async def test_without_a_token_that_counts_there_is_one_clear_401(
    listener: Listener, headers: dict[str, str]
) -> None:
    transport = httpx.AsyncHTTPTransport()
    async with httpx.AsyncClient(transport=transport) as http:
        raw = [(k.encode(), v.encode("latin1")) for k, v in (JSON | headers).items()]
        response = await http.post(listener.url, content=STATUS, headers=raw)
    assert error_of(response)[:2] == (401, api.ErrorCode.UNAUTHORISED)
    assert response.headers["www-authenticate"] == "Bearer"
    assert "result" not in response.json()


async def test_the_typed_client_names_what_was_refused(listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong\n")
    async with AsyncRpcClient(TcpPlace(listener.url, tmp_path / "wrong")) as client:
        with pytest.raises(CallRefused, match="give a token that counts") as refusal:
            await client.call(api.NODE_STATUS, api.NoParams())
    assert refusal.value.code == api.ErrorCode.UNAUTHORISED
    async with AsyncRpcClient(TcpPlace(listener.url, tmp_path / "none")) as client:
        with pytest.raises(UserError, match="the token cannot be read"):
            await client.call(api.NODE_STATUS, api.NoParams())


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_token_does_what_its_scope_says_and_nothing_more(
    listener: Listener, scope: Scope
) -> None:
    listener.node.models.files[JobId(1)] = b"model"
    calls: list[tuple[api.Method[Any, Any], api.Params, set[Scope]]] = [
        (api.LIST_JOBS, api.NoParams(), set(Scope)),
        (api.JOB_MODEL, api.JobParams(job=1), {Scope.BUY, Scope.ADMIN}),
        (api.ENABLE_ROLE, api.EnableRoleParams(role="buyer"), {Scope.BUY, Scope.ADMIN}),
        (api.DISABLE_ROLE, api.DisableRoleParams(role="seller"), {Scope.SELL, Scope.ADMIN}),
        (api.DISABLE_ROLE, api.DisableRoleParams(role="cone"), {Scope.ADMIN}),
        (api.NODE_STOP, api.NoParams(), {Scope.ADMIN}),
    ]
    async with AsyncRpcClient(listener.place(scope)) as client:
        for method, params, allowed in calls:
            if scope in allowed:
                await client.call(method, params)
                continue
            with pytest.raises(CallRefused, match=f"needs the scope .*; the token's is {scope}"):
                await client.call(method, params)
    if scope is Scope.ADMIN:
        with trio.fail_after(5):
            await listener.node.stop.wait()
    assert listener.node.stop.is_set() == (scope is Scope.ADMIN)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "[", "127.0.0.1.evil"])
async def test_a_name_that_was_made_to_point_here_is_refused(listener: Listener, host: str) -> None:
    status, code, message = error_of(await listener.post({"host": host}))
    assert (status, code) == (403, api.ErrorCode.FORBIDDEN)
    assert "rpc.hosts" in message


@pytest.mark.parametrize("host", ["localhost:{port}", "node.example", "NODE.example:{port}"])
async def test_the_listener_has_the_names_that_it_was_given(listener: Listener, host: str) -> None:
    response = await listener.post({"host": host.format(port=listener.port)})
    assert response.status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost"])
async def test_a_web_page_of_another_origin_is_refused(listener: Listener, origin: str) -> None:
    response = await listener.post({"origin": origin})
    assert error_of(response)[:2] == (403, api.ErrorCode.FORBIDDEN)
    assert not [name for name in response.headers if name.startswith("access-control")]
    own = await listener.post({"origin": listener.url})
    assert own.status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_a_form_could_send_is_refused(listener: Listener, kind: str) -> None:
    response = await listener.post({"content-type": kind})
    assert error_of(response)[:2] == (415, api.ErrorCode.NO_REQUEST)


async def test_a_rotated_token_replaces_the_old_one(listener: Listener) -> None:
    async with AsyncRpcClient(listener.place(Scope.ADMIN)) as client:
        old = listener.token(Scope.READ)
        views = await client.call(api.ROTATE_TOKENS, api.RotateTokensParams(scopes=(Scope.READ,)))
        assert [view.scope for view in views] == sorted(Scope)
        assert listener.token(Scope.READ) != old
        headers = {"authorization": f"Bearer {old}"}
        assert (await listener.post(headers, scope=None)).status_code == 200, "both for a while"
        params = api.RotateTokensParams(revoke=True)
        await client.call(api.ROTATE_TOKENS, params)
        assert (await listener.post(headers, scope=None)).status_code == 401
        assert (await client.call(api.LIST_JOBS, api.NoParams())) == [], "the file is read anew"


async def test_tokens_are_neither_logged_nor_sent(
    listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = [listener.token(scope).split("_", 3)[3] for scope in Scope]
    async with AsyncRpcClient(listener.place(Scope.ADMIN)) as client:
        views = await client.call(api.ROTATE_TOKENS, api.RotateTokensParams())
        await listener.post({"authorization": "Bearer wrong"}, scope=None)
    secrets += [listener.token(scope).split("_", 3)[3] for scope in Scope]
    written = capsys.readouterr()
    for secret in secrets:
        assert secret not in written.out + written.err + repr(views)
    for scope in Scope:
        path = listener.folder / "tokens" / scope
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_calls_beyond_the_limit_are_told_to_try_again(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CALLS", 0)
    assert error_of(await listener.post({}))[:2] == (503, api.ErrorCode.BUSY)


async def test_connections_beyond_the_limit_are_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "MAX_CONNECTIONS", 1)
    async with serve_fake_node(FakeNode(), tmp_path / "rpc.sock", tcp="127.0.0.1:0") as port:
        assert port is not None
        first = await trio.open_tcp_stream("127.0.0.1", port)
        await first.send_all(b"POST / HTTP/1.1\r\n")
        with trio.fail_after(5):
            second = await trio.open_tcp_stream("127.0.0.1", port)
            with suppress(trio.BrokenResourceError):  # it may be reset instead
                assert await second.receive_some() == b""
        await first.aclose()
        await second.aclose()


async def test_a_client_that_takes_nothing_is_hung_up_on_and_stalls_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "SEND_SECONDS", 0.05)
    hung_up, hang_up = trio.Event(), listeners._hang_up

    async def note(stream: trio.SocketStream) -> None:
        hung_up.set()
        await hang_up(stream)

    monkeypatch.setattr(listeners, "_hang_up", note)
    node = FakeNode()
    node.models.files[JobId(1)] = bytes(20_000_000)
    call = b'{"jsonrpc": "2.0", "id": 1, "method": "job.model", "params": {"job": 1}}'
    head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(call)}\r\n\r\n"
    with trio.fail_after(20):
        async with serve_fake_node(node, tmp_path / "rpc.sock"):
            stream = await trio.open_unix_socket(tmp_path / "rpc.sock")
            await stream.send_all(head.encode() + call)
            async with AsyncRpcClient(tmp_path / "rpc.sock") as client:
                assert await client.call(api.LIST_JOBS, api.NoParams()) == []
            received = 0
            await hung_up.wait()
            while data := await stream.receive_some(1 << 20):
                received += len(data)
            assert received < 20_000_000
            await stream.aclose()


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        rpc = RpcSettings(
            socket=tmp_path / "rpc.sock", tokens=tmp_path / "tokens", tcp=f"127.0.0.1:{port}"
        )
        with pytest.RaisesGroup(
            pytest.RaisesExc(UserError, match=rf"rpc\.tcp: 127.0.0.1 port {port}: .*in use"),
            flatten_subgroups=True,
        ):
            await serve_rpc(rpc, FakeNode().context())


HALF = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HALF,
        b"\x00\xff" * 40,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40),
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: !!\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n" * 9,
        b"GET /%ff HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_connection_that_breaks_the_rules_of_http_ends_alone(
    tmp_path: Path, sent: bytes
) -> None:
    socket = tmp_path / "rpc.sock"
    with trio.fail_after(30):
        async with serve_fake_node(FakeNode(), socket), AsyncRpcClient(socket) as client:
            for _ in range(5):
                stream = await trio.open_unix_socket(socket)
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(sent)
                    await client.call(api.LIST_JOBS, api.NoParams())
                    await stream.send_eof()
                await client.call(api.LIST_JOBS, api.NoParams())
                await trio.aclose_forcefully(stream)
                assert await client.call(api.LIST_JOBS, api.NoParams()) == []
