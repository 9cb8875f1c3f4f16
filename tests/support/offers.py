"""Small rounds for the rules that experiments compare."""

from collections.abc import Callable, Sequence

import numpy as np

from protocol.baselines.interface import Offers
from protocol.fixed_point import Int32
from protocol.hashing import keccak

SEED = keccak(b"a round")
DIMENSIONS = 60


def refuse_to_measure(updates: Sequence[Int32]) -> Sequence[int]:
    """Stand for an evaluation that must not take place: it is dear."""
    raise AssertionError(f"{len(updates)} updates were evaluated")


def make_offers(
    rows: Sequence[Sequence[int]],
    *,
    sellers: Sequence[int] | None = None,
    measure: Callable[[Sequence[Int32]], Sequence[int]] = refuse_to_measure,
    seed: bytes = SEED,
    previous_step: Sequence[int] | None = None,
    sample_counts: tuple[int, ...] | None = None,
) -> Offers:
    """Offer the rows, by default of sellers 0, 1, ..."""
    return Offers(
        sellers=tuple(range(len(rows)) if sellers is None else sellers),
        updates=tuple(np.array(row, dtype=np.int32) for row in rows),
        measure=measure,
        seed=seed,
        previous_step=None if previous_step is None else np.array(previous_step, dtype=np.int32),
        sample_counts=sample_counts,
    )


def make_updates(count: int, seed: int = 5) -> list[list[int]]:
    """Honest updates: a common direction, and as much of their own."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, 20_000, DIMENSIONS)
    own = generator.normal(0, 20_000, (count, DIMENSIONS))
    return np.rint(common + own).astype(int).tolist()


def measure_sum(updates: Sequence[Int32]) -> list[int]:
    """Give some utility that differs between any two updates."""
    return [int(update[:7].sum()) for update in updates]
