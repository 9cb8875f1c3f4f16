"""What a role can be told to do, and where it stands."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from protocol.types import Wei

ROLES: Final = ("buyer", "seller", "cone")


class RoleState(Enum):
    """Where a role stands."""

    ON = "on"
    DRAINING = "draining"
    """It takes no new job, finishes what it began, and is off then."""
    CLOSING = "closing"
    """It opens what it has committed to, begins nothing, and is off then."""
    FAILED = "failed"
    """It is to be on, and could not start."""
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleOptions:
    """What an operator may say when switching a role on; None leaves it to the settings."""

    dataset: Path | None = None
    stake_wei: Wei | None = None
    payment_key: str | None = None
    """Names what switching the role on pays: under the same key it is paid once."""
