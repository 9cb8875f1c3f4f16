"""A server of a few files on this machine, that can be told to misbehave."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves bytes by path, with ranges."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut_after: int | None = None
        """Close each connection after so many bytes of a body."""
        self.ignores_ranges = False
        self.shift = 0
        """Answer a range from so many bytes further on."""
        self.asked: list[tuple[str, str | None]] = []
        """Path and range of each request."""
        self.port = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def open_file_server() -> Iterator[FileServer]:
    """Serve until the context closes."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            if self.path not in state.files:
                self.send_error(404)
                return
            data, start = state.files[self.path], 0
            if wanted and not state.ignores_ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) + state.shift
                if start >= len(data):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            with suppress(ConnectionError):  # who is sent too much hangs up
                self.wfile.write(data[start:][: state.cut_after])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
