"""Methods that switch roles."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from d2m_node.client.method import IdempotencyKey, Method, NoParams, Params, Result, Scope

Role = Literal["buyer", "seller", "cone"]

SCOPES: Final[Mapping[str, Scope]] = MappingProxyType(
    {"buyer": Scope.BUY, "seller": Scope.SELL, "cone": Scope.ADMIN}
)
"""What a caller needs to switch a role. Stake is locked for long: a CONE node is the admin's."""


class RoleParams(Params, frozen=True, kw_only=True):
    role: Role


class DisableRoleParams(Params, frozen=True, kw_only=True):
    role: Role
    now: bool = False
    """At once, though votes or bids that are committed and not opened cost stake or a deposit."""


class EnableRoleParams(Params, frozen=True, kw_only=True):
    role: Role
    dataset: str | None = None
    """For a seller: the absolute path of a dataset.toml, in place of the setting's."""
    stake_wei: int | str | None = None
    """For a CONE node: what it keeps staked, in place of the setting's; "5ether" is read too."""
    idempotency_key: IdempotencyKey | None = None
    """For a CONE node, which stakes: the same key never stakes twice. Required there. A role that
    starts again with its node, without a command, deposits what its stake lacks by then."""


RoleStateName = Literal["on", "draining", "closing", "failed", "off"]


class RoleView(Result, frozen=True, kw_only=True):
    role: str
    state: RoleStateName
    """Draining: it takes no new job, finishes what it began, and is off then. Closing: it opens
    what it has committed to, and is off then. Failed: it is to be on, and could not start."""
    note: str | None = None
    """Why it failed, or what it waits for."""


LIST_ROLES: Final = Method(
    "roles.list", NoParams, list[RoleView], "roles, and where each stands", scope=Scope.READ
)
ENABLE_ROLE: Final = Method(
    "roles.enable",
    EnableRoleParams,
    list[RoleView],
    "switch a role on",
    scope=SCOPES,
    pays=True,
)
DISABLE_ROLE: Final = Method(
    "roles.disable",
    DisableRoleParams,
    list[RoleView],
    "switch a role off as soon as it has opened what it committed to",
    scope=SCOPES,
)
DRAIN_ROLE: Final = Method(
    "roles.drain",
    RoleParams,
    list[RoleView],
    "let a role finish what it began, take nothing new, and be off then",
    scope=SCOPES,
)
