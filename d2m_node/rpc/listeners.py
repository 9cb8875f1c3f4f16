"""Listening sockets, and the bounds on those who connect.

Hypercorn speaks HTTP. Its own loop bounds neither the number of connections nor the time in which
a client must take what it is sent, and it cannot be stopped while a client takes nothing. So the
loop is ours, and each connection is hypercorn's with a deadline for what it sends.
"""

import logging
import os
import socket as sockets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp

from d2m_node.errors import UserError

log = structlog.get_logger(__name__)

BACKLOG: Final = 64
MAX_CONNECTIONS: Final = 128
"""Of one listener. Whoever comes on top is hung up on."""
HEADER_SECONDS: Final = 5.0
"""For a request's headers to arrive, and for a connection to be of no use."""
SEND_SECONDS: Final = 30.0
"""For a client to take what it is sent; then it is hung up on."""
LINGER_SECONDS: Final = 1.0
"""For answers that are on their way when the node stops."""


async def serve_connections(
    app: ASGIApp,
    listener: trio.SocketListener,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application to all that connect, until cancelled; then let answers leave."""
    stop = trio.Event()
    server = _Server(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, listener, stop)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            stop.set()


class _Server:
    """The accept loop of one listener."""

    def __init__(self, app: ASGIApp) -> None:
        self._config = Config()
        self._config.errorlog = logging.getLogger("hypercorn.error")
        self._config.keep_alive_timeout = HEADER_SECONDS
        self._app = wrap_app(app, self._config.wsgi_max_body_size, "asgi")  # type: ignore[arg-type]
        self._context = WorkerContext(None)
        self._connected = 0

    async def run(self, listener: trio.SocketListener, stop: trio.Event) -> None:
        """Serve until told to stop. Cancelling does not reach what is being answered."""
        with trio.CancelScope(shield=True) as linger:
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    serve = partial(
                        trio.serve_listeners, self._serve, [listener], handler_nursery=connections
                    )
                    accepting.start_soon(serve)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                linger.deadline = trio.current_time() + LINGER_SECONDS
                await self._context.terminated.set()  # idle connections close at once

    async def _serve(self, stream: trio.SocketStream) -> None:
        if self._connected >= MAX_CONNECTIONS:
            log.warning("rpc_connection_refused", connections=self._connected)
            await _hang_up(stream)
            return
        self._connected += 1
        try:
            state = ConnectionState({})
            await _Connection(self._app, self._config, self._context, state, stream).run()  # type: ignore[arg-type]
        except* Exception as failures:  # noqa: BLE001 - hypercorn fails on broken requests
            # Methods answer their own failures; what comes here is of one connection, and ends it.
            # Names alone: texts and frames may hold what was sent, and so a token.
            log.warning("rpc_connection_failed", errors=sorted(_name_leaves(failures)))
        finally:
            self._connected -= 1
            await trio.aclose_forcefully(stream)


class _Connection(TCPServer):
    """One client, in HTTP/1.1 alone: hypercorn's HTTP/2 waits for ever for clients that are gone.

    What a client does not take in time ends its connection; hypercorn alone would wait for it.
    """

    async def run(self) -> None:
        """Serve the client until it is gone, or what it asked for last is done."""
        self._reading = trio.CancelScope()
        try:
            async with TaskGroup() as tasks:
                self._task_group = tasks
                self.protocol = H11Protocol(  # type: ignore[assignment]
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    self.state,  # type: ignore[arg-type]
                    False,
                    None,
                    None,
                    self.protocol_send,
                )
                await self.idle_task.restart(tasks, self._idle_timeout)
                with self._reading:
                    await self._read_data()
                await self.idle_task.stop()  # its place is free at once
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        """Send bytes within `SEND_SECONDS`, or hang up; pass anything else on."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                with trio.fail_after(SEND_SECONDS):
                    await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self._give_up()
            except trio.TooSlowError:
                log.warning("rpc_client_too_slow", seconds=SEND_SECONDS)
                await _hang_up(self.stream)
                await self._give_up()

    async def _give_up(self) -> None:
        """Tell whoever answers that the client is gone, and do not wait for more of it."""
        self._reading.cancel()
        await self.protocol.handle(Closed())


def _name_leaves(group: BaseExceptionGroup[BaseException]) -> set[str]:
    names: set[str] = set()
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            names |= _name_leaves(one)
        else:
            names.add(type(one).__name__)
    return names


async def _hang_up(stream: trio.abc.AsyncResource) -> None:
    """Close at once, whatever is on its way."""
    await trio.aclose_forcefully(stream)


@contextmanager
def open_unix_listener(path: Path) -> Iterator[trio.SocketListener]:
    """Listen on a unix socket of mode 0600; it goes when the context closes.

    A socket that a killed node left is replaced: the lock of the data directory says that no
    other node listens here. Raises UserError.
    """
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    # Closed to others from its first moment on.
    mask = os.umask(0o177)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise UserError(f"rpc.socket: {path}: {exc.strerror or exc}; set another path") from exc
    finally:
        os.umask(mask)
    try:
        yield trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    finally:
        listener.close()
        path.unlink(missing_ok=True)


@contextmanager
def open_tcp_listener(
    address: str, port: int, *, setting: str = "rpc.tcp"
) -> Iterator[trio.SocketListener]:
    """Listen on an address; port 0 takes a free one. Raises UserError that names the setting."""
    family = sockets.AF_INET6 if ":" in address else sockets.AF_INET
    listener = sockets.socket(family, sockets.SOCK_STREAM)
    try:
        listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise UserError(f"{setting}: {address} port {port}: {exc.strerror or exc}") from exc
    try:
        yield trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    finally:
        listener.close()
