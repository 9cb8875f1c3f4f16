"""JSON-RPC over a local socket: failover, nonsense, and the check of the chain."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from d2m_node.chain.client import Request, RequestRefused, RpcClient, parse_bytes, parse_quantity
from d2m_node.errors import ChainUnavailable, WrongNetwork

NOBODY = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


@contextmanager
def serve_rpc(answer: Callable[[list[dict[str, Any]]], bytes]) -> Iterator[str]:
    """Answer each POST with what ``answer`` makes of the batch."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            batch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = answer(batch)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer_chain(chain_id: int) -> Callable[[list[dict[str, Any]]], bytes]:
    """Answer eth_chainId, refuse all else; out of order, as JSON-RPC allows."""

    def answer(batch: list[dict[str, Any]]) -> bytes:
        answers = [
            {"id": one["id"], "result": hex(chain_id)}
            if one["method"] == "eth_chainId"
            else {"id": one["id"], "error": {"code": -32601, "message": "no such method"}}
            for one in batch
        ]
        return json.dumps(answers[::-1]).encode()

    return answer


async def test_answers_come_in_the_order_of_the_requests() -> None:
    with serve_rpc(answer_chain(7)) as url:
        client = RpcClient([url])
        chain_id, refused = await client.batch([Request("eth_chainId"), Request("eth_nothing")])
        client.close()
    assert chain_id == "0x7"
    assert isinstance(refused, RequestRefused)
    assert refused.code == -32601


async def test_a_refused_call_raises_what_the_endpoint_said() -> None:
    with serve_rpc(answer_chain(7)) as url:
        client = RpcClient([url])
        with pytest.raises(RequestRefused, match="no such method"):
            await client.call("eth_nothing")
        client.close()


async def test_the_next_endpoint_is_asked_when_one_is_down() -> None:
    with serve_rpc(answer_chain(7)) as url:
        client = RpcClient([NOBODY, url], chain_id=7)
        assert await client.call("eth_chainId") == "0x7"
        client.close()


async def test_no_endpoint_at_all_is_named_in_the_error() -> None:
    client = RpcClient([NOBODY])
    with pytest.raises(ChainUnavailable, match=NOBODY):
        await client.call("eth_chainId")
    client.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"{}", b"[]", b"[1]", b'[{"id": 1}]', b'{"error": {"code": 1}}', b"\xff"],
)
async def test_an_answer_that_is_no_json_rpc_is_the_endpoints_fault(body: bytes) -> None:
    with serve_rpc(lambda _batch: body) as url:
        client = RpcClient([url])
        with pytest.raises(ChainUnavailable):
            await client.call("eth_chainId")
        client.close()


async def test_an_endpoint_of_another_chain_is_refused_and_named() -> None:
    with serve_rpc(answer_chain(8)) as url:
        client = RpcClient([url], chain_id=7)
        with pytest.raises(WrongNetwork, match=f"{url} serves chain 8.*chain 7"):
            await client.call("eth_chainId")
        client.close()


@pytest.mark.parametrize("value", [None, 5, "", "0x", "zz"])
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
