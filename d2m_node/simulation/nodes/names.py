"""How the nodes of a simulation are called: buyer-1, seller-1, cone-1, counted from one."""

from dataclasses import dataclass
from typing import Final

ROLES: Final = ("buyer", "seller", "cone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many nodes there are of each role."""

    buyers: int = 1
    sellers: int
    cones: int

    def names_of(self, role: str) -> tuple[str, ...]:
        """Return the names of a role's nodes, in order."""
        count = {"buyer": self.buyers, "seller": self.sellers, "cone": self.cones}[role]
        return tuple(f"{role}-{number}" for number in range(1, count + 1))

    @property
    def names(self) -> tuple[str, ...]:
        """Return all names: buyers, sellers, CONE nodes."""
        return tuple(name for role in ROLES for name in self.names_of(role))


def role_of(name: str) -> str:
    """Return the role that a name says."""
    return name.partition("-")[0]


def index_of(name: str) -> int:
    """Return the position of a node among those of its role, from zero."""
    return int(name.partition("-")[2]) - 1
