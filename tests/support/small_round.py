"""A round of a small classifier, with sellers that are absent, idle or hostile."""

import numpy as np

from protocol.aggregation import RoundInputs, RoundRules
from protocol.hashing import keccak, word
from protocol.model import count_parameters, initial_parameters, logreg
from protocol.osmd import initial_state
from protocol.terms import Metric

MODEL = logreg((1, 4, 4), 3)
ROUND_RULES = RoundRules(
    model=MODEL,
    metric=Metric.ACC,
    sellers_per_round=10,
    alpha_bps=2000,
    eta_q16=1 << 16,
    keep_bps=7000,
)


def make_round_inputs(seed: int) -> RoundInputs:
    """Ten sampled sellers of sixteen: two are absent, one sends noise, one next to nothing."""
    generator = np.random.default_rng(seed)
    length = count_parameters(MODEL)
    sampled = tuple(sorted(generator.choice(16, 10, replace=False).tolist()))
    common = generator.normal(0, 20_000, length)
    updates = {
        index: (common + generator.normal(0, 20_000, length)).astype(np.int32)
        for index in sampled[:8]
    }
    updates[sampled[3]] = generator.normal(0, 28_000, length).astype(np.int32)
    updates[sampled[5]] //= 100
    return RoundInputs(
        parameters=initial_parameters(MODEL, keccak(word(seed))),
        state=initial_state(16, 10),
        misses=(0,) * 16,
        sampled=sampled,
        updates=updates,
        samples=generator.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8),
        labels=np.arange(60) % 3,
    )
