"""Whether a role goes on. A role asks where it would begin something new."""

import structlog

log = structlog.get_logger(__name__)


class Shift:
    """One role's word from its operator: go on, or drain.

    Nothing waits for a change: roles look at it with each block, as they look at the chain.
    """

    def __init__(self, role: str, *, is_draining: bool = False) -> None:
        self.role = role
        self._is_draining = is_draining

    @property
    def is_draining(self) -> bool:
        """Tell whether the role takes nothing new, and leaves when what it began is done."""
        return self._is_draining

    def drain(self) -> None:
        """Take nothing new from now on."""
        if not self._is_draining:
            self._is_draining = True
            log.info("role_draining", role=self.role)

    def resume(self) -> None:
        """Go on as if there had been no drain."""
        if self._is_draining:
            self._is_draining = False
            log.info("role_resumed", role=self.role)
