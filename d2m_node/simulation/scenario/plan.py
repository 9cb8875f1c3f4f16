"""A scenario as it is simulated: what the tables of its file say, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from d2m_node.request_file import RequestFile
from d2m_node.simulation.computing.federation import DataPlan
from d2m_node.simulation.hostile.kinds import Hostile
from d2m_node.simulation.nodes.names import Sizes
from d2m_node.simulation.scenario.faults import Fault, RandomFaults
from protocol.params import ProtocolParams

YODA: Final = "yoda"
OSMD: Final = "osmd"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """How messages and bytes travel. Draws are made per message, from the seed."""

    delay_seconds: tuple[float, float] = (0.02, 0.2)
    """Least and most, drawn per link."""
    jitter_seconds: float = 0.0
    """So much longer at most a message takes."""
    bytes_per_second: int = 0
    """What a node uploads of blobs; 0: no limit."""
    loss: float = 0.0
    duplicate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlan:
    """How blocks come, and when nodes see them."""

    block_seconds: float = 12.0
    delay_seconds: tuple[float, float] = (0.05, 0.5)
    """From a block to the moment at which a node has folded it; drawn per node."""
    confirmations: int = 0
    """So many blocks more a node waits before it acts on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A scenario as a person wrote it, checked."""

    seed: int
    sizes: Sizes
    data: DataPlan
    request: RequestFile
    params: ProtocolParams
    chain: ChainPlan
    network: NetworkPlan
    training_seconds: float
    """Of the simulated clock, for one training."""
    hostile_cones: tuple[Hostile, ...]
    hostile_sellers: tuple[Hostile, ...]
    faults: tuple[Fault, ...]
    random_faults: RandomFaults | None
    ablate: tuple[str, ...]
    table: Mapping[str, object]
    """What it was read from, for the record."""
