"""JSON-RPC endpoints on local sockets that answer as a test says."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Batch = list[dict[str, Any]]

NOBODY = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drip: Iterator[bytes] | None = None
    """Sent piece by piece after the body; the client is told to wait for more."""


@contextmanager
def serve_rpc(answer: Callable[[Batch], Reply]) -> Iterator[str]:
    """Answer each POST with what ``answer`` makes of the batch, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not body:
                self.close_connection = True  # the client hung up
                return
            reply = answer(json.loads(body))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) + (10**9 if reply.drip else 0)))
            self.end_headers()
            try:
                self.wfile.write(reply.body)
                for piece in reply.drip or ():
                    self.wfile.write(piece)
            except OSError:
                self.close_connection = True  # the client hung up

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(slots=True)
class FakeNode:
    """A chain of which only the id and the height are known, and that can fail in many ways."""

    chain_id: int = 7
    head: int = 10
    asked: list[str] = field(default_factory=list)
    failure: Reply | None = None
    """What is said to everything."""
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Error codes and messages by method."""

    def __call__(self, batch: Batch) -> Reply:
        self.asked += [one["method"] for one in batch]
        if self.failure is not None:
            return self.failure
        # Out of order, as JSON-RPC allows.
        answers = [self._answer(one) for one in reversed(batch)]
        return Reply(json.dumps(answers).encode())

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        block = {"number": hex(self.head), "hash": "0x" + "11" * 32, "parentHash": "0x" + "22" * 32}
        results = {
            "eth_chainId": hex(self.chain_id),
            "eth_blockNumber": hex(self.head),
            "eth_getBlockByNumber": {**block, "logsBloom": "0x" + "00" * 256},
        }
        method = request["method"]
        if method in results and method not in self.refusals:
            return {"jsonrpc": "2.0", "id": request["id"], "result": results[method]}
        code, message = self.refusals.get(method, (-32601, "no such method"))
        return {"id": request["id"], "error": {"code": code, "message": message}}
