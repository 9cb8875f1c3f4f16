"""A small job that a test can run by the rules alone: data, honest sellers, rounds."""

from dataclasses import replace

import numpy as np

from protocol.aggregation import RoundRules
from protocol.digest import RoundHeader
from protocol.evaluation import compute_logits
from protocol.fixed_point import Int32, Int64
from protocol.hashing import Domain, keccak, word
from protocol.metrics import compute_utility
from protocol.model import logreg
from protocol.osmd import sample_sellers
from protocol.round import BallotResult, ModelState, RoundWork, compute_initial_state
from protocol.terms import Metric
from protocol.types import Address, JobId, RoundIndex
from protocol.update import TensorKind, compute_tensor_digest, encode_tensor, quantise

DOMAIN = Domain(1337, Address(b"\x11" * 20))
JOB = JobId(7)
SELLERS = 20
PER_ROUND = 10
ROUNDS = 6
CLASSES = 4
MODEL = logreg((1, 4, 4), CLASSES)
RULES = RoundRules(
    model=MODEL,
    metric=Metric.ACC,
    sellers_per_round=PER_ROUND,
    alpha_bps=2000,
    eta_q16=1 << 16,
    keep_bps=7000,
)


def make_data(count: int, seed: int) -> tuple[np.ndarray, Int64]:
    """Noisy pictures, each class bright in its own row."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    samples = generator.integers(0, 150, (count, 4, 4))
    samples[np.arange(count), labels] += 70
    return samples.astype(np.uint8)[:, np.newaxis], labels


SAMPLES, LABELS = make_data(200, seed=1)


def train(parameters: Int32, seller: int, round_index: int) -> Int32:
    """A seller's honest update: softmax regression on its own few samples."""
    generator = np.random.default_rng([seller, round_index])
    samples, labels = make_data(CLASSES * 4, seed=100 + seller)
    x = samples.reshape(len(labels), -1) / 255 + generator.normal(0, 0.1, (len(labels), 16))
    y = np.eye(CLASSES)[labels]
    start = parameters / 2**20
    weight, bias = start[: 16 * CLASSES].reshape(CLASSES, 16), start[16 * CLASSES :]
    for _ in range(8):
        scores = np.exp(x @ weight.T + bias)
        error = scores / scores.sum(axis=1, keepdims=True) - y
        weight = weight - 0.5 * error.T @ x / len(labels)
        bias = bias - 0.5 * error.mean(axis=0)
    return quantise((np.concatenate([weight.ravel(), bias]) - start).astype(np.float32))


def prepare_round(state: ModelState, round_index: int) -> RoundWork:
    sampled = sample_sellers(state.sampler, keccak(b"sellers" + word(round_index)))
    return RoundWork(
        domain=DOMAIN,
        job_id=JOB,
        round_index=RoundIndex(round_index),
        rules=RULES,
        payees=tuple(Address(bytes([seller]) * 20) for seller in range(SELLERS)),
        before=state,
        sampled=sampled,
        updates={seller: train(state.parameters, seller, round_index) for seller in sampled},
        samples=SAMPLES,
        labels=LABELS,
    )


def measure_accuracy(state: ModelState) -> float:
    logits = compute_logits(MODEL, state.parameters, SAMPLES)
    return compute_utility(Metric.ACC, logits, LABELS) / 2**20


def make_wrong_result(work: RoundWork, honest: BallotResult) -> BallotResult:
    """A model that undoes what was learned, with all credit to seller 0, ready to be opened."""
    parameters = np.clip(-4 * work.before.parameters, -(1 << 25), 1 << 25).astype(np.int32)
    header = replace(
        RoundHeader.decode(honest.opening),
        model_digest=compute_tensor_digest(TensorKind.PARAMETERS, parameters),
        accepted=1,
    )
    return replace(
        honest,
        digest=header.digest,
        opening=header.encode(),
        sampler=tuple(reversed(honest.sampler)),
        blobs=(encode_tensor(TensorKind.PARAMETERS, parameters), honest.blobs[1]),
    )


START = compute_initial_state(RULES, keccak(b"initial"), SELLERS)
