"""Where a node answers: on its unix socket, or over TCP to whoever brings a token."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from d2m_node.client.method import ErrorCode
from d2m_node.errors import NodeError, TransientError, UserError

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 600.0
"""Some calls wait for the chain to confirm."""

TIMEOUT: Final = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)


class NodeUnreachable(TransientError):
    """No node answers there."""


class CallRefused(NodeError):
    """The node answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_answer(response: httpx.Response) -> object:
    """Return the result in an answer. Raises CallRefused."""
    if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
        raise CallRefused(ErrorCode.INTERNAL, "the node failed inside; its log says where")
    try:
        answer = response.json()
    except ValueError as exc:
        raise CallRefused(ErrorCode.NO_JSON, "the answer is no JSON; is it a d2m-node?") from exc
    error = answer.get("error")
    if error is not None:
        raise CallRefused(int(error["code"]), str(error["message"]))
    result: object = answer.get("result")
    return result


@dataclass(frozen=True, slots=True)
class TcpPlace:
    """A node's TCP listener, and the file that holds the token for it."""

    url: str
    """Like http://127.0.0.1:9394."""
    token_file: Path
    """Read for each call, because the node replaces it before the token expires."""


class Place:
    """Where to connect, and what to say about it when nobody is there."""

    def __init__(self, given: Path | TcpPlace) -> None:
        self._given = given
        self._socket = given if isinstance(given, Path) else None

    @property
    def base_url(self) -> str:
        """What requests begin with."""
        return "http://node/" if isinstance(self._given, Path) else self._given.url

    @property
    def socket(self) -> str | None:
        """The unix socket, if it is one."""
        return None if self._socket is None else str(self._socket)

    @property
    def checks_certificates(self) -> bool:
        """Nothing is encrypted on a socket, and reading the certificates takes a while."""
        return self._socket is None

    @property
    def auth(self) -> httpx.Auth | None:
        """What adds the token."""
        return None if isinstance(self._given, Path) else _TokenFile(self._given.token_file)

    def check(self) -> None:
        """Raise NodeUnreachable if there is no socket: httpcore would leave its own one open."""
        try:
            self.check_connect()
        except httpx.ConnectError as exc:
            raise self.explain(exc) from exc

    def check_connect(self) -> None:
        """Raise httpx.ConnectError if there is no socket, as connecting would."""
        if self._socket is not None and not self._socket.exists():
            raise httpx.ConnectError("no such file")

    def explain(self, error: httpx.TransportError) -> NodeUnreachable:
        """Return what a failed request means."""
        place = self.socket or self.base_url
        if isinstance(error, httpx.ConnectError):
            return NodeUnreachable(f"no node answers on {place}; start it with d2m-node run")
        return NodeUnreachable(f"the node on {place} stopped answering: {type(error).__name__}")


class _TokenFile(httpx.Auth):
    """Sends the token that a file holds now."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token to a request. Raises UserError if the file cannot be read."""
        try:
            token = self._path.read_text().strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise UserError(f"{self._path}: the token cannot be read: {exc}") from exc
        request.headers["Authorization"] = f"Bearer {token}"
        yield request
