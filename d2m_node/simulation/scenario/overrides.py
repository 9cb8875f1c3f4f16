"""What a command line says instead of a scenario file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What a command line says instead of the file; None and nothing leave it as it is."""

    seed: int | None = None
    byzantine_share: float | None = None
    """Of the CONE nodes. They attack as the file's first kind does, or collude."""
    ablate: tuple[str, ...] = ()


NOTHING: Final = Overrides()


def override(table: Mapping[str, object], overrides: Overrides) -> dict[str, object]:
    """Put what a command line says into a scenario's table."""
    changed = dict(table)
    if overrides.seed is not None:
        changed["seed"] = overrides.seed
    if overrides.ablate:
        changed["ablate"] = list(overrides.ablate)
    if overrides.byzantine_share is not None:
        hostile = changed.get("hostile")
        nodes = dict(hostile) if isinstance(hostile, dict) else {}
        cones = nodes.get("cones")
        first = cones[0] if isinstance(cones, list) and cones else {}
        kind = first.get("kind", "collude") if isinstance(first, dict) else "collude"
        nodes["cones"] = [{"kind": kind, "share": overrides.byzantine_share}]
        drawn = nodes.get("drawn")
        if isinstance(drawn, dict):
            nodes["drawn"] = {**drawn, "cones_max": 0}
        changed["hostile"] = nodes
    return changed
