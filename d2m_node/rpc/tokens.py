"""Bearer tokens for the TCP listener: one file for each scope, with an expiry, rotated in time.

A token names its scope and its last second, then 256 random bits:

    d2m_read_1798761600_…

A new token is in its file before the old one expires, so that whoever reads the file for each call
never holds a void one. Tokens are compared in constant time, and never logged nor sent.
"""

import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import structlog
import trio

from d2m_node.client import Scope, TokenView
from d2m_node.errors import UserError

log = structlog.get_logger(__name__)

REVIEW_SECONDS: Final = 60.0
"""How often expiries are looked at: the wall clock may be set meanwhile."""

OVERLAP_SECONDS: Final = 300
"""For so long an old token counts beside the new one, unless it is revoked."""

_TOKEN = re.compile(r"d2m_(read|buy|sell|admin)_([0-9]{1,12})_[A-Za-z0-9_-]{43}")
_MAX_FILE_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires: int
    """Last second in which it counts."""


class Tokens:
    """The tokens of one node. Nothing is made before `open`."""

    def __init__(
        self, folder: Path, lifetime_seconds: int, *, now: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._lifetime_seconds = lifetime_seconds
        self._now = now
        self._current: dict[Scope, _Token] = {}
        self._former: list[tuple[Scope, _Token]] = []

    def open(self) -> None:
        """Read the tokens; make those that are missing or about to expire.

        Raises UserError if a file cannot be used, or others may read it.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise UserError(f"rpc.tokens: {self._folder}: {exc.strerror}") from exc
        for scope in Scope:
            token = _read_token(self._path_of(scope), scope)
            if token is not None:
                self._current[scope] = token
        self.review()

    def scope_of(self, text: str) -> Scope | None:
        """Return what a token is for, or None if it does not count."""
        presented, now, found = text.encode(), self._now(), None
        for scope, token in [*self._current.items(), *self._former]:
            # No early end: the time taken says nothing about which token was close.
            is_equal = hmac.compare_digest(token.text.encode(), presented)
            if is_equal and now <= token.expires:
                found = scope
        return found

    def rotate(self, scopes: Collection[Scope] = (), *, revoke: bool = False) -> list[TokenView]:
        """Make new tokens, of all scopes if none is named; write each before it counts.

        The old one counts for `OVERLAP_SECONDS` more, or until a restart; not if it is revoked.
        Raises UserError if a file cannot be written.
        """
        now = int(self._now())
        for scope in sorted(scopes or Scope):
            expires = now + self._lifetime_seconds
            token = _Token(f"d2m_{scope}_{expires}_{secrets.token_urlsafe(32)}", expires)
            _write_token(self._path_of(scope), token.text)
            old = self._current.get(scope)
            if revoke:
                self._former = [one for one in self._former if one[0] is not scope]
            elif old is not None:
                last = min(old.expires, now + OVERLAP_SECONDS)
                self._former.append((scope, _Token(old.text, last)))
            self._current[scope] = token
            log.info("rpc_token_rotated", scope=scope.value, expires=expires, revoked=revoke)
        return self.view()

    def view(self) -> list[TokenView]:
        """Return where the tokens are, and until when they count."""
        return [
            TokenView(scope=scope, path=str(self._path_of(scope)), expires=token.expires)
            for scope, token in sorted(self._current.items())
        ]

    def review(self) -> None:
        """Rotate what is missing or about to expire, and forget what has expired."""
        now = self._now()
        due = [
            scope
            for scope in Scope
            if scope not in self._current or self._current[scope].expires - OVERLAP_SECONDS < now
        ]
        if due:
            self.rotate(due)
        self._former = [one for one in self._former if one[1].expires >= now]

    async def run(self) -> NoReturn:
        """Rotate each token in time, until cancelled; one that cannot be written is tried again."""
        while True:
            await trio.sleep(REVIEW_SECONDS)
            try:
                self.review()
            except UserError as failure:  # calls over TCP are refused; the node's work goes on
                log.error("rpc_token_not_rotated", reason=str(failure))

    def _path_of(self, scope: Scope) -> Path:
        return self._folder / scope.value


def _read_token(path: Path, scope: Scope) -> _Token | None:
    """Return the token in a file, or None if there is no file. Raises UserError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise UserError(f"rpc.tokens: {path}: {exc.strerror}") from exc
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise UserError(
                f"rpc.tokens: {path} has mode {mode:o}, so others may have read it; "
                "delete it, and the node makes a new one"
            )
        text = file.read(_MAX_FILE_BYTES).decode(errors="replace").strip()
    match = _TOKEN.fullmatch(text)
    if match is None or match[1] != scope.value:
        raise UserError(f"rpc.tokens: {path} holds no {scope.value} token; delete it")
    return _Token(text, int(match[2]))


def _write_token(path: Path, text: str) -> None:
    """Replace a token's file in one step; a crash leaves the old one or the new one."""
    new = path.with_suffix(".new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except OSError as exc:
        raise UserError(f"rpc.tokens: {path}: {exc.strerror}") from exc
