"""From an agreed input set to the result that a node votes for, in a round or in a final.

Whoever holds the same inputs gets the same digest: voters, those who audit them, and those who
doubt a payout.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from protocol.aggregation import (
    RoundInputs,
    RoundResult,
    RoundRules,
    aggregate_round,
    count_misses,
)
from protocol.bitmap import encode_bitmap
from protocol.digest import (
    FinalResult,
    RoundHeader,
    add_credits,
    compute_credit_root,
    compute_trace,
    encode_distances,
    encode_sampler_state,
)
from protocol.evaluation import Evaluator, compute_logits_of_all
from protocol.fixed_point import Int32, Int64
from protocol.hashing import Domain, keccak
from protocol.metrics import compute_utility
from protocol.model import initial_parameters
from protocol.osmd import State, initial_state
from protocol.samples import SampleArray
from protocol.types import NO_DIGEST, Address, Digest, JobId, RoundIndex
from protocol.update import TensorKind, compute_tensor_digest, encode_tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """What a job has come to: all that the next round starts from."""

    parameters: Int32
    """Shape (d,), Q20."""
    sampler: State
    """Inclusion weight per seller."""
    credits: tuple[int, ...]
    """Accepted rounds per seller."""
    misses: tuple[int, ...]
    """Rounds per seller in which it was sampled and missing."""
    previous_digest: Digest
    """Digest of the last decided round."""
    previous_parameters: Int32 | None = None
    """Parameters before the last decided round, which only momentum needs; None before the first.

    They have a name that all agree on: the header of the decided round before holds their digest.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundWork:
    """Everything the digest of a round depends on."""

    domain: Domain
    job_id: JobId
    round_index: RoundIndex
    rules: RoundRules
    payees: tuple[Address, ...]
    """The sellers' accounts, by seller index."""
    before: ModelState
    sampled: tuple[int, ...]
    updates: Mapping[int, Int32]
    """The updates of the agreed input set, by seller index."""
    samples: SampleArray
    labels: Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalWork:
    """Everything the digest of a final evaluation depends on."""

    domain: Domain
    job_id: JobId
    round_index: RoundIndex
    rules: RoundRules
    initial: Int32
    """The parameters before the first round, shape (d,)."""
    parameters: Int32
    samples: SampleArray
    labels: Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class BallotResult:
    """What a node votes for, what opens it, and what its trace is made of."""

    digest: Digest
    opening: bytes
    """The bytes whose hash is the digest; the contract reads them."""
    logits: Int64
    distances: bytes = b""
    """Squared distances of the evaluated candidates, as the trace hashes them."""
    sampler: State = ()
    blobs: tuple[bytes, ...] = ()
    """What the next round needs and is fetched by hash: parameters and inclusion weights."""

    def compute_trace(self, seed: Digest) -> Digest:
        """Compute the trace for the mini-round with this seed (MECHANISM 9.1)."""
        return compute_trace(seed, self.logits, self.distances, self.sampler)


def compute_initial_state(rules: RoundRules, initial_seed: Digest, seller_count: int) -> ModelState:
    """Compute the state before the first round."""
    return ModelState(
        parameters=initial_parameters(rules.model, initial_seed),
        sampler=initial_state(seller_count, rules.sellers_per_round),
        credits=(0,) * seller_count,
        misses=(0,) * seller_count,
        previous_digest=NO_DIGEST,
    )


def apply_header(state: ModelState, header: RoundHeader) -> ModelState:
    """Carry over what a decided header says by itself; parameters and sampler come by hash."""
    return replace(
        state,
        credits=add_credits(state.credits, header.accepted),
        misses=count_misses(state.misses, header.sampled, header.available),
        previous_digest=header.digest,
    )


def compute_round(work: RoundWork, evaluate: Evaluator = compute_logits_of_all) -> BallotResult:
    """Compute a round's header from its inputs. Source: MECHANISM 9.3, 13."""
    result = aggregate_round(
        work.rules,
        RoundInputs(
            parameters=work.before.parameters,
            previous_parameters=work.before.previous_parameters,
            state=work.before.sampler,
            misses=work.before.misses,
            sampled=work.sampled,
            updates=work.updates,
            samples=work.samples,
            labels=work.labels,
        ),
        evaluate,
    )
    return conclude_round(work, result)


def conclude_round(work: RoundWork, result: RoundResult) -> BallotResult:
    """Put what a round ends with into the header that is voted for. Source: MECHANISM 9.3."""
    parameters = encode_tensor(TensorKind.PARAMETERS, result.parameters)
    sampler = encode_sampler_state(result.state)
    accepted = encode_bitmap(result.accepted)
    credits = add_credits(work.before.credits, accepted)
    header = RoundHeader(
        job=work.job_id,
        round_index=work.round_index,
        model_digest=keccak(parameters),
        sampler_digest=keccak(sampler),
        sampled=encode_bitmap(work.sampled),
        available=encode_bitmap(work.updates),
        accepted=accepted,
        utility_before=result.utility_before,
        utility_after=result.utility_after,
        utilities=result.utilities,
        domain=work.domain,
        previous_digest=work.before.previous_digest,
        credit_root=compute_credit_root(work.payees, credits),
        credit_sum=sum(credits),
    )
    return BallotResult(
        digest=header.digest,
        opening=header.encode(),
        logits=result.logits,
        distances=encode_distances(result.distances, len(result.parameters)),
        sampler=result.state,
        blobs=(parameters, sampler),
    )


def compute_final(work: FinalWork, evaluate: Evaluator = compute_logits_of_all) -> BallotResult:
    """Evaluate the job's first and last parameters on V_fin. Source: MECHANISM 12, 14."""
    logits = evaluate(work.rules.model, (work.initial, work.parameters), work.samples)
    initial, last = (compute_utility(work.rules.metric, one, work.labels) for one in logits)
    result = FinalResult(
        domain=work.domain,
        job=work.job_id,
        round_index=work.round_index,
        model_digest=compute_tensor_digest(TensorKind.PARAMETERS, work.parameters),
        initial_utility=initial,
        utility=last,
    )
    return BallotResult(digest=result.digest, opening=result.encode(), logits=np.asarray(logits))
