"""Subscriptions: what is told, in which order, and that nothing is lost over a break."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trio

from d2m_node.chain.history import History
from d2m_node.client import (
    BLOCK_FOLLOWED,
    CHAIN_REORGANISED,
    START,
    STREAM_ENDED,
    STREAM_OPENED,
    AsyncRpcClient,
    CallRefused,
    ErrorCode,
    NodeEvent,
    NodeUnreachable,
    RpcClient,
    Scope,
    TcpPlace,
)
from d2m_node.ports import Refusal
from d2m_node.rpc import events as rpc_events
from d2m_node.rpc import listeners
from d2m_node.rpc.herald import ToldRefusals
from protocol.events import (
    Event,
    PayoutClaimed,
    RecordedEvent,
    RoundVoided,
    StakeSlashed,
)
from protocol.types import NO_ACCOUNT, Address, BlockNumber, JobId, RoundIndex, Wei
from tests.support.rpc import ACCOUNT, FakeNode, serve_fake_node


def at(block: int, event: Event, *, log_index: int = 0, branch: int = 0) -> RecordedEvent:
    return RecordedEvent(
        block_number=BlockNumber(block),
        log_index=log_index,
        transaction_hash=bytes([branch, block % 256, log_index % 256]) + bytes(29),
        event=event,
    )


def voided(job: int = 1, round_index: int = 0) -> RoundVoided:
    return RoundVoided(job=JobId(job), round_index=RoundIndex(round_index))


CLAIMED = PayoutClaimed(payee=ACCOUNT, currency=NO_ACCOUNT, amount_wei=Wei(7))


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "rpc.sock"


@pytest.fixture
async def client(node: FakeNode, socket: Path) -> AsyncGenerator[AsyncRpcClient, None]:
    with trio.fail_after(30):
        async with serve_fake_node(node, socket), AsyncRpcClient(socket) as client:
            yield client


class RawStream:
    """A subscriber that speaks HTTP by hand, and reads only when it is told to."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._text = ""

    async def line(self, start: str) -> str | None:
        """Return the next line that begins so; None at the end."""
        while True:
            line, found, rest = self._text.partition("\n")
            if found:
                self._text = rest
                if line.startswith(start):
                    return line.strip()
                continue
            data = await self._stream.receive_some(1 << 16)
            if not data:
                return None
            self._text += data.decode()


@asynccontextmanager
async def open_raw(socket: Path, *headers: str) -> AsyncGenerator[RawStream, None]:
    async with await trio.open_unix_socket(socket) as stream:
        head = ["GET /events HTTP/1.1", "host: x", *headers, "", ""]
        await stream.send_all("\r\n".join(head).encode())
        raw = RawStream(stream)
        assert await raw.line(f"event: {STREAM_OPENED}") is not None
        yield raw


async def get(socket: Path, query: str, method: str = "GET", **headers: str) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport) as http:
        return await http.request(method, f"http://node/events?{query}", headers=headers)


async def test_facts_of_the_chain_are_told_as_they_are_followed(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    node.chain.follow(at(1, voided(round_index=9)), block=1)
    async with client.events() as stream:
        slashed = StakeSlashed(
            job=JobId(2), account=Address(b"\x0c" * 20), amount_wei=Wei(10**20), reason=1
        )
        node.chain.follow(at(5, voided()), at(5, slashed, log_index=3), block=6)
        first, second = await anext(stream), await anext(stream)
    assert (first.kind, first.job, first.block) == ("round.voided", 1, 5)
    assert first.facts == {"round_index": 0}
    assert (second.kind, second.job, second.log_index) == ("stake.slashed", 2, 3)
    assert second.facts == {"account": "0x" + "0c" * 20, "amount_wei": 10**20, "reason": 1}
    assert second.transaction == "0x000503" + "00" * 29


async def test_facts_of_the_node_are_told_too(node: FakeNode, client: AsyncRpcClient) -> None:
    async with client.events() as stream:
        await node.herald.tell("role.enabled", role="cone")
        await node.herald.tell("job.refused", JobId(4), role="seller", reason="the price is low")
        first, second = await anext(stream), await anext(stream)
    assert (first.kind, first.job, first.facts) == ("role.enabled", None, {"role": "cone"})
    assert (second.kind, second.job, second.block) == ("job.refused", 4, None)


async def test_a_refusal_is_told_once(node: FakeNode, client: AsyncRpcClient) -> None:
    refusals = ToldRefusals(node.store.refusals, node.herald)
    refusal = Refusal(
        job_id=JobId(4), role="seller", code="price", reason="too low", block_number=BlockNumber(9)
    )
    async with client.events(["job.refused"]) as stream:
        assert await refusals.add(refusal)
        assert not await refusals.add(refusal)
        assert await refusals.add(replace(refusal, role="cone"))
        told = [await anext(stream) for _ in range(2)]
    assert [event.facts["role"] for event in told] == ["seller", "cone"]
    assert told[0].facts == {"role": "seller", "code": "price", "reason": "too low"}


async def test_a_subscriber_hears_the_kinds_and_the_job_that_it_asked_for(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    node.chain.follow(at(1, voided(1)), at(1, voided(2), log_index=1), block=1)
    node.chain.follow(at(2, CLAIMED), block=2)
    with trio.fail_after(5):
        async with client.events(["round"], job=2, after=START) as stream:
            assert (await anext(stream)).job == 2
        async with client.events(["payout.claimed"], after=START) as stream:
            assert (await anext(stream)).facts["amount_wei"] == 7


async def test_blocks_are_told_only_to_those_who_ask(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    async with client.events([BLOCK_FOLLOWED]) as blocks, client.events() as others:
        node.chain.follow(block=3)
        assert (await anext(blocks)).block == 3
        node.chain.follow(at(4, voided()), block=4)
        assert (await anext(others)).kind == "round.voided"
        assert (await anext(blocks)).block == 4


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("kind=rounds", "kind: 'rounds' is none"),
        ("kind=", "kind: '' is none"),
        ("job=0", "job: '0' is no number of a job"),
        ("job=%D9%A3", "is no number of a job"),
        ("job=99999999999999999999", "is no number of a job"),
        ("after=yesterday", "after: this is no cursor"),
        ("since=3", "unknown parameter 'since'; known: after, job, kind"),
        ("&".join(["kind=round"] * 65), "kind: at most 64"),
    ],
)
async def test_a_wrong_question_is_named(
    client: AsyncRpcClient, socket: Path, query: str, message: str
) -> None:
    response = await get(socket, query)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, ErrorCode.WRONG_PARAMS)
    assert message in error["message"]


async def test_who_asks_for_the_headers_alone_waits_for_no_event(
    client: AsyncRpcClient, socket: Path
) -> None:
    for _ in range(rpc_events.MAX_SUBSCRIBERS + 1):  # and takes no subscriber's place
        response = await get(socket, "kind=round", "HEAD")
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-type"].startswith("text/event-stream")
    assert (await get(socket, "kind=nonsense", "HEAD")).status_code == 400


async def test_a_stream_goes_on_where_it_broke_off(node: FakeNode, client: AsyncRpcClient) -> None:
    async with client.events() as stream:
        opened = stream.cursor
        node.chain.follow(at(1, voided(round_index=0)), at(1, voided(), log_index=1), block=1)
        await anext(stream)
        first = stream.cursor
    node.chain.follow(at(2, voided(round_index=2)), block=2)
    await node.herald.tell("role.disabled", role="cone")

    async def hear(after: str | None, count: int) -> list[tuple[str, int | None, int | None]]:
        async with client.events(after=after) as stream:
            events = [await anext(stream) for _ in range(count)]
        return [(event.kind, event.block, event.log_index) for event in events]

    rest = [("role.disabled", None, None), ("round.voided", 1, 1), ("round.voided", 2, 0)]
    assert await hear(first, 3) == rest
    whole = [rest[0], ("round.voided", 1, 0), *rest[1:]]
    assert await hear(opened, 4) == whole
    assert await hear(START, 4) == whole


async def test_a_browser_goes_on_by_the_id_of_the_last_event(
    node: FakeNode, client: AsyncRpcClient, socket: Path
) -> None:
    node.chain.follow(at(1, voided(round_index=0)), at(2, voided(round_index=1)), block=2)
    async with client.events(after=START) as stream:
        first = await anext(stream)
    async with open_raw(socket, f"last-event-id: {first.cursor}") as raw:
        assert await raw.line("event: ") == "event: round.voided"
        data = await raw.line("data: ")
        assert data is not None
        assert json.loads(data.removeprefix("data: "))["block"] == 2


async def test_a_stream_survives_the_node_across_a_restart(
    node: FakeNode, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2m_node.client.streams.PAUSE_SECONDS", 0.01)
    with trio.fail_after(30):
        async with AsyncRpcClient(socket) as client:
            async with serve_fake_node(node, socket):
                stream = await client.events(["round"]).__aenter__()
                node.chain.follow(at(1, voided()), block=1)
                assert (await anext(stream)).block == 1
            # The next node follows the same chain again, and more of it.
            again = FakeNode()
            again.chain.follow(at(1, voided()), at(2, voided()), block=2)
            async with serve_fake_node(again, socket):
                assert (await anext(stream)).block == 2
                await stream.__aexit__(None, None, None)


async def test_a_turn_of_the_chain_takes_back_what_was_told(
    node: FakeNode, client: AsyncRpcClient
) -> None:
    async with client.events() as stream:
        node.chain.follow(at(1, voided(round_index=1)), block=1)
        node.chain.follow(at(2, voided(round_index=2)), block=2)
        told = [await anext(stream) for _ in range(2)]
        node.chain.turn(1)
        node.chain.follow(at(2, voided(round_index=22), branch=1), block=3)
        turned, new = await anext(stream), await anext(stream)
    assert (turned.kind, turned.block) == (CHAIN_REORGANISED, 1)
    assert new.facts == {"round_index": 22}
    # Whoever was away meanwhile hears the same.
    async with client.events(after=told[1].cursor) as late:
        assert [(await anext(late)).kind for _ in range(2)] == [CHAIN_REORGANISED, "round.voided"]
    # After the turn, the place is the last event that holds.
    async with client.events(after=turned.cursor) as after:
        kinds = [(one.kind, one.block) for one in [await anext(after) for _ in range(3)]]
    assert kinds == [("round.voided", 2), (CHAIN_REORGANISED, 1), ("round.voided", 2)]


async def test_a_turn_while_node_and_subscriber_were_away_is_told(
    node: FakeNode, socket: Path
) -> None:
    node.chain.follow(at(10, voided()), at(500, voided()), at(501, voided(), branch=0), block=501)
    with trio.fail_after(30):
        async with AsyncRpcClient(socket) as client:
            async with serve_fake_node(node, socket), client.events(after=START) as stream:
                cursor = [await anext(stream) for _ in range(3)][-1].cursor
            again = FakeNode()
            again.chain.follow(at(10, voided()), at(500, voided()), block=500)
            again.chain.follow(at(501, voided(), branch=1), block=501)
            async with (
                serve_fake_node(again, socket),
                client.events(after=cursor) as stream,
            ):
                turned = await anext(stream)
                assert (turned.kind, turned.block) == (CHAIN_REORGANISED, 501 - 128)
                assert [(await anext(stream)).block for _ in range(2)] == [500, 501]


async def test_a_cursor_that_is_too_old_is_refused(node: FakeNode, client: AsyncRpcClient) -> None:
    node.chain.history = History(kept=2)
    node.chain.follow(at(1, voided()), block=1)
    async with client.events(after=START) as stream:
        old = (await anext(stream)).cursor
    for block in range(2, 5):
        node.chain.follow(at(block, voided()), block=block)
    with pytest.raises(CallRefused, match="no longer kept; read the state anew") as refusal:
        async with client.events(after=old):
            raise AssertionError
    assert refusal.value.code == ErrorCode.EVENTS_GONE
    async with client.events(after=START) as stream:
        assert (await anext(stream)).block == 3, "as far back as there is"


async def test_a_subscriber_that_falls_behind_is_cut_off_and_stalls_nobody(
    node: FakeNode, client: AsyncRpcClient, socket: Path
) -> None:
    node.chain.history = History(kept=200)
    async with open_raw(socket) as slow:
        # It reads nothing of what follows: far more than the sockets hold.
        async with client.events() as quick:
            for block in range(1, 41):
                events = [at(block, voided(), log_index=index) for index in range(100)]
                node.chain.follow(*events, block=block)
                for _ in events:
                    await anext(quick)
        kinds = []
        while (kind := await slow.line("event: ")) is not None:
            kinds.append(kind)
    assert kinds[-1] == f"event: {STREAM_ENDED}"
    assert len(kinds) < 4000


async def test_a_subscriber_that_takes_nothing_is_hung_up_on(
    node: FakeNode, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "SEND_SECONDS", 0.05)
    hung_up, hang_up = trio.Event(), listeners._hang_up

    async def note(stream: trio.SocketStream) -> None:
        hung_up.set()
        await hang_up(stream)

    monkeypatch.setattr(listeners, "_hang_up", note)
    with trio.fail_after(30):
        async with serve_fake_node(node, socket), open_raw(socket):
            for block in range(1, 4):
                events = [at(block, voided(), log_index=index) for index in range(1000)]
                node.chain.follow(*events, block=block)
            await hung_up.wait()


async def test_a_stopping_node_says_so_to_its_subscribers(
    node: FakeNode, client: AsyncRpcClient, socket: Path
) -> None:
    async with open_raw(socket) as raw:
        node.stop.set()
        assert await raw.line("event: ") == f"event: {STREAM_ENDED}"
        data = await raw.line("data: ")
        assert data is not None
        assert "the node stops" in data


async def test_a_silent_stream_shows_that_the_node_is_there(
    node: FakeNode, client: AsyncRpcClient, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_events, "SILENCE_SECONDS", 0.01)
    async with open_raw(socket) as raw:
        assert await raw.line(":") == ": still here"


async def test_subscribers_beyond_the_limit_are_told_and_those_who_leave_make_room(
    client: AsyncRpcClient, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_events, "MAX_SUBSCRIBERS", 1)
    async with client.events():
        with pytest.raises(CallRefused, match="1 subscribers are here") as refusal:
            async with client.events():
                raise AssertionError
        assert refusal.value.code == ErrorCode.BUSY
    while True:  # until the node has noticed
        try:
            async with client.events():
                return
        except CallRefused:
            await trio.lowlevel.checkpoint()


async def test_a_blocking_program_reads_the_same(node: FakeNode, socket: Path) -> None:
    node.chain.follow(at(1, voided()), at(2, voided()), block=2)

    def hear() -> list[NodeEvent]:
        with RpcClient(socket) as client, client.events(["round"], after=START) as stream:
            found = [next(stream), next(stream)]
            assert stream.cursor == found[-1].cursor
            return found

    with trio.fail_after(30):
        async with serve_fake_node(node, socket):
            events = await trio.to_thread.run_sync(hear)
    assert [event.block for event in events] == [1, 2]


async def test_events_come_over_tcp_with_any_token_and_with_none_not(
    node: FakeNode, socket: Path
) -> None:
    with trio.fail_after(30):
        async with serve_fake_node(node, socket, tcp="127.0.0.1:0") as port:
            url = f"http://127.0.0.1:{port}"
            node.chain.follow(at(1, voided()), block=1)
            place = TcpPlace(url, socket.parent / "tokens" / Scope.SELL)
            async with AsyncRpcClient(place) as client, client.events(after=START) as stream:
                assert (await anext(stream)).block == 1
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport()) as http:
                response = await http.get(f"{url}/events")
            assert response.status_code == 401
            assert response.json()["error"]["code"] == ErrorCode.UNAUTHORISED


async def test_a_node_that_is_not_there_is_named_at_once(socket: Path) -> None:
    async with AsyncRpcClient(socket) as client:
        with pytest.raises(NodeUnreachable, match="start it with d2m-node run"):
            async with client.events():
                raise AssertionError
