"""The learning of a scenario without chain, network and votes: for comparisons, and for search.

Data, partition, hostile sellers and rules are those of the scenario. What a market would draw from
blocks comes from `Sources`; with those of a market's run, the rounds have the market's digests.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from d2m_node.errors import UserError
from d2m_node.ports import Int32Array, TrainingTask
from d2m_node.simulation.computing.federation import Federation, share_out
from d2m_node.simulation.computing.training_pool import InlinePool, Pool
from d2m_node.simulation.hostile.kinds import CONDUCT_KINDS, assign_kinds, spoil_samples
from d2m_node.simulation.hostile.rings import Ring, learn, make_rings
from d2m_node.simulation.learning.rules import Choice, Material, Place, create_rules
from d2m_node.simulation.nodes.identities import make_identity
from d2m_node.simulation.nodes.names import index_of
from d2m_node.simulation.report.outcome import HONEST, NodePayout, Outcome
from d2m_node.simulation.scenario.plan import Scenario
from protocol import settlement
from protocol.aggregation import RoundRules
from protocol.evaluation import Evaluator, compute_logits_of_all
from protocol.fixed_point import Int32, Int64
from protocol.hashing import Domain, hash_domain, keccak, word
from protocol.metrics import compute_utility, predict
from protocol.round import compute_initial_state
from protocol.samples import SampleArray, encode_samples
from protocol.types import Address, Digest, JobId, RoundIndex, UtilityQ20, Wei
from protocol.validation_set import (
    ValidationPart,
    select_part,
    select_round_subset,
    select_samples,
    split_validation_set,
)

ENDED: Final = "ended"
_SEED_BITS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPlan:
    """A scenario, and what is done otherwise than the market does it."""

    scenario: Scenario
    choice: Choice


class Sources(Protocol):
    """What a market takes from its chain and its nodes."""

    @property
    def place(self) -> Place:
        """Market, job and the sellers' accounts by index."""
        ...

    @property
    def sellers(self) -> tuple[str, ...]:
        """Names of the sellers, by index."""
        ...

    @property
    def initial_seed(self) -> Digest:
        """Of the first model."""
        ...

    @property
    def final_seed(self) -> Digest:
        """Of the cut between the samples that measure rounds and those kept for the end."""
        ...

    def seller_seed(self, round_index: int) -> Digest:
        """Of a round's sellers."""
        ...

    def subset_seed(self, round_index: int) -> Digest:
        """Of a round's validation samples."""
        ...

    def training_seed(self, round_index: int, seller: str) -> int:
        """Of the order in which a seller goes through its samples."""
        ...


class SeededSources:
    """Everything from one seed: runs of other rules with the same seed differ in nothing else."""

    def __init__(self, seed: int, sellers: Sequence[str]) -> None:
        self._seed = seed
        self.sellers = tuple(sellers)
        accounts = tuple(Address(self._derive("seller", name)[:20]) for name in sellers)
        market = Address(self._derive("market")[:20])
        self.place = Place(domain=Domain(1, market), job_id=JobId(1), payees=accounts)
        self.initial_seed = self._derive("initial")
        self.final_seed = self._derive("final")

    def seller_seed(self, round_index: int) -> Digest:
        """Of a round's sellers."""
        return self._derive("sellers", round_index)

    def subset_seed(self, round_index: int) -> Digest:
        """Of a round's validation samples."""
        return self._derive("subset", round_index)

    def training_seed(self, round_index: int, seller: str) -> int:
        """Of the order in which a seller goes through its samples."""
        return int.from_bytes(self._derive("training", round_index, seller), "big") >> (
            256 - _SEED_BITS
        )

    def _derive(self, *purpose: object) -> Digest:
        text = "/".join(str(part) for part in purpose)
        return hash_domain("learning", word(self._seed), text.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundNote:
    """What is told of each round while a run goes on."""

    round_index: int
    digest: Digest
    accuracy: float
    """On the test data."""
    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Helpers:
    """Who computes, and who listens; for a test or a faster machine."""

    pool: Pool = field(default_factory=InlinePool)
    evaluate: Evaluator = compute_logits_of_all
    on_round: Callable[[RoundNote], None] = lambda _: None


def run_learning(
    plan: LearningPlan, *, data: Path | None, helpers: Helpers, sources: Sources | None = None
) -> Outcome:
    """Run all rounds of a scenario; the target ends nothing.

    Lists of the outcome that only a market has (votes, gas, bytes) are empty.

    Raises UserError if the data are not there, or as `check_scenario`; InvalidParams for rules that
    do not exist.
    """
    started = time.perf_counter()
    check_scenario(plan.scenario)
    learning = _Learning(plan, data, helpers, sources)
    for round_index in range(plan.scenario.request.terms.rounds_max):
        learning.run_round(RoundIndex(round_index))
    return replace(learning.conclude(), seconds=time.perf_counter() - started)


class _Learning:
    """One run."""

    def __init__(
        self, plan: LearningPlan, data: Path | None, helpers: Helpers, sources: Sources | None
    ) -> None:
        scenario = plan.scenario
        names = scenario.sizes.names_of("seller")
        self._plan = plan
        self._helpers = helpers
        self._sources: Sources = SeededSources(scenario.seed, names) if sources is None else sources
        federation = share_out(scenario.data, len(names), scenario.seed, data)
        self._kinds = assign_kinds(names, scenario.hostile_sellers, scenario.seed, "seller")
        self._rings = make_rings(scenario.hostile_sellers, scenario.seed)
        self._samples = {
            name: spoil_samples(
                samples, self._kinds.get(name), make_identity(scenario.seed, name).secret
            )
            for name, samples in zip(names, federation.sellers, strict=True)
        }
        self._federation = federation
        self._selection, self._final = self._cut(federation)
        self._round_rules = build_round_rules(scenario)
        start = compute_initial_state(self._round_rules, self._sources.initial_seed, len(names))
        self._initial = start.parameters
        self._rules = create_rules(
            plan.choice, self._round_rules, start, self._sources.place, helpers.evaluate
        )
        self._initial_accuracy = self._test(start.parameters)
        self._accuracy: list[float] = []
        self._digests: list[Digest] = []
        self._credits = dict.fromkeys(range(len(names)), 0)

    def run_round(self, round_index: RoundIndex) -> None:
        """Draw sellers, train, aggregate, and test."""
        seller_seed = self._sources.seller_seed(round_index)
        drawn = self._rules.draw(seller_seed)
        updates = self._collect(round_index, drawn)
        samples, labels = self._draw_samples(round_index)
        step = self._rules.run(
            Material(
                round_index=round_index,
                drawn=drawn,
                updates=updates,
                samples=samples,
                labels=labels,
                seed=seller_seed,
            )
        )
        for index in step.accepted:
            self._credits[index] += 1
        self._digests.append(step.digest)
        self._accuracy.append(self._test(self._rules.parameters))
        self._helpers.on_round(
            RoundNote(
                round_index=round_index,
                digest=step.digest,
                accuracy=self._accuracy[-1],
                accepted=step.accepted,
            )
        )

    def conclude(self) -> Outcome:
        """Settle as a market would, and write down what the run came to."""
        scenario = self._plan.scenario
        return Outcome(
            seed=scenario.seed,
            scenario=scenario.table,
            ended=ENDED,
            initial_accuracy=self._initial_accuracy,
            accuracy=tuple(self._accuracy),
            final_accuracy=self._accuracy[-1],
            log_digest=keccak(b"".join(self._digests)).hex(),
            wrong_decisions=0,
            overturned_decisions=0,
            votes=(),
            mini_rounds=(),
            blocks=(),
            gas=(),
            network_bytes=(),
            gas_total=0,
            network_bytes_total=0,
            payouts=self._pay(),
            refused_calls=0,
            virtual_seconds=0.0,
            seconds=0.0,
        )

    def _cut(self, federation: Federation) -> tuple[ValidationPart, ValidationPart]:
        rows, labels = encode_samples(federation.validation.inputs), federation.validation.labels
        split = split_validation_set(
            self._sources.final_seed,
            len(rows),
            self._plan.scenario.request.validation_final_count,
        )
        return select_part(rows, labels, split.selection), select_part(rows, labels, split.final)

    def _draw_samples(self, round_index: RoundIndex) -> tuple[SampleArray, Int64]:
        chosen = select_round_subset(
            self._sources.subset_seed(round_index),
            self._selection.indices,
            self._plan.scenario.request.validation_subset_count,
        )
        return select_samples(self._selection, chosen, self._round_rules.model)

    def _collect(self, round_index: RoundIndex, drawn: Sequence[int]) -> dict[int, Int32]:
        """Let all drawn sellers train, and the hostile ones have their way with what they learn."""
        names = {index: self._sources.sellers[index] for index in dict.fromkeys(drawn)}
        begun: dict[int, Future[Int32Array]] = {}
        meetings: dict[int, bytes] = {}
        for index, name in names.items():
            task, ring = self._build_task(round_index, name), self._find_ring(name)
            begun[index] = learn(self._helpers.pool, task, ring)
            if ring is not None:
                meetings[index] = ring.join(index_of(name), task, begun[index])
        updates: dict[int, Int32] = {}
        for index, name in names.items():
            updates[index] = begun[index].result()
            ring = self._find_ring(name)
            if ring is not None:
                updates[index] = ring.forge(meetings[index], index_of(name), updates[index])
        return updates

    def _find_ring(self, name: str) -> Ring | None:
        hostile = self._kinds.get(name)
        return None if hostile is None else self._rings.get(hostile.kind)

    def _build_task(self, round_index: RoundIndex, name: str) -> TrainingTask:
        return TrainingTask(
            model=self._round_rules.model,
            parameters=self._rules.parameters,
            spec=self._plan.scenario.request.training,
            samples=self._samples[name],
            seed=self._sources.training_seed(round_index, name),
            round_index=round_index,
        )

    def _test(self, parameters: Int32) -> float:
        """Return the share of right predictions on the test data."""
        test = self._federation.test
        (logits,) = self._helpers.evaluate(
            self._plan.scenario.request.model, (parameters,), test.inputs
        )
        return float((predict(logits) == test.labels).mean())

    def _pay(self) -> tuple[NodePayout, ...]:
        """Split the sellers' part of the price; CONE nodes and their votes are not simulated."""
        scenario, terms = self._plan.scenario, self._plan.scenario.request.terms
        first, last = self._measure_final()
        rounds = len(self._accuracy)
        weights = tuple(self._credits.values())
        found = settlement.compute_settlement(
            settlement.SettlementInputs(
                price_wei=scenario.request.bid_wei,
                outcome=settlement.Outcome.ENDED,
                cone_bps=scenario.params.cone_bps,
                floor_bps=scenario.params.floor_bps,
                refund_cap_bps=scenario.params.refund_cap_bps,
                rounds_max=terms.rounds_max,
                rounds_done=rounds,
                sellers_per_round=terms.sellers_per_round,
                target=UtilityQ20(terms.target),
                initial_utility=first,
                last_utility=last,
                participation_counts=(rounds,) * scenario.sizes.cones,
                contribution_weights=weights,
                spent_wei=(Wei(0),) * scenario.sizes.cones,
            )
        )
        return tuple(
            NodePayout(
                node=name,
                role="seller",
                group=self._kinds[name].kind if name in self._kinds else HONEST,
                payout_wei=found.seller_payouts_wei[index],
                contribution=weights[index],
                slashed_wei=0,
            )
            for index, name in enumerate(self._sources.sellers)
        )

    def _measure_final(self) -> tuple[UtilityQ20, UtilityQ20]:
        """Return the utilities of the first and the last model on the samples kept for the end."""
        model, part = self._round_rules.model, self._final
        samples, labels = select_samples(part, part.indices, model)
        logits = self._helpers.evaluate(model, (self._initial, self._rules.parameters), samples)
        first, last = (compute_utility(self._round_rules.metric, one, labels) for one in logits)
        return first, last


def build_round_rules(scenario: Scenario) -> RoundRules:
    """Return what a scenario's job fixes for all its rounds."""
    request = scenario.request
    return RoundRules(
        model=request.model,
        metric=request.terms.metric,
        sellers_per_round=request.terms.sellers_per_round,
        alpha_bps=request.sampling.alpha_bps,
        eta_q16=request.sampling.eta_q16,
        keep_bps=request.sampling.keep_bps,
        step=request.step,
    )


def check_scenario(scenario: Scenario) -> None:
    """Refuse what a scenario asks for and only a whole market has. Raises UserError."""
    for hostile in scenario.hostile_sellers:
        if hostile.kind in CONDUCT_KINDS:
            raise UserError(
                f"hostile.sellers: {hostile.kind} needs a network; simulate the whole market"
            )
    for key, is_asked in (
        ("hostile.cones", any(one.count for one in scenario.hostile_cones)),
        ("faults", bool(scenario.faults)),
        ("random_faults", scenario.random_faults is not None),
        ("ablate", bool(scenario.ablate)),
    ):
        if is_asked:
            raise UserError(f"{key}: the learning alone has none; simulate the whole market")
