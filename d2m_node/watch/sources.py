"""Where health and metrics are read from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from d2m_node.clock import ClockFault
from d2m_node.measures import MeasuredChain, MeasuredNetwork, MeasuredStore
from d2m_node.role_control import RoleState
from protocol.types import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the figures are from."""

    account: Address
    chain: MeasuredChain
    network: MeasuredNetwork
    store: MeasuredStore
    roles: Callable[[], Mapping[str, RoleState]]
    """Every role, and where it stands."""
    calls: Mapping[tuple[str, str], int]
    """Calls of the local RPC by method and result."""
    clock_fault: Callable[[], ClockFault | None]
    """What is wrong with this machine's clock, as far as is known."""
    epsilon_budget: float | None
    """What may be spent on each dataset's privacy; None if trainings are not private."""
