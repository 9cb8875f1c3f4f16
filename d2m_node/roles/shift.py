"""Whether a role goes on. A role asks where it would begin something new."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import trio

log = structlog.get_logger(__name__)


class Shift:
    """One role's word from its operator: go on, drain, close, or stop.

    Nothing waits for a change: roles look at it with each block, as they look at the chain.
    """

    def __init__(self, role: str, *, is_draining: bool = False, is_closing: bool = False) -> None:
        self.role = role
        self._is_draining = is_draining
        self._is_closing = is_closing
        self._is_stopping = False
        self._unfinished = 0
        self._all_finished = trio.Event()
        self._all_finished.set()

    @property
    def is_draining(self) -> bool:
        """Tell whether the role takes nothing new, and leaves when what it began is done."""
        return self._is_draining

    @property
    def is_stopping(self) -> bool:
        """Tell whether the node or the role stops: what could wait for its start is not begun."""
        return self._is_stopping or self._is_closing

    @property
    def is_closing(self) -> bool:
        """Tell whether the role is off as soon as it has opened what it committed to."""
        return self._is_closing

    @property
    def is_busy(self) -> bool:
        """Tell whether something is at work whose end others count on."""
        return self._unfinished > 0

    @property
    def takes_jobs(self) -> bool:
        """Tell whether the role may take a new job."""
        return not self._is_draining and not self.is_stopping

    def drain(self) -> None:
        """Take nothing new from now on."""
        if not self._is_draining:
            self._is_draining = True
            log.info("role_draining", role=self.role)

    def close(self) -> None:
        """Begin nothing from now on, and only open what is committed to."""
        if not self._is_closing:
            self._is_closing = True
            log.info("role_closing", role=self.role)

    def resume(self) -> None:
        """Go on as if nobody had wanted the role to leave."""
        if self._is_draining or self._is_closing:
            self._is_draining = self._is_closing = False
            log.info("role_resumed", role=self.role)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Let a node that stops wait for what is done inside: others count on its end."""
        self._unfinished += 1
        if self._unfinished == 1:
            self._all_finished = trio.Event()
        try:
            yield
        finally:
            self._unfinished -= 1
            if self._unfinished == 0:
                self._all_finished.set()

    async def stop(self) -> None:
        """Begin nothing any more; return when nothing is left that others count on."""
        self._is_stopping = True
        if self._unfinished:
            log.info("role_finishing", role=self.role, unfinished=self._unfinished)
        await self._all_finished.wait()
