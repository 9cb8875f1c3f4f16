"""Methods that switch roles."""

from typing import Final, Literal

from d2m_node.client.method import Method, NoParams, Params, Result

Role = Literal["buyer", "seller", "cone"]


class RoleParams(Params, frozen=True, kw_only=True):
    role: Role


class EnableRoleParams(Params, frozen=True, kw_only=True):
    role: Role
    dataset: str | None = None
    """For a seller: the absolute path of a dataset.toml, in place of the setting's."""
    stake_wei: int | str | None = None
    """For a CONE node: what it keeps staked, in place of the setting's; "5ether" is read too."""


class RoleView(Result, frozen=True, kw_only=True):
    role: str
    enabled: bool


LIST_ROLES: Final = Method("roles.list", NoParams, list[RoleView], "roles, on or off")
ENABLE_ROLE: Final = Method("roles.enable", EnableRoleParams, list[RoleView], "switch a role on")
DISABLE_ROLE: Final = Method("roles.disable", RoleParams, list[RoleView], "switch a role off")
