"""Who may knock: on the unix socket its owner, over TCP whoever brings a token, and no browser."""

from collections.abc import Collection, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

from d2m_node.client import ErrorCode, Scope
from d2m_node.rpc.tokens import Tokens

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_SCHEME: Final = "bearer "


class Refused(Exception):
    """A request is not taken."""

    def __init__(self, code: ErrorCode, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Gate(Protocol):
    """Decides of each request, by its headers, what its sender may do."""

    def admit(self, headers: Mapping[str, str]) -> Scope:
        """Return the sender's scope. Raises Refused."""


class SocketGate:
    """The file's mode lets nobody in but the node's own user, and no browser speaks to it."""

    def admit(self, headers: Mapping[str, str]) -> Scope:  # noqa: ARG002
        """Return the scope of the operator."""
        return Scope.ADMIN


class TokenGate:
    """Asks for a token, and refuses what a web page may have made a browser send."""

    def __init__(self, tokens: Tokens, hosts: Collection[str]) -> None:
        """Take requests to ``hosts``, names and addresses without ports, and to loopback."""
        self._tokens = tokens
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}

    def admit(self, headers: Mapping[str, str]) -> Scope:
        """Return what the bearer of the token may do. Raises Refused."""
        host = headers.get("host", "")
        if _hostname_of(f"//{host}") not in self._hosts:
            # A page whose name was made to point here would come with its own name.
            message = f"Host: {host[:100]!r} is no name of this node; rpc.hosts lists them"
            raise Refused(ErrorCode.FORBIDDEN, message, status=403)
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host.lower()}":
            message = "requests of other web pages are refused (Origin)"
            raise Refused(ErrorCode.FORBIDDEN, message, status=403)
        authorization = headers.get("authorization", "")
        text = authorization[len(_SCHEME) :].strip()
        is_bearer = authorization[: len(_SCHEME)].lower() == _SCHEME
        scope = self._tokens.scope_of(text) if is_bearer else None
        if scope is None:
            message = "give a token that counts as Authorization: Bearer; rpc.tokens holds them"
            raise Refused(ErrorCode.UNAUTHORISED, message, status=401)
        return scope


def _hostname_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
