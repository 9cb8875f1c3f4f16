"""What a benchmark gives, and how it is measured.

Each ``bench_*.py`` has ``run(plan: Plan) -> list[Row]``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

SLOW_SECONDS = 20.0
"""What takes so long is measured once: its repetitions would say little and cost much."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    repetitions: int = 5
    max_values: int | None = None
    """Leave out cases with more numbers in their inputs."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of one contender, once per repetition."""

    name: str
    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case: our time, the others' on the same inputs, and what else was measured."""

    case: str
    ours: Timing
    others: tuple[Timing, ...]
    peak_memory: float | None = None
    """Largest memory of our call, its inputs included, in sizes of its inputs."""


def measure_in_turn(
    contenders: Mapping[str, Callable[[], object]],
    repetitions: int,
    clock: Callable[[], float] = perf_counter,
) -> tuple[Timing, ...]:
    """Time the contenders one after the other, again and again, after one round unmeasured.

    So a machine that is busy for a while slows all of them, not one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(repetitions + 1):
        for name, call in contenders.items():
            if seconds[name] and seconds[name][0] > SLOW_SECONDS:
                continue
            start = clock()
            call()
            elapsed = clock() - start
            if repetition or elapsed > SLOW_SECONDS:
                seconds[name].append(elapsed)
    return tuple(Timing(name, tuple(times)) for name, times in seconds.items())
