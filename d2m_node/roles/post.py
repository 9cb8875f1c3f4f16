"""What the node gives to each of its roles."""

from dataclasses import dataclass

from d2m_node.ports import Ports
from d2m_node.roles.refusals import Refusals
from d2m_node.roles.rooms import Rooms
from d2m_node.roles.shift import Shift


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One role's place in the node."""

    ports: Ports
    rooms: Rooms
    shift: Shift
    refusals: Refusals
