"""Rounds of a small job with momentum, computed one after the other."""

import msgspec
import numpy as np

from d2m_node.roles.sources import round_rules
from protocol.hashing import keccak
from protocol.job import JobState
from protocol.model import count_parameters
from protocol.osmd import sample_sellers
from protocol.request import RequestBody
from protocol.round import (
    BallotResult,
    ModelState,
    RoundWork,
    compute_initial_state,
    compute_round,
)
from protocol.step import ONE_STEP, StepSpec
from protocol.types import Digest, RoundIndex
from protocol.validation_set import compute_validation_root, select_part, select_samples
from tests.support.job import BODY, JOB
from tests.support.market import DOMAIN
from tests.support.rounds import follow

ROUNDS = 3
INPUTS = np.random.default_rng(2).integers(0, 256, (4, 4), dtype=np.uint8)
LABELS = np.arange(4) % 2
PART = select_part(INPUTS, LABELS, (0, 1, 3))
MOMENTUM_BODY = msgspec.structs.replace(
    BODY,
    step=StepSpec(lengths_q16=(ONE_STEP // 2, ONE_STEP), momentum_q16=ONE_STEP // 2),
    validation=msgspec.structs.replace(
        BODY.validation, root=compute_validation_root(INPUTS, LABELS)
    ),
)


def compute_works(job: JobState, body: RequestBody) -> tuple[list[RoundWork], list[BallotResult]]:
    """Compute some rounds: what each was made of, and its result."""
    rules = round_rules(job, body)
    state = compute_initial_state(rules, Digest(body.initial_seed), len(job.sellers))
    samples, labels = select_samples(PART, PART.indices, body.model)
    works, results = [], []
    generator = np.random.default_rng(1)
    for index in range(ROUNDS):
        sampled = sample_sellers(state.sampler, keccak(bytes([index])))
        common = generator.normal(0, 20_000, count_parameters(body.model))
        work = RoundWork(
            domain=DOMAIN,
            job_id=JOB,
            round_index=RoundIndex(index),
            rules=rules,
            payees=tuple(seller.account for seller in job.sellers),
            before=state,
            sampled=sampled,
            updates={
                seller: (common + generator.normal(0, 9000, len(common))).astype(np.int32)
                for seller in sampled
            },
            samples=samples,
            labels=labels,
        )
        works.append(work)
        results.append(compute_round(work))
        state = follow(state, results[-1])
    return works, results


def follow_all(works: list[RoundWork], results: list[BallotResult]) -> list[ModelState]:
    """Return the states before each round and after the last."""
    return [*(work.before for work in works), follow(works[-1].before, results[-1])]
