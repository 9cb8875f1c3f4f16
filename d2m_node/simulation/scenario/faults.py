"""What goes wrong in a simulation, by schedule or at random: the tables ``faults``.

Blocks are counted from the first bid's auction on. Random faults are a function of the seed and
the block alone, so that a run with more rounds begins as one with fewer does.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from msgspec import Meta

from d2m_node.errors import UserError
from d2m_node.simulation.nodes.names import Sizes
from d2m_node.simulation.tables import Table
from d2m_node.user_input import explain_unknown_key

FaultKind = Literal[
    "crash", "pause", "cut-chain", "cut-peers", "partition", "reorganisation", "late-block"
]
FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)
OF_NODES: Final = ("crash", "pause", "cut-chain", "cut-peers", "partition")
"""Kinds that happen to nodes, and end; the others happen to the chain at once."""

MAX_DEPTH: Final = 32


class FaultTable(Table, frozen=True, kw_only=True):
    """One scheduled fault."""

    kind: FaultKind
    block: Annotated[int, Meta(ge=0)]
    blocks: Annotated[int, Meta(ge=1)] | None = None
    nodes: tuple[str, ...] = ()
    depth: Annotated[int, Meta(ge=1, le=MAX_DEPTH)] | None = None
    seconds: Annotated[float, Meta(gt=0, le=86_400)] | None = None


class RandomFaultsTable(Table, frozen=True, kw_only=True):
    """Faults drawn from the seed."""

    rate: Annotated[float, Meta(gt=0, le=1)]
    kinds: list[FaultKind] | None = None
    blocks_max: Annotated[int, Meta(ge=1, le=1000)] = 6
    nodes_max: Annotated[int, Meta(ge=1, le=64)] = 1
    depth_max: Annotated[int, Meta(ge=1, le=MAX_DEPTH)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong."""

    kind: FaultKind
    block: int
    """After the auction's opening."""
    blocks: int = 1
    """How long it lasts."""
    nodes: tuple[str, ...] = ()
    """Whom it befalls; of a partition those on one side."""
    depth: int = 1
    """Of a reorganisation: blocks that are replaced."""
    seconds: float | None = None
    """Of a late block: how much later it comes; None: another block's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFaults:
    """How often faults begin, and how bad they are."""

    rate: float
    """Chance of each block that a fault begins with it."""
    kinds: tuple[FaultKind, ...]
    blocks_max: int
    nodes_max: int
    """The most nodes that one fault befalls; those of a partition are twice as many."""
    depth_max: int

    def draw(self, seed: int, block: int, sizes: Sizes) -> Fault | None:
        """Return the fault that begins with a block, if there is one."""
        generator = random.Random(f"{seed}/fault/{block}")  # noqa: S311 - a scenario, no secret
        if generator.random() >= self.rate:
            return None
        kind = generator.choice(self.kinds)
        most = 2 * self.nodes_max if kind == "partition" else self.nodes_max
        count = generator.randint(1, min(most, len(sizes.names)))
        names = tuple(sorted(generator.sample(sizes.names, count)))
        return Fault(
            kind=kind,
            block=block,
            blocks=generator.randint(1, self.blocks_max),
            nodes=names if kind in OF_NODES else (),
            depth=generator.randint(1, self.depth_max),
        )


def read_faults(tables: Sequence[FaultTable], sizes: Sizes) -> tuple[Fault, ...]:
    """Check scheduled faults. Raises UserError that names the key."""
    return tuple(_read(f"faults[{i}]", table, sizes) for i, table in enumerate(tables))


def _read(key: str, table: FaultTable, sizes: Sizes) -> Fault:
    is_of_nodes = table.kind in OF_NODES
    if is_of_nodes and not table.nodes:
        raise UserError(f"{key}.nodes: name at least one node, like cone-1")
    for name in table.nodes:
        if name not in sizes.names:
            raise UserError(f"{key}.nodes: {explain_unknown_key(name, sizes.names)}")
    taken = {
        "nodes": is_of_nodes,
        "blocks": is_of_nodes,
        "depth": table.kind == "reorganisation",
        "seconds": table.kind == "late-block",
    }
    for name, is_taken in taken.items():
        if getattr(table, name) not in (None, ()) and not is_taken:
            raise UserError(f"{key}.{name}: a {table.kind} has none; remove it")
    return Fault(
        kind=table.kind,
        block=table.block,
        blocks=3 if table.blocks is None else table.blocks,
        nodes=tuple(sorted(set(table.nodes))),
        depth=1 if table.depth is None else table.depth,
        seconds=table.seconds,
    )


def read_random_faults(table: RandomFaultsTable | None) -> RandomFaults | None:
    """Check faults at random. Raises UserError that names the key."""
    if table is None:
        return None
    kinds = FAULT_KINDS if table.kinds is None else tuple(sorted(set(table.kinds)))
    if not kinds:
        raise UserError(f"random_faults.kinds: give some of {', '.join(FAULT_KINDS)}")
    return RandomFaults(
        rate=table.rate,
        kinds=kinds,
        blocks_max=table.blocks_max,
        nodes_max=table.nodes_max,
        depth_max=table.depth_max,
    )
