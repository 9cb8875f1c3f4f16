"""Corrected OSMD, one round: updates to the next parameters, and who was accepted.

Source: MECHANISM 13 (normative), 10.3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from protocol.digest import NO_UTILITY
from protocol.evaluation import Evaluator, compute_logits_of_all
from protocol.fixed_point import Int32, Int64
from protocol.gate import Candidates, select_aligned, select_candidates
from protocol.krum import select_krum
from protocol.linear_algebra import compute_rounded_mean
from protocol.metrics import compute_utility
from protocol.model import ModelDescription
from protocol.osmd import MISSES_MAX, State, StepRules, compute_floor, update
from protocol.params import BPS
from protocol.samples import SampleArray
from protocol.step import PLAIN_STEP, StepSpec, iter_steps
from protocol.terms import Metric
from protocol.types import UtilityQ20
from protocol.update import apply_update

DEFAULT_KEEP_BPS = 7000
MIN_KEPT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRules:
    """What a job fixes for all its rounds."""

    model: ModelDescription
    metric: Metric
    sellers_per_round: int
    """K."""
    alpha_bps: int
    eta_q16: int
    keep_bps: int
    step: StepSpec = PLAIN_STEP


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundInputs:
    """What a round starts from; all nodes agree on every part of it."""

    parameters: Int32
    """Shape (d,)."""
    previous_parameters: Int32 | None = None
    """Those before the last decided round, for momentum; None if there was none."""
    state: State
    """Inclusion weight per seller."""
    misses: tuple[int, ...]
    """Rounds so far in which each seller was sampled and missing (:func:`count_misses`)."""
    sampled: tuple[int, ...]
    """S_t, ascending."""
    updates: Mapping[int, Int32]
    """The updates of S_t and I_t by seller index, each of shape (d,)."""
    samples: SampleArray
    """V_t, n rows."""
    labels: Int64
    """Shape (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """What a round ends with, and the material of its trace."""

    parameters: Int32
    state: State
    accepted: tuple[int, ...]
    utility_before: UtilityQ20
    utility_after: UtilityQ20
    utilities: tuple[UtilityQ20, ...]
    """Improvement by each sampled seller's update alone; NO_UTILITY if rejected or missing."""
    logits: Int64
    """Shape (1 + candidates, n, outputs): current parameters, then the evaluated candidates."""
    distances: tuple[int, ...]
    """Squared distances of the evaluated candidates, upper triangle, row-major."""


def aggregate_round(
    rules: RoundRules, inputs: RoundInputs, evaluate: Evaluator = compute_logits_of_all
) -> RoundResult:
    """Compute one round; every honest node gets the same bytes, whatever evaluates for it.

    The evaluated candidates are the survivors of the gate's first three checks. One that fails
    the fourth has been evaluated, so it is part of the trace, but counts as rejected.

    Raises
    ------
    ValueError
        If an update is given of a seller that was not sampled, or shapes do not fit.

    Source: MECHANISM 13.
    """
    _validate_updates(inputs)
    candidates = select_candidates(inputs.updates)
    logits = evaluate(rules.model, _iter_models(inputs.parameters, candidates), inputs.samples)
    before, *after = (compute_utility(rules.metric, one, inputs.labels) for one in logits)
    gains = {
        index: UtilityQ20(utility - before)
        for index, utility in zip(candidates.indices, after, strict=True)
    }
    aligned = select_aligned(candidates, gains, rules.sellers_per_round)
    utilities = {index: gains[index] for index in aligned}

    step, accepted = _aggregate(rules, candidates, utilities)
    parameters, utility_after = _move(rules, inputs, step, evaluate)
    return RoundResult(
        parameters=parameters,
        state=_update_state(rules, inputs, utilities),
        accepted=accepted,
        utility_before=before,
        utility_after=utility_after,
        utilities=tuple(utilities.get(index, NO_UTILITY) for index in inputs.sampled),
        logits=logits,
        distances=tuple(_iter_upper_triangle(candidates.distances)),
    )


def _validate_updates(inputs: RoundInputs) -> None:
    if not inputs.updates.keys() <= set(inputs.sampled):
        raise ValueError("an update of a seller that was not sampled")
    for index, one in inputs.updates.items():
        if one.shape != inputs.parameters.shape:
            raise ValueError(
                f"seller {index}: {one.shape} is not the shape {inputs.parameters.shape} of the "
                "parameters"
            )


def _iter_models(parameters: Int32, candidates: Candidates) -> Iterator[Int32]:
    """Yield the parameters, and what each candidate would make of them; one is held at a time."""
    yield parameters
    for candidate in candidates.updates:
        yield apply_update(parameters, candidate.build())


def count_misses(misses: Sequence[int], sampled: int, available: int) -> tuple[int, ...]:
    """Add a decided round to the sellers' misses, from the two bitmaps of its header.

    A miss is to be sampled and not available. Decided headers are on the chain, so every node,
    also one that joins late, counts the same.

    Source: MECHANISM 10.3.
    """
    return tuple(
        count + ((sampled & ~available) >> index & 1) for index, count in enumerate(misses)
    )


def _aggregate(
    rules: RoundRules, candidates: Candidates, utilities: Mapping[int, int]
) -> tuple[Int32 | None, tuple[int, ...]]:
    """Filter by utility, and let KRUM choose whose mean is taken; None if nobody is left."""
    refined = select_refined(utilities, rules.sellers_per_round, rules.keep_bps)
    if not refined:
        return None, ()
    byzantine_count = compute_byzantine_count(rules.sellers_per_round, len(refined))
    position = {index: i for i, index in enumerate(candidates.indices)}
    chosen = [position[index] for index in refined]
    accepted = select_krum(
        refined,
        [[candidates.distances[i][j] for j in chosen] for i in chosen],
        byzantine_count=byzantine_count,
        accepted_count=max(1, len(refined) - byzantine_count),
    )
    return compute_rounded_mean([candidates.updates[position[i]] for i in accepted]), accepted


def _move(
    rules: RoundRules, inputs: RoundInputs, aggregate: Int32 | None, evaluate: Evaluator
) -> tuple[Int32, UtilityQ20]:
    """Take the best step that the request allows; none, without momentum too, if none is paid."""
    start, previous = inputs.parameters, inputs.previous_parameters
    models = [start]
    if aggregate is not None:
        last_step = None if previous is None else start - previous
        models = [
            apply_update(start, step) for step in iter_steps(rules.step, aggregate, last_step)
        ]
    logits = evaluate(rules.model, models, inputs.samples)
    utilities = [compute_utility(rules.metric, one, inputs.labels) for one in logits]
    best = utilities.index(max(utilities))
    return models[best], utilities[best]


def select_refined(
    utilities: Mapping[int, int], sellers_per_round: int, keep_bps: int
) -> tuple[int, ...]:
    """Keep the sellers with the best utilities, ascending: Rf, at most nk. Source: MECHANISM 13."""
    kept_max = max(MIN_KEPT, -(-keep_bps * sellers_per_round // BPS))
    best_first = sorted(utilities, key=lambda index: (-utilities[index], index))
    return tuple(sorted(best_first[:kept_max]))


def compute_byzantine_count(sellers_per_round: int, refined_count: int) -> int:
    """Compute fR, the corrupted sellers that KRUM expects among the refined. Source: MECHANISM 13.

    Those that are lacking or were rejected count as found.
    """
    lacking = sellers_per_round - refined_count
    byzantine_count = max(0, compute_tolerated(sellers_per_round) - lacking)
    if refined_count >= MIN_KEPT:
        byzantine_count = max(1, byzantine_count)
    return byzantine_count


def compute_tolerated(sellers_per_round: int) -> int:
    """Compute f_s, the corrupted sellers tolerated per round: min(floor(0.3 K), (K-3) // 2)."""
    return max(0, min(3 * sellers_per_round // 10, (sellers_per_round - 3) // 2))


def _update_state(rules: RoundRules, inputs: RoundInputs, utilities: Mapping[int, int]) -> State:
    """Move the inclusion weights, and hold at the floor whoever missed three rounds."""
    absent = frozenset(inputs.sampled) - inputs.updates.keys()
    removed = frozenset(
        index
        for index, count in enumerate(inputs.misses)
        if count + (index in absent) >= MISSES_MAX
    )
    floor = compute_floor(len(inputs.state), rules.sellers_per_round, rules.alpha_bps)
    return update(
        inputs.state,
        utilities,
        missing=[index for index in inputs.sampled if index not in utilities],
        rules=StepRules(rules.eta_q16, floor, removed),
    )


def _iter_upper_triangle(matrix: Sequence[Sequence[int]]) -> Iterator[int]:
    for i, row in enumerate(matrix):
        yield from row[i + 1 :]
