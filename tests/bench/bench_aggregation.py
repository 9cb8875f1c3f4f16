"""Corrected OSMD against the Krum of byzfl and of Flower.

Ours is the whole of a round but the evaluation: gate, filter, Krum, mean, step, and the next
inclusion weights, in exact integers (MECHANISM 13). The others only choose one update. All get the
same updates: we as int32, the others as the float32 of the same values, in the form that suits
them best; only their aggregation is timed.
"""

import sys
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import numpy as np

from protocol.aggregation import (
    DEFAULT_KEEP_BPS,
    RoundInputs,
    RoundResult,
    RoundRules,
    aggregate_round,
    compute_tolerated,
)
from protocol.fixed_point import Int32
from protocol.model import logreg
from protocol.osmd import DEFAULT_ALPHA_BPS, DEFAULT_ETA_Q16, initial_state
from protocol.terms import Metric
from protocol.update import MAX_UPDATE, dequantise
from tests.bench.rows import Plan, Row, measure_in_turn

SIZES = ((50, 100_000), (200, 100_000), (200, 1_000_000), (50, 10_000_000))
"""Sellers, all of them sampled, and parameters."""

LABELS = np.arange(100) % 10


def run(plan: Plan) -> list[Row]:
    """Measure every size."""
    return [
        measure(count, length, plan.repetitions)
        for count, length in SIZES
        if plan.max_values is None or count * length <= plan.max_values
    ]


def measure(count: int, length: int, repetitions: int) -> Row:
    """Compare at one size."""
    updates = draw_updates(count, length)
    floats = np.stack([dequantise(update).astype(np.float32) for update in updates])
    tolerated = compute_tolerated(count)
    ours, *others = measure_in_turn(
        {
            "Corrected OSMD": lambda: aggregate(updates),
            "byzfl Krum": prepare_byzfl(floats, tolerated),
            "Flower Krum": prepare_flower(floats, tolerated),
        },
        repetitions,
    )
    return Row(
        case=f"n = {count}, d = {length:,}",
        ours=ours,
        others=tuple(others),
        peak_memory=measure_peak_memory(updates),
    )


def draw_updates(count: int, length: int) -> list[Int32]:
    """Draw updates of sellers with a common direction; all of them pass the gate.

    So nobody's work is spared: every pair is compared.
    """
    generator = np.random.default_rng(count)
    common = generator.standard_normal(length, dtype=np.float32)
    updates = []
    for index in range(count):
        own = generator.standard_normal(length, dtype=np.float32)
        scaled = (20_000 + 100 * index) * (common + own)
        updates.append(np.clip(scaled, -MAX_UPDATE, MAX_UPDATE).astype(np.int32))
    return updates


def aggregate(updates: list[Int32]) -> RoundResult:
    """Compute a round in which the utilities cost nothing: the logits are given."""
    count = len(updates)
    logits = np.random.default_rng(1).integers(-1000, 1000, (2 + count, len(LABELS), 10))
    answers = iter((logits[:-1], logits[-1:]))
    rules = RoundRules(
        model=logreg((1, 4, 4), 10),
        metric=Metric.ACC,
        sellers_per_round=count,
        alpha_bps=DEFAULT_ALPHA_BPS,
        eta_q16=DEFAULT_ETA_Q16[Metric.ACC],
        keep_bps=DEFAULT_KEEP_BPS,
    )
    inputs = RoundInputs(
        parameters=np.zeros(len(updates[0]), dtype=np.int32),
        state=initial_state(count, count),
        misses=(0,) * count,
        sampled=tuple(range(count)),
        updates=dict(enumerate(updates)),
        samples=np.zeros((len(LABELS), 1, 4, 4), dtype=np.uint8),
        labels=LABELS,
    )
    return aggregate_round(rules, inputs, lambda *_: next(answers))


def measure_peak_memory(updates: list[Int32]) -> float:
    """Count what numpy and Python allocate, apart from the timed calls: counting costs time."""
    held = sum(update.nbytes for update in updates)
    tracemalloc.start()
    try:
        aggregate(updates)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return (held + peak) / held


def prepare_byzfl(floats: np.ndarray, tolerated: int) -> Callable[[], object]:
    """Call byzfl on one torch tensor: on numpy it is several times slower."""
    import torch

    if "byzfl" not in sys.modules:
        sys.modules["byzfl"] = make_byzfl_package()
    from byzfl.aggregators import Krum

    krum, vectors = Krum(tolerated), torch.from_numpy(floats)
    return lambda: krum(vectors)


def make_byzfl_package() -> ModuleType:
    """Make the package without what its ``__init__`` runs.

    That imports byzfl's experiments, and they torchvision, whose wheels do not load beside a torch
    without CUDA. The aggregators need nothing of it.
    """
    spec = find_spec("byzfl")
    if spec is None:
        raise ModuleNotFoundError("byzfl is in .venv-bench: start with scripts/bench")
    package = ModuleType("byzfl")
    package.__path__ = list(spec.submodule_search_locations or ())
    return package


def prepare_flower(floats: np.ndarray, tolerated: int) -> Callable[[], object]:
    """Call Flower on what its clients send: a list of arrays and a number of samples each."""
    from flwr.server.strategy.aggregate import aggregate_krum

    results = [([row], 1) for row in floats]
    return lambda: aggregate_krum(results, tolerated, 0)
