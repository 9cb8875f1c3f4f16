"""How a learning loop draws sellers and makes a step: by the market's rules, or by others.

The market's rules are those of a CONE node, `protocol.round.compute_round`, byte for byte. The
others are the samplers and aggregators of `protocol.baselines`, under the same inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from d2m_node.simulation.computing.ablations import build_aggregator
from protocol.aggregation import RoundRules
from protocol.baselines.interface import Aggregate, Feedback, Mechanism, Offers
from protocol.baselines.registry import create_sampler
from protocol.baselines.stepped import Stepped
from protocol.digest import RoundHeader, decode_sampler_state
from protocol.errors import TooFewUpdates
from protocol.evaluation import Evaluator
from protocol.fixed_point import Int32, Int64
from protocol.hashing import Domain, fixed_bytes, hash_domain, word
from protocol.metrics import compute_utility
from protocol.osmd import sample_sellers
from protocol.round import ModelState, RoundWork, apply_header, compute_round
from protocol.samples import SampleArray
from protocol.types import Address, Digest, JobId, RoundIndex
from protocol.update import TensorKind, apply_update, compute_tensor_digest, decode_tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rules a run follows."""

    sampler: str = "osmd"
    """A name of `protocol.baselines.registry.SAMPLERS`."""
    aggregator: str = "corrected-osmd"
    """A name that `protocol.baselines.registry.create_aggregator` takes."""
    parameters: Mapping[str, object]
    """Of the aggregator and the sampler, by name; K and the request's sampling are filled in."""

    @property
    def is_market(self) -> bool:
        """Whether these are the rules of the market."""
        return self == Choice(parameters={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a round is computed from, whatever the rules."""

    round_index: RoundIndex
    drawn: tuple[int, ...]
    updates: Mapping[int, Int32]
    samples: SampleArray
    labels: Int64
    seed: Digest
    """For rules that shuffle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a round came to."""

    digest: Digest
    accepted: tuple[int, ...]
    """Sellers whose update is part of the step, once per access."""


class LearningRules(Protocol):
    """Rules with their state; `run` moves it."""

    @property
    def parameters(self) -> Int32:
        """Of the model as it is now, shape (d,)."""
        ...

    @property
    def previous_step(self) -> Int32 | None:
        """What the last round added to the model, shape (d,); None before the first."""
        ...

    def draw(self, seed: Digest) -> tuple[int, ...]:
        """Draw a round's sellers, ascending."""
        ...

    def run(self, material: Material) -> Step:
        """Compute a round and move on to the next."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Of which job the rounds are; it is part of their digests."""

    domain: Domain
    job_id: JobId
    payees: tuple[Address, ...]
    """The sellers' accounts, by seller index."""


def create_rules(
    choice: Choice, rules: RoundRules, start: ModelState, place: Place, evaluate: Evaluator
) -> LearningRules:
    """Make the rules that a choice names. Raises InvalidParams."""
    if choice.is_market:
        return MarketRules(rules, start, place, evaluate)
    return BaselineRules(choice, rules, start, evaluate)


class MarketRules:
    """The rules of a CONE node."""

    def __init__(
        self, rules: RoundRules, start: ModelState, place: Place, evaluate: Evaluator
    ) -> None:
        self._rules = rules
        self._state = start
        self._place = place
        self._evaluate = evaluate
        self._previous_step: Int32 | None = None

    @property
    def parameters(self) -> Int32:
        """Of the model as it is now, shape (d,)."""
        return self._state.parameters

    @property
    def previous_step(self) -> Int32 | None:
        """What the last round added to the model, shape (d,); None before the first."""
        return self._previous_step

    def draw(self, seed: Digest) -> tuple[int, ...]:
        """Draw by inclusion weights."""
        return sample_sellers(self._state.sampler, seed)

    def run(self, material: Material) -> Step:
        """Compute a round, and take its result for decided."""
        work = RoundWork(
            domain=self._place.domain,
            job_id=self._place.job_id,
            round_index=material.round_index,
            rules=self._rules,
            payees=self._place.payees,
            before=self._state,
            sampled=material.drawn,
            updates=material.updates,
            samples=material.samples,
            labels=material.labels,
        )
        result = compute_round(work, self._evaluate)
        header = RoundHeader.decode(result.opening)
        state = follow_round(self._state, header, result.blobs)
        self._previous_step = state.parameters - self._state.parameters
        self._state = state
        accepted = tuple(index for index in material.drawn if header.accepted >> index & 1)
        return Step(digest=result.digest, accepted=accepted)


def follow_round(state: ModelState, header: RoundHeader, blobs: Sequence[bytes]) -> ModelState:
    """Return the state after a decided round, from the bytes that other nodes fetch."""
    parameters, sampler = blobs
    return replace(
        apply_header(state, header),
        parameters=decode_tensor(parameters, TensorKind.PARAMETERS, len(state.parameters)),
        sampler=decode_sampler_state(sampler, len(state.credits)),
        previous_parameters=state.parameters,
    )


class BaselineRules:
    """Any sampler with any aggregator."""

    def __init__(
        self, choice: Choice, rules: RoundRules, start: ModelState, evaluate: Evaluator
    ) -> None:
        self._rules = rules
        self._evaluate = evaluate
        self._parameters = start.parameters
        self._previous_step: Int32 | None = None
        self._digest = start.previous_digest
        self._mechanism = build_mechanism(choice, rules, len(start.credits))

    @property
    def parameters(self) -> Int32:
        """Of the model as it is now, shape (d,)."""
        return self._parameters

    @property
    def previous_step(self) -> Int32 | None:
        """What the last round added to the model, shape (d,); None before the first."""
        return self._previous_step

    def draw(self, seed: Digest) -> tuple[int, ...]:
        """Draw as the sampler does; with replacement a seller may stand there twice."""
        return self._mechanism.sampler.draw(seed)

    def run(self, material: Material) -> Step:
        """Aggregate and step; the model stays if there are too few updates for the rule."""
        sellers = tuple(index for index in material.drawn if index in material.updates)
        try:
            offers = Offers(
                sellers=sellers,
                updates=tuple(material.updates[index] for index in sellers),
                measure=_Meter(self._rules, material, self._parameters, self._evaluate).measure,
                seed=material.seed,
                previous_step=self._previous_step,
            )
            aggregate, self._mechanism = self._mechanism.run_round(material.drawn, offers)
        except TooFewUpdates:
            nothing = self._parameters * 0
            aggregate = Aggregate(step=nothing, contributors=(), utilities={})
            absent = frozenset(material.drawn) - frozenset(sellers)
            feedback = Feedback(drawn=material.drawn, absent=absent, utilities={})
            self._mechanism = replace(
                self._mechanism, sampler=self._mechanism.sampler.step(feedback)
            )
        before, self._parameters = self._parameters, apply_update(self._parameters, aggregate.step)
        self._previous_step = self._parameters - before
        self._digest = hash_domain(
            "learning-round",
            fixed_bytes(self._digest),
            compute_tensor_digest(TensorKind.PARAMETERS, self._parameters),
            b"".join(word(index) for index in aggregate.contributors),
        )
        return Step(digest=self._digest, accepted=aggregate.contributors)


class _Meter:
    """Measures updates on a round's samples; the model before is measured once, when needed."""

    def __init__(
        self, rules: RoundRules, material: Material, parameters: Int32, evaluate: Evaluator
    ) -> None:
        self._rules = rules
        self._material = material
        self._parameters = parameters
        self._evaluate = evaluate
        self._before: int | None = None

    def measure(self, updates: Sequence[Int32]) -> list[int]:
        """Return what each update alone improves, Q20."""
        if self._before is None:
            (self._before,) = self._score([self._parameters])
        models = [apply_update(self._parameters, update) for update in updates]
        return [utility - self._before for utility in self._score(models)]

    def _score(self, models: Sequence[Int32]) -> list[int]:
        logits = self._evaluate(self._rules.model, models, self._material.samples)
        return [compute_utility(self._rules.metric, one, self._material.labels) for one in logits]


def build_mechanism(choice: Choice, rules: RoundRules, seller_count: int) -> Mechanism:
    """Make sampler and aggregator of a choice, each with the parameters that it takes.

    Raises InvalidParams.
    """
    own = {"sellers_per_round": rules.sellers_per_round}
    if choice.sampler == "osmd":
        own |= {"eta_q16": rules.eta_q16, "alpha_bps": rules.alpha_bps}
    of_sampler = {
        key: choice.parameters[key] for key in ("eta", "alpha") if key in choice.parameters
    }
    of_aggregator = {
        key: value for key, value in choice.parameters.items() if key not in of_sampler
    }
    return Mechanism(
        sampler=create_sampler(choice.sampler, seller_count, {**own, **of_sampler}),
        aggregator=Stepped(build_aggregator(choice.aggregator, rules, of_aggregator), rules.step),
    )
