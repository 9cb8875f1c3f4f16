"""What CONE nodes compute when a part of Corrected OSMD is left out, or another rule stands in.

All nodes of a simulated job must compute by the same ablation: they vote on its digests as on any
other. Nothing of this is reachable from an ordinary node.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from protocol.aggregation import RoundResult, RoundRules
from protocol.baselines.interface import Aggregate, Aggregator, Feedback, Offers
from protocol.baselines.registry import COMPOSED, create_aggregator
from protocol.baselines.samplers import OsmdSampler
from protocol.baselines.stepped import Stepped
from protocol.digest import NO_UTILITY
from protocol.errors import InvalidParams, TooFewUpdates
from protocol.evaluation import Evaluator, compute_logits_of_all
from protocol.fixed_point import Int32, Int64
from protocol.hashing import hash_domain, word
from protocol.metrics import compute_utility
from protocol.osmd import State, StepRules, compute_floor
from protocol.round import BallotResult, FinalWork, RoundWork, compute_final, conclude_round
from protocol.types import UtilityQ20
from protocol.update import apply_update

_NEEDS_K: Final = frozenset({"gate", "filter", "round-krum"})
_NEEDS_KEEP: Final = "filter"


@dataclass(frozen=True, slots=True)
class Ablation:
    """How sellers are sampled, and how their updates become a step."""

    learns: bool
    """Whether inclusion weights follow utilities (OSMD), or stay equal for ever (uniform)."""
    aggregator: str
    """A name that `protocol.baselines.registry.create_aggregator` takes."""


ABLATIONS: Final[Mapping[str, Ablation]] = MappingProxyType(
    {
        "no-corrected-osmd": Ablation(learns=False, aggregator="fedavg"),
        "no-osmd": Ablation(learns=False, aggregator="corrected-osmd"),
        "no-gate": Ablation(learns=True, aggregator="filter+round-krum"),
        "no-filter": Ablation(learns=True, aggregator="gate+round-krum"),
        "no-krum": Ablation(learns=True, aggregator="gate+filter+fedavg"),
        "osmd-mean": Ablation(learns=True, aggregator="fedavg"),
    }
)
"""By the names that scenario and experiment files use; each leaves out what it says."""


class AblatedExecutor:
    """Computes rounds by an ablation, final evaluations as ever.

    Raises InvalidParams for an unknown name.
    """

    def __init__(self, name: str, evaluate: Evaluator = compute_logits_of_all) -> None:
        if name not in ABLATIONS:
            raise InvalidParams("ablation", f"no {name!r}; known are {', '.join(ABLATIONS)}")
        self._ablation = ABLATIONS[name]
        self._evaluate = evaluate

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Compute the result of a round."""
        return compute_ablated_round(work, self._ablation, self._evaluate)

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Compute the result of a final evaluation."""
        return compute_final(work, self._evaluate)


def build_aggregator(
    name: str, rules: RoundRules, parameters: Mapping[str, object] = MappingProxyType({})
) -> Aggregator:
    """Make an aggregator whose parts have the job's K and the share that its filter keeps.

    Raises InvalidParams.
    """
    parts = {one for part in name.split("+") for one in COMPOSED.get(part, part).split("+")}
    known: dict[str, object] = dict(parameters)
    if parts & _NEEDS_K:
        known["sellers_per_round"] = rules.sellers_per_round
    if _NEEDS_KEEP in parts:
        known["keep_bps"] = rules.keep_bps
    return create_aggregator(name, known)


def compute_ablated_round(
    work: RoundWork, ablation: Ablation, evaluate: Evaluator = compute_logits_of_all
) -> BallotResult:
    """Compute a round's header from its inputs, as `protocol.round.compute_round` does.

    With too few updates for the rule the model stays, and nobody is accepted. The trace holds the
    evaluation of the model before the round.
    """
    rules, before = work.rules, work.before
    meter = _Meter(work, evaluate)
    aggregator = Stepped(build_aggregator(ablation.aggregator, rules), rules.step)
    aggregate = _aggregate(work, aggregator, meter)
    step, accepted = aggregate.step, aggregate.contributors
    parameters = apply_update(before.parameters, step)
    utilities = aggregate.utilities
    if utilities is None:
        utilities = meter.measure_sellers(work.updates) if ablation.learns else {}
    state = _step_sampler(work, utilities) if ablation.learns else before.sampler
    (after,) = meter.evaluate([parameters])
    result = RoundResult(
        parameters=parameters,
        state=state,
        accepted=tuple(accepted),
        utility_before=meter.utility_before,
        utility_after=after,
        utilities=tuple(UtilityQ20(utilities.get(index, NO_UTILITY)) for index in work.sampled),
        logits=meter.logits_before,
        distances=(),
    )
    return conclude_round(work, result)


class _Meter:
    """Measures models on a round's samples."""

    def __init__(self, work: RoundWork, evaluate: Evaluator) -> None:
        self._work = work
        self._evaluate = evaluate
        self.logits_before: Int64 = evaluate(
            work.rules.model, (work.before.parameters,), work.samples
        )
        self.utility_before = self._score(self.logits_before[0])

    def evaluate(self, candidates: Sequence[Int32]) -> list[UtilityQ20]:
        """Return the utilities of some parameters."""
        logits = self._evaluate(self._work.rules.model, candidates, self._work.samples)
        return [self._score(one) for one in logits]

    def measure(self, updates: Sequence[Int32]) -> list[int]:
        """Return what each update alone improves."""
        start = self._work.before.parameters
        models = [apply_update(start, update) for update in updates]
        return [utility - self.utility_before for utility in self.evaluate(models)]

    def measure_sellers(self, updates: Mapping[int, Int32]) -> dict[int, int]:
        """Return what each seller's update alone improves."""
        return dict(zip(updates, self.measure(list(updates.values())), strict=True))

    def _score(self, logits: Int64) -> UtilityQ20:
        return compute_utility(self._work.rules.metric, logits, self._work.labels)


def _aggregate(work: RoundWork, aggregator: Aggregator, meter: _Meter) -> Aggregate:
    sellers = tuple(sorted(work.updates))
    start, previous = work.before.parameters, work.before.previous_parameters
    try:
        offers = Offers(
            sellers=sellers,
            updates=tuple(work.updates[index] for index in sellers),
            measure=meter.measure,
            seed=hash_domain("ablation", word(work.round_index), work.before.previous_digest),
            previous_step=None if previous is None else start - previous,
        )
        return aggregator.aggregate(offers)
    except TooFewUpdates:
        return Aggregate(step=start * 0, contributors=(), utilities={})


def _step_sampler(work: RoundWork, utilities: Mapping[int, int]) -> State:
    rules, before = work.rules, work.before
    floor = compute_floor(len(before.sampler), rules.sellers_per_round, rules.alpha_bps)
    sampler = OsmdSampler(before.sampler, StepRules(rules.eta_q16, floor), before.misses)
    absent = frozenset(work.sampled) - work.updates.keys()
    return sampler.step(Feedback(drawn=work.sampled, absent=absent, utilities=utilities)).state
