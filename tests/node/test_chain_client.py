"""JSON-RPC over local sockets: endpoints that are dead, slow, lying, behind, or tired of us."""

import gzip
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from threading import Event

import pytest
import trio

from d2m_node.chain.client import RpcClient, open_client
from d2m_node.chain.endpoint import AnswerTooLarge
from d2m_node.chain.json_rpc import Request, RequestRefused, parse_bytes, parse_quantity
from d2m_node.errors import ChainUnavailable, UserError, WrongNetwork
from d2m_node.settings import EndpointSettings
from tests.support.endpoints import NOBODY, Batch, FakeNode, Reply, serve_rpc

CHAIN_ID = 7
DEFAULTS = EndpointSettings()
BROKEN = Reply(b"", status=503)


@asynccontextmanager
async def ask_nodes(
    *nodes: FakeNode, settings: EndpointSettings = DEFAULTS
) -> AsyncGenerator[RpcClient, None]:
    """Ask some nodes, the preferred one first."""
    with ExitStack() as servers:
        urls = [servers.enter_context(serve_rpc(node)) for node in nodes]
        async with open_client(urls, chain_id=CHAIN_ID, settings=settings) as client:
            yield client


async def find_asked(client: RpcClient, *nodes: FakeNode) -> list[int]:
    """Make a request; return the positions of the nodes that got it."""
    for node in nodes:
        node.asked.clear()
    await client.call("eth_blockNumber")
    return [position for position, node in enumerate(nodes) if node.asked]


async def test_answers_come_in_the_order_of_the_requests() -> None:
    async with ask_nodes(FakeNode()) as client:
        chain_id, refused = await client.batch([Request("eth_chainId"), Request("eth_nothing")])
    assert chain_id == "0x7"
    assert isinstance(refused, RequestRefused)
    assert refused.code == -32601


async def test_a_long_batch_is_sent_in_parts_and_answered_in_order() -> None:
    batches: list[int] = []
    node = FakeNode()

    def answer(batch: Batch) -> Reply:
        batches.append(len(batch))
        return node(batch)

    requests = [Request("eth_chainId"), Request("eth_blockNumber")] * 3
    with serve_rpc(answer) as url:
        async with open_client([url], settings=EndpointSettings(batch_requests=4)) as client:
            assert await client.batch(requests) == ["0x7", "0xa"] * 3
    assert batches == [4, 2]


async def test_a_refused_call_raises_what_the_endpoint_said() -> None:
    async with ask_nodes(FakeNode()) as client:
        with pytest.raises(RequestRefused, match="no such method"):
            await client.call("eth_nothing")


async def test_the_next_endpoint_is_asked_when_one_is_down() -> None:
    with serve_rpc(FakeNode()) as url:
        async with open_client([NOBODY, url], chain_id=CHAIN_ID) as client:
            assert await client.call("eth_chainId") == "0x7"


async def test_no_endpoint_at_all_is_named_in_the_error() -> None:
    async with open_client([NOBODY]) as client:
        with pytest.raises(ChainUnavailable, match=NOBODY):
            await client.call("eth_chainId")


async def test_the_secret_in_a_url_is_not_shown() -> None:
    async with open_client(["http://user:word@127.0.0.1:9/v3/secret"]) as client:
        with pytest.raises(ChainUnavailable) as failure:
            await client.call("eth_chainId")
    assert "127.0.0.1:9" in str(failure.value)
    assert not any(secret in str(failure.value) for secret in ("word", "secret"))


async def test_what_is_no_url_is_named() -> None:
    with pytest.raises(UserError, match=r"chain\.rpc_urls"):
        async with open_client(["http://localhost:port"]):
            pass


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"{}", b"[]", b"[1]", b'[{"id": 1}]', b'{"error": {"code": 1}}', b"\xff"],
)
async def test_an_answer_that_is_no_json_rpc_is_the_endpoints_fault(body: bytes) -> None:
    async with ask_nodes(FakeNode(failure=Reply(body))) as client:
        with pytest.raises(ChainUnavailable):
            await client.call("eth_chainId")


async def test_a_batch_that_is_refused_as_a_whole_says_why() -> None:
    body = b'{"id": null, "error": {"code": -32600, "message": "batch too large"}}'
    async with ask_nodes(FakeNode(failure=Reply(body))) as client:
        with pytest.raises(ChainUnavailable, match="batch too large"):
            await client.call("eth_chainId")


async def test_an_endpoint_of_another_chain_is_refused_and_named() -> None:
    with serve_rpc(FakeNode(chain_id=8)) as url:
        async with open_client([url], chain_id=CHAIN_ID) as client:
            with pytest.raises(WrongNetwork, match=f"{url} serves chain 8.*chain 7"):
                await client.call("eth_blockNumber")


async def test_an_endpoint_of_another_chain_is_passed_over_for_the_right_one() -> None:
    liar, honest = FakeNode(chain_id=8, head=99), FakeNode()
    async with ask_nodes(liar, honest) as client:
        assert await client.call("eth_blockNumber") == "0xa"
        assert await find_asked(client, liar, honest) == [1]


async def test_an_endpoint_of_another_chain_beside_a_dead_one_is_no_reason_to_stop() -> None:
    async with ask_nodes(FakeNode(chain_id=8), FakeNode(failure=BROKEN)) as client:
        with pytest.raises(ChainUnavailable, match=r"serves chain 8.*HTTP status 503"):
            await client.call("eth_blockNumber")


async def test_an_endpoint_that_changes_its_chain_while_it_fails_is_not_believed() -> None:
    node = FakeNode()
    async with ask_nodes(node) as client:
        await client.call("eth_blockNumber")
        node.failure = BROKEN
        with pytest.raises(ChainUnavailable):
            await client.call("eth_blockNumber")
        node.failure, node.chain_id = None, 8
        with pytest.raises(WrongNetwork):
            await client.call("eth_blockNumber")


async def test_a_slow_endpoint_is_passed_over() -> None:
    released = Event()

    def keep_waiting(_batch: Batch) -> Reply:
        released.wait()
        return BROKEN

    with serve_rpc(keep_waiting) as slow, serve_rpc(FakeNode()) as url:
        settings = EndpointSettings(request_seconds=0.2)
        async with open_client([slow, url], settings=settings) as client:
            assert await client.call("eth_chainId") == "0x7"
        released.set()


def drip_until(released: Event) -> Iterator[bytes]:
    """Send a byte now and then, so that no single read takes long."""
    while not released.wait(0.02):
        yield b" "


async def test_an_endpoint_that_drips_is_passed_over() -> None:
    released = Event()
    dripping = FakeNode(failure=Reply(b"[", drip=drip_until(released)))
    settings = EndpointSettings(request_seconds=0.2)
    async with ask_nodes(dripping, FakeNode(), settings=settings) as client:
        with trio.fail_after(5):
            assert await client.call("eth_blockNumber") == "0xa"
        released.set()


async def test_the_preferred_endpoint_is_asked_again_once_it_heals() -> None:
    first, second = FakeNode(), FakeNode()
    async with ask_nodes(first, second) as client:
        assert await find_asked(client, first, second) == [0]
        first.failure = BROKEN
        assert await find_asked(client, first, second) == [0, 1]
        assert await find_asked(client, first, second) == [1]
        await client.probe()
        assert await find_asked(client, first, second) == [1]
        first.failure = None
        await client.probe()
        assert await find_asked(client, first, second) == [0]


async def test_an_endpoint_that_lags_is_passed_over_until_it_has_caught_up() -> None:
    first, second = FakeNode(head=10), FakeNode(head=14)
    async with ask_nodes(first, second, settings=EndpointSettings(lag_blocks=3)) as client:
        await client.probe()
        assert await find_asked(client, first, second) == [1]
        first.head = 11
        await client.probe()
        assert await find_asked(client, first, second) == [0]


async def test_an_endpoint_whose_answers_made_no_sense_is_passed_over_though_it_answers() -> None:
    first, second = FakeNode(), FakeNode()
    async with ask_nodes(first, second) as client:
        await client.call("eth_blockNumber")
        client.distrust_endpoint()
        await client.probe()
        assert await find_asked(client, first, second) == [1]
        second.failure = BROKEN
        assert await find_asked(client, first, second) == [0, 1]


@pytest.mark.parametrize(
    "tired",
    [
        FakeNode(failure=Reply(b"", status=429, headers={"Retry-After": "120"})),
        FakeNode(refusals={"eth_blockNumber": (429, "compute units exceeded")}),
        FakeNode(refusals={"eth_blockNumber": (-32005, "too many requests")}),
    ],
)
async def test_an_endpoint_that_limits_our_rate_is_left_alone(tired: FakeNode) -> None:
    other = FakeNode()
    async with ask_nodes(tired, other) as client:
        assert await client.call("eth_blockNumber") == "0xa"
        tired.asked.clear()
        await client.probe()
        other.failure = BROKEN
        with pytest.raises(ChainUnavailable, match="503"):
            await client.call("eth_blockNumber")
        assert not tired.asked


async def test_a_limit_on_logs_is_no_limit_on_the_rate() -> None:
    node = FakeNode(refusals={"eth_getLogs": (-32005, "more than 10000 results")})
    async with ask_nodes(node) as client:
        with pytest.raises(RequestRefused, match="more than 10000"):
            await client.call("eth_getLogs", {})
        assert await client.call("eth_blockNumber") == "0xa"


async def test_an_answer_that_is_too_long_is_not_read_to_its_end_nor_asked_of_others() -> None:
    settings = EndpointSettings(answer_bytes=64 * 1024, request_seconds=5)
    released = Event()
    endless = Reply(b" " * (64 * 1024 + 1), drip=drip_until(released))
    first, second = FakeNode(failure=endless), FakeNode()
    async with ask_nodes(first, second, settings=settings) as client:
        with pytest.raises(AnswerTooLarge, match="above 65536 bytes"):
            await client.call("eth_blockNumber")
        released.set()
    assert not second.asked


@pytest.mark.parametrize(
    "value", [None, 5, "", "0x", "zz", "ff", "-0x5", "0x_1", "0x1\n", " 0x1", "0x" + "f" * 65]
)
def test_what_is_no_quantity_is_the_endpoints_fault(value: object) -> None:
    with pytest.raises(ChainUnavailable):
        parse_quantity(value)


@pytest.mark.parametrize("value", [None, 5, "", "ab", "0xabc", "0xzz", "0xabcd"])
def test_what_is_no_data_of_that_length_is_the_endpoints_fault(value: object) -> None:
    with pytest.raises(ChainUnavailable):
        parse_bytes(value, 1)


def test_data_and_quantities_are_read() -> None:
    assert parse_bytes("0xab", 1) == b"\xab"
    assert parse_quantity("0x1f") == 31
    assert parse_quantity("0x" + "F" * 64) == 2**256 - 1


async def test_a_compressed_answer_is_not_unpacked() -> None:
    body = gzip.compress(b'[{"jsonrpc":"2.0","id":0,"result":"0xa"}]')
    packed = FakeNode(failure=Reply(body, headers={"Content-Encoding": "gzip"}))
    with serve_rpc(packed) as url:
        async with open_client([url]) as client:
            with pytest.raises(ChainUnavailable, match="not JSON"):
                await client.call("eth_blockNumber")
