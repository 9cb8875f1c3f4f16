"""Which nodes of a scenario are hostile, and how: the tables ``hostile.cones`` and ``.sellers``."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from d2m_node.errors import UserError
from d2m_node.ports import Samples
from d2m_node.simulation.computing.federation import CLASSES
from d2m_node.simulation.hostile.data_attacks import DATA_ATTACKS
from d2m_node.simulation.hostile.update_attacks import UPDATE_ATTACKS
from d2m_node.simulation.tables import Table
from protocol.hashing import hash_domain

CONE_KINDS: Final = ("random", "stale", "collude", "withhold", "copy", "equivocate")
CONDUCT_KINDS: Final = ("partial", "equivocate")
"""Sellers that train honestly, and cheat with what they say or serve."""
SELLER_KINDS: Final = (*UPDATE_ATTACKS, *DATA_ATTACKS, *CONDUCT_KINDS)
ALIKE: Final = 0.5
"""Chance that a drawn node attacks as the one before does."""
FLAWS: Final = ("noisy", "poor")
"""Sellers that mean well: their data are worth less."""


class HostileTable(Table, frozen=True, kw_only=True):
    """One kind of hostile node, and how many there are: a share of the role, or a count."""

    kind: str
    share: Annotated[float, Meta(ge=0, le=1)] | None = None
    count: Annotated[int, Meta(ge=0)] | None = None
    options: dict[str, float] = msgspec.field(default_factory=dict)
    """Of an attack on updates: its numbers, by name."""


class DrawnTable(Table, frozen=True, kw_only=True):
    """Hostile nodes whose number and kinds the seed draws: up to so many of a role."""

    cones_max: Annotated[int, Meta(ge=0, le=64)] = 0
    sellers_max: Annotated[int, Meta(ge=0, le=256)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """So many nodes of one kind."""

    kind: str
    count: int
    options: Mapping[str, float]


def draw_hostile(role: str, most: int, seed: int) -> tuple[Hostile, ...]:
    """Draw how many nodes of a role are hostile, up to so many, and of which kinds.

    Every second one is of the kind of the one before: some attacks take several that collude.
    """
    kinds = CONE_KINDS if role == "cones" else SELLER_KINDS
    generator = random.Random(f"{seed}/drawn/{role}")  # noqa: S311 - a scenario, no secret
    drawn: list[str] = []
    for _ in range(generator.randint(0, most)):
        is_alike = bool(drawn) and generator.random() < ALIKE
        drawn.append(drawn[-1] if is_alike else generator.choice(kinds))
    return tuple(
        Hostile(kind=kind, count=drawn.count(kind), options={}) for kind in sorted(set(drawn))
    )


def read_hostile(
    role: str, tables: Sequence[HostileTable], size: int, drawn: Sequence[Hostile] = ()
) -> tuple[Hostile, ...]:
    """Check the tables of a role with so many nodes, of which some are drawn.

    Raises UserError that names the key.
    """
    kinds = CONE_KINDS if role == "cones" else SELLER_KINDS
    found: list[Hostile] = list(drawn)
    for position, table in enumerate(tables):
        key = f"hostile.{role}[{position}]"
        if table.kind not in kinds:
            raise UserError(f"{key}.kind: {table.kind!r} is none of {', '.join(kinds)}")
        if (table.share is None) == (table.count is None):
            raise UserError(f"{key}: give either share or count")
        _check_options(key, table)
        count = int(table.share * size + 0.5) if table.share is not None else table.count or 0
        found.append(Hostile(kind=table.kind, count=count, options=table.options))
    total = sum(one.count for one in found)
    if total > size:
        raise UserError(f"hostile.{role}: {total} hostile nodes, and there are {size}")
    return tuple(found)


def _check_options(key: str, table: HostileTable) -> None:
    if not table.options:
        return
    if table.kind not in UPDATE_ATTACKS:
        raise UserError(f"{key}.options: {table.kind} has none; remove it")
    try:
        UPDATE_ATTACKS[table.kind](**table.options)
    except TypeError as exc:
        raise UserError(f"{key}.options: not of {table.kind}: {exc}") from exc


def assign_kinds(
    names: Sequence[str], hostile: Sequence[Hostile], seed: int, role: str
) -> dict[str, Hostile]:
    """Draw which nodes are hostile; the same ones for the same seed, more with a larger share."""
    order = list(names)
    random.Random(f"{seed}/hostile/{role}").shuffle(order)  # noqa: S311 - a scenario, no secret
    assigned: dict[str, Hostile] = {}
    for one in hostile:
        for name in order[len(assigned) : len(assigned) + one.count]:
            assigned[name] = one
    return assigned


def spoil_samples(samples: Samples, hostile: Hostile | None, secret: bytes) -> Samples:
    """Return a seller's data with what is wrong with them; ``secret`` is the node's own."""
    corrupt = None if hostile is None else DATA_ATTACKS.get(hostile.kind)
    if corrupt is None:
        return samples
    return corrupt(samples, CLASSES, hash_domain("corrupt", secret))
