"""Health and metrics over HTTP: who is answered, with what, and why a node is not well."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trio

from d2m_node.clock import ClockFault
from d2m_node.errors import FatalError, UserError
from d2m_node.ports import PeerStatus
from d2m_node.settings import WatchSettings
from d2m_node.watch.server import serve_watch
from protocol.types import Wei
from tests.support.watch import CHAIN, PEER, WatchedNode, serve_watched_node


@pytest.fixture
def node() -> WatchedNode:
    return WatchedNode()


@pytest.fixture
async def client(node: WatchedNode) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with serve_watched_node(node.started_watch()) as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str) -> tuple[int, dict[str, Any]]:
    response = await client.get(path)
    return response.status_code, response.json()


async def test_a_node_that_is_well_is_alive_and_ready(client: httpx.AsyncClient) -> None:
    status, told = await ask(client, "/healthz")
    assert (status, told["alive"]) == (200, True)
    assert set(told["checks"]) == {"loop", "store"}
    status, told = await ask(client, "/readyz")
    assert (status, told["ready"]) == (200, True)
    assert set(told["checks"]) == {"loop", "store", "roles", "chain", "network", "clock"}
    assert told["checks"]["network"] == {"ok": True, "detail": "1 of 2 peers"}


async def test_a_clock_that_is_off_is_told_and_leaves_the_node_ready(
    node: WatchedNode, client: httpx.AsyncClient
) -> None:
    _, told = await ask(client, "/readyz")
    assert told["checks"]["clock"] == {"ok": True, "detail": "agrees with the chain's"}
    assert "d2m_clock_off 0.0" in (await client.get("/metrics")).text
    node.clock_fault = ClockFault(reason="60 s behind", fix="set it", is_certain=True)
    status, told = await ask(client, "/readyz")
    assert (status, told["ready"]) == (200, True)
    assert told["checks"]["clock"] == {"ok": False, "detail": "60 s behind: set it"}
    metrics = (await client.get("/metrics")).text
    assert "d2m_clock_off 1.0" in metrics
    assert 'd2m_ready{check="clock"}' not in metrics, "the alert D2MNotReady would say it is not"


async def test_metrics_come_in_the_format_that_is_asked_for(client: httpx.AsyncClient) -> None:
    plain = await client.get("/metrics")
    assert plain.status_code == 200
    assert plain.headers["content-type"].startswith("text/plain")
    assert "d2m_chain_followed_block 102.0" in plain.text
    opened = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")


async def test_a_store_that_cannot_be_written_is_no_life(
    node: WatchedNode, client: httpx.AsyncClient
) -> None:
    node.store.failure = FatalError("store.sqlite: no space left on device")
    status, told = await ask(client, "/healthz")
    assert (status, told["alive"]) == (503, False)
    assert told["checks"]["store"]["detail"] == "store.sqlite: no space left on device"


async def test_a_disk_that_is_too_slow_is_no_life(
    node: WatchedNode, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2m_node.watch.health.STORE_SECONDS", -1.0)
    status, told = await ask(client, "/healthz")
    assert status == 503
    assert told["checks"]["store"]["detail"].startswith("a write took ")


async def test_asking_often_does_not_wear_the_disk(
    node: WatchedNode, client: httpx.AsyncClient
) -> None:
    for _ in range(20):
        await client.get("/healthz")
    assert node.store.writes < 20


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"silent_seconds": 75.0}, "no endpoint has answered for 75 s"),
        ({"head_number": 130}, "block 102, 23 behind what counts"),
    ],
)
async def test_a_chain_that_is_not_followed_is_named(
    node: WatchedNode, client: httpx.AsyncClient, change: Any, detail: str
) -> None:
    node.chain.reading = replace(CHAIN, **change)
    status, told = await ask(client, "/readyz")
    assert (status, told["checks"]["chain"]) == (503, {"ok": False, "detail": detail})
    assert (await ask(client, "/healthz"))[0] == 200, "a restart would not help"


@pytest.mark.parametrize(
    ("known", "is_ok", "detail"),
    [
        ((), True, "no other node is known yet"),
        (
            (replace(PEER, connected=False, last_error="refused"),),
            False,
            "none of 1 peers is connected: refused",
        ),
        ((replace(PEER, connected=False),), False, "none of 1 peers is connected: dialling"),
    ],
)
async def test_a_node_without_peers_says_why(
    node: WatchedNode,
    client: httpx.AsyncClient,
    known: tuple[PeerStatus, ...],
    is_ok: bool,
    detail: str,
) -> None:
    node.network.known = known
    _, told = await ask(client, "/readyz")
    assert told["checks"]["network"] == {"ok": is_ok, "detail": detail}


async def test_a_node_that_starts_or_stops_is_alive_and_not_ready(node: WatchedNode) -> None:
    watch = node.watch()
    async with serve_watched_node(watch) as client:
        assert (await ask(client, "/healthz"))[0] == 200
        status, told = await ask(client, "/readyz")
        assert status == 503
        assert told["checks"]["roles"]["detail"].startswith("starting: following the chain")
        watch.attach(node.sources())
        watch.note_step("the role cone")
        _, told = await ask(client, "/readyz")
        assert told["checks"]["roles"]["detail"] == "starting: the role cone"
        watch.note_started()
        assert (await ask(client, "/readyz"))[0] == 200
        watch.note_stopping()
        _, told = await ask(client, "/readyz")
        assert told["checks"]["roles"]["detail"] == "the node is stopping"


async def test_a_chain_that_does_not_answer_does_not_hold_a_scrape_up(
    node: WatchedNode, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_balance() -> Wei:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr("d2m_node.watch.reading.PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(node.chain, "read_balance", read_balance)
    text = (await client.get("/metrics")).text
    assert "d2m_balance_ether " not in text
    assert "d2m_disk_free_bytes " in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9395", "127.0.0.1.evil.example"])
async def test_a_page_that_names_another_host_is_refused(
    client: httpx.AsyncClient, host: str
) -> None:
    response = await client.get("/metrics", headers={"host": host})
    assert response.status_code == 400
    assert "d2m" not in response.text


@pytest.mark.parametrize("host", ["localhost", "localhost:9395", "127.0.0.1", "[::1]:9395"])
async def test_loopback_has_several_names(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/healthz", headers={"host": host})).status_code == 200


async def test_further_names_are_a_setting(node: WatchedNode) -> None:
    async with serve_watched_node(node.started_watch(), hosts=("node",)) as client:
        assert (await client.get("/metrics", headers={"host": "node:9395"})).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(client: httpx.AsyncClient, method: str) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await client.request(method, path)).status_code == 405


async def test_there_is_nothing_else(client: httpx.AsyncClient) -> None:
    for path in ("/", "/metrics/../etc/passwd", "/debug"):
        assert (await client.get(path)).status_code == 404


async def test_a_port_that_is_taken_is_named(node: WatchedNode) -> None:
    watch = node.started_watch()
    async with serve_watched_node(watch) as client:
        port = client.base_url.port
        settings = WatchSettings(listen=f"127.0.0.1:{port}")
        with pytest.raises(UserError, match=rf"watch\.listen: 127\.0\.0\.1 port {port}: .*in use"):
            await serve_watch(settings, watch.health, watch.reader, watch.exposition)
