"""The tables of a scenario file, with the range of each number."""

from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta

from d2m_node.simulation.computing.federation import DatasetName
from d2m_node.simulation.hostile.kinds import DrawnTable, HostileTable
from d2m_node.simulation.scenario.faults import FaultTable, RandomFaultsTable
from d2m_node.simulation.tables import Table

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Share = Annotated[float, Meta(ge=0, le=1)]


class DataTable(Table, frozen=True, kw_only=True):
    dataset: DatasetName = "digits"
    alpha: Decimal = Decimal("0.5")
    validation_samples: Annotated[int, Meta(ge=2, le=1_000_000)]
    test_samples: Annotated[int, Meta(ge=1)] | None = None
    samples_per_seller: Annotated[int, Meta(ge=10)] | None = None
    held_out_samples: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class SizesTable(Table, frozen=True, kw_only=True):
    buyers: Annotated[int, Meta(ge=1, le=64)] = 1
    sellers: Annotated[int, Meta(ge=3, le=256)]
    cones: Annotated[int, Meta(ge=1, le=64)]


class ChainTable(Table, frozen=True, kw_only=True):
    block_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 12.0
    delay_seconds: tuple[Seconds, Seconds] | None = None
    confirmations: Annotated[int, Meta(ge=0, le=64)] = 0


class NetworkTable(Table, frozen=True, kw_only=True):
    delay_seconds: tuple[Seconds, Seconds] = (0.02, 0.2)
    jitter_seconds: Seconds = 0.0
    bytes_per_second: Annotated[int, Meta(ge=0)] = 0
    loss: Share = 0.0
    duplicate: Share = 0.0


class HostileNodes(Table, frozen=True, kw_only=True):
    cones: list[HostileTable] = msgspec.field(default_factory=list)
    sellers: list[HostileTable] = msgspec.field(default_factory=list)
    drawn: DrawnTable = DrawnTable()


class ScenarioTable(Table, frozen=True, kw_only=True):
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    sizes: SizesTable
    data: DataTable
    request: dict[str, object]
    params: dict[str, object] = msgspec.field(default_factory=dict)
    chain: ChainTable = ChainTable()
    network: NetworkTable = NetworkTable()
    training_seconds: Seconds | None = None
    hostile: HostileNodes = HostileNodes()
    faults: list[FaultTable] = msgspec.field(default_factory=list)
    random_faults: RandomFaultsTable | None = None
    ablate: list[str] = msgspec.field(default_factory=list)
