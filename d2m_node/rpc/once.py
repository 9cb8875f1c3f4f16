"""Calls that move money: the same idempotency key never does so twice, across crashes too.

Before a call acts, the journal holds what its key stands for: the method, and a hash of what is to
be done. After it, the journal holds the answer. So a key has one of three fates:

- It was never used: the call acts.
- It was used for the same, and answered: the answer is given again, and nothing is done.
- It was used for the same, and there is no answer, because the node died in the middle or the call
  failed: the call acts again under its key. It derives the keys of its transactions from it, and
  the chain port never sends two for one of those.

Used for anything else, it is refused.
"""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
import structlog
import trio

from d2m_node.errors import UserError
from d2m_node.ports import JournalPort

log = structlog.get_logger(__name__)

R = TypeVar("R")

INTENT_KIND: Final = "call"
ANSWER_KIND: Final = "call-answer"


class KeyReused(UserError):
    """An idempotency key was used for something else."""


class _Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal says that a key stands for."""

    method: str
    plan_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidCall:
    """A call under its key. The hash covers all that decides what is done."""

    key: str
    method: str
    plan_hash: bytes


class OnceDesk:
    """Lets each key act once."""

    def __init__(self, journal: JournalPort) -> None:
        self._journal = journal
        self._turns: dict[str, _Turn] = {}

    async def run(self, call: PaidCall, act: Callable[[], Awaitable[R]], answer: type[R]) -> R:
        """Act for a key, or return what that gave before.

        Raises KeyReused, and what the act raises.
        """
        async with self._turn(call.key):
            intent = _Intent(method=call.method, plan_hash=call.plan_hash)
            stored = msgspec.msgpack.decode(
                await self._journal.remember(INTENT_KIND, call.key, msgspec.msgpack.encode(intent)),
                type=_Intent,
            )
            if stored != intent:
                what = "other params" if stored.method == call.method else stored.method
                raise KeyReused(
                    f"idempotency_key: {call.key!r} was used for {what} before; take a new one"
                )
            given = await self._journal.recall(ANSWER_KIND, call.key)
            if given is not None:
                log.info("rpc_answered_again", method=call.method)
                return msgspec.json.decode(given, type=answer)
            result = await act()
            await self._journal.remember(ANSWER_KIND, call.key, msgspec.json.encode(result))
            return result

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncGenerator[None, None]:
        """Let one call at a time work under a key."""
        turn = self._turns.setdefault(key, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[key]


class _Turn:
    """Who works under a key, and how many want to."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.wanted = 0


def hash_plan(plan: object) -> bytes:
    """Return the SHA-256 of a plan's canonical JSON."""
    return hashlib.sha256(msgspec.json.encode(plan, order="sorted")).digest()
