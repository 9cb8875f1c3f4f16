"""`/healthz`, `/readyz` and `/metrics` over plain HTTP, for programs on this machine.

Nothing is secret here and nothing can be changed, so there is no token. Requests that name another
host are refused: a web page whose name was made to point here must not read the balance.
"""

from collections.abc import Sequence
from typing import Final

import structlog
import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from d2m_node.errors import FatalError
from d2m_node.rpc.listeners import open_tcp_listener, serve_connections
from d2m_node.settings import WatchSettings
from d2m_node.user_input import parse_listen_address
from d2m_node.watch.exposition import Exposition
from d2m_node.watch.health import Check, Health
from d2m_node.watch.reading import Reader

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]", "::1")
_NOT_KEPT: Final = {"cache-control": "no-store"}

log = structlog.get_logger(__name__)


async def serve_watch(
    settings: WatchSettings,
    health: Health,
    reader: Reader,
    exposition: Exposition,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer until cancelled. Started, with the port, once connections are taken.

    Raises UserError if the address is not to be had.
    """
    assert settings.listen is not None
    address, asked = parse_listen_address(settings.listen)
    app = make_app(health, reader, exposition, hosts=(address, *settings.hosts))
    with open_tcp_listener(address, asked, setting="watch.listen") as listener:
        port: int = listener.socket.getsockname()[1]
        log.info("watch_ready", address=address, port=port)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_connections, app, listener)
            task_status.started(port)


def make_app(
    health: Health, reader: Reader, exposition: Exposition, *, hosts: Sequence[str]
) -> Starlette:
    """Return the application; ``hosts`` are further names by which it may be called."""
    lock = trio.Lock()

    async def healthz(_: Request) -> Response:
        return _answer("alive", await health.check_liveness())

    async def readyz(_: Request) -> Response:
        return _answer("ready", await health.check_readiness())

    async def metrics(request: Request) -> Response:
        async with lock:  # one reading at a time, however many ask
            try:
                reading = await reader.read()
            except FatalError as exc:  # whoever needs the store will stop the node; not a scrape
                log.warning("metrics_not_read", reason=str(exc))
                return PlainTextResponse(f"{exc}\n", status_code=503, headers=_NOT_KEPT)
            body, content_type = exposition.render(reading, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, **_NOT_KEPT})

    allowed = [*LOOPBACK_NAMES, *hosts, *(f"[{host}]" for host in hosts if ":" in host)]
    routes = [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)
    return Starlette(routes=routes, middleware=[guard])


def _answer(word: str, checks: Sequence[Check]) -> Response:
    is_ok = all(check.is_ok for check in checks if check.is_needed)
    told = {check.name: {"ok": check.is_ok, "detail": check.detail} for check in checks}
    status = 200 if is_ok else 503
    return JSONResponse({word: is_ok, "checks": told}, status_code=status, headers=_NOT_KEPT)
