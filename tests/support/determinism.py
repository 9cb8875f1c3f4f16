"""One node's exact work as digests, so that processes that do it in other ways can be compared.

``python -m tests.support.determinism`` prints the digests, and which kernels made them. Its
argument, a JSON object with the fields of `Variant`, says how this process works; the environment
says the rest (OPENBLAS_CORETYPE, NPY_DISABLE_CPU_FEATURES, ATEN_CPU_CAPABILITY, ...).

The digests are recorded in ``tests/vectors/determinism.json``. A change of these bytes means that
nodes of two versions do not agree. If that is meant, record them anew and say so in the changelog:
``python -m tests.support.determinism --record``.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import threadpoolctl

from protocol.aggregation import RoundRules
from protocol.digest import encode_distances
from protocol.evaluation import Evaluator, compute_logits_of_all, compute_logits_reference
from protocol.fixed_point import Int32, Int64
from protocol.gate import select_candidates
from protocol.hashing import Domain, keccak
from protocol.krum import select_krum
from protocol.linear_algebra import compute_rounded_mean
from protocol.metrics import compute_utility
from protocol.model import ModelDescription, cnn, count_parameters
from protocol.osmd import sample_sellers
from protocol.round import (
    BallotResult,
    FinalWork,
    ModelState,
    RoundWork,
    compute_final,
    compute_initial_state,
    compute_round,
)
from protocol.samples import SampleArray
from protocol.step import ONE_STEP, StepSpec
from protocol.terms import Metric
from protocol.types import Address, JobId, RoundIndex
from protocol.update import MAX_UPDATE, TensorKind, compute_tensor_digest
from tests.support.models import MODELS, draw, draw_labels, draw_parameters, draw_samples
from tests.support.rounds import follow

RECORD = Path(__file__).parents[1] / "vectors" / "determinism.json"
EVERYTHING = 1 << 30

Digests = dict[str, str]


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a process works; the default is what an ordinary CONE node does."""

    evaluator: str = "numpy"
    """"numpy", "reference" (int64) or "torch"."""
    blas_threads: int = 1
    torch_threads: int = 1
    uses_onednn: bool = True
    samples_per_call: int = EVERYTHING
    candidates_per_call: int = EVERYTHING
    reverses_arrival: bool = False
    """Updates come in another order."""
    subtracts: bool = False
    """Distances by subtraction in int64 instead of by a matrix product."""


def compute_digests(variant: Variant) -> Digests:
    """Compute every scenario in the way of this variant."""
    evaluate = make_evaluator(variant)
    return (
        compute_job(evaluate, reverses_arrival=variant.reverses_arrival)
        | compute_stepped_job(evaluate, reverses_arrival=variant.reverses_arrival)
        | compute_models(evaluate)
        | compute_large_updates(subtracts=variant.subtracts)
    )


# --- evaluators ---------------------------------------------------------------------------------


def make_evaluator(variant: Variant) -> Evaluator:
    """Choose the path that gives the logits, in the pieces that the variant says."""
    whole: Evaluator
    match variant.evaluator:
        case "numpy":
            whole = compute_logits_of_all
        case "reference":
            whole = evaluate_by_reference
        case "torch":
            whole = load_torch_evaluator(variant)
        case name:
            raise ValueError(f"no evaluator {name!r}")

    def evaluate(
        model: ModelDescription, candidates: Iterable[Int32], samples: SampleArray
    ) -> Int64:
        held = list(candidates)
        groups = split(held, variant.candidates_per_call)
        batches = split(samples, variant.samples_per_call)
        return np.concatenate(
            [
                np.concatenate([whole(model, group, batch) for batch in batches], axis=1)
                for group in groups
            ]
        )

    return evaluate


def split(items: Any, size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def evaluate_by_reference(
    model: ModelDescription, candidates: Iterable[Int32], samples: SampleArray
) -> Int64:
    return np.stack([compute_logits_reference(model, one, samples) for one in candidates])


# --- jobs: rounds and a final evaluation ---------------------------------------------------

SELLERS = 14
PER_ROUND = 10
DOMAIN = Domain(1337, Address(b"\x11" * 20))
JOB_MODEL = cnn((1, 12, 12), 5, channels=4)


JOB_RULES = RoundRules(
    model=JOB_MODEL,
    metric=Metric.NEG_CE,
    sellers_per_round=PER_ROUND,
    alpha_bps=2000,
    eta_q16=1 << 14,
    keep_bps=7000,
)
STEP = StepSpec(lengths_q16=(ONE_STEP // 3, 3 * ONE_STEP), momentum_q16=52_429)


def compute_job(evaluate: Evaluator, *, reverses_arrival: bool) -> Digests:
    """Run two rounds, each on the state after the one before, and a final evaluation."""
    digests, initial, state = compute_rounds(
        JOB_RULES, 2, evaluate, reverses_arrival=reverses_arrival
    )
    samples, labels = draw_samples("job", JOB_MODEL, 150), draw_labels("job", JOB_MODEL, 150)
    final = FinalWork(
        domain=DOMAIN,
        job_id=JobId(7),
        round_index=RoundIndex(1),
        rules=replace(JOB_RULES, metric=Metric.ACC),
        initial=initial,
        parameters=state.parameters,
        samples=samples,
        labels=labels,
    )
    return digests | describe("final", compute_final(final, evaluate))


def compute_stepped_job(evaluate: Evaluator, *, reverses_arrival: bool) -> Digests:
    """Run three rounds with momentum and step lengths to choose from."""
    rules = replace(JOB_RULES, step=STEP)
    digests, _, _ = compute_rounds(rules, 3, evaluate, reverses_arrival=reverses_arrival)
    return {f"stepped {name}": digest for name, digest in digests.items()}


def compute_rounds(
    rules: RoundRules, rounds: int, evaluate: Evaluator, *, reverses_arrival: bool
) -> tuple[Digests, Int32, ModelState]:
    """Run rounds; return what is voted for, the first parameters, and what they came to."""
    state = compute_initial_state(rules, keccak(b"initial"), SELLERS)
    initial = state.parameters
    samples, labels = draw_samples("job", JOB_MODEL, 150), draw_labels("job", JOB_MODEL, 150)
    digests: Digests = {}
    for index in range(rounds):
        sampled = sample_sellers(state.sampler, keccak(b"sellers" + bytes([index])))
        updates = make_updates(f"round {index}", sampled)
        if reverses_arrival:
            updates = dict(reversed(updates.items()))
        work = RoundWork(
            domain=DOMAIN,
            job_id=JobId(7),
            round_index=RoundIndex(index),
            rules=rules,
            payees=tuple(Address(bytes([seller]) * 20) for seller in range(SELLERS)),
            before=state,
            sampled=sampled,
            updates=updates,
            samples=samples,
            labels=labels,
        )
        result = compute_round(work, evaluate)
        digests |= describe(f"round {index}", result)
        state = follow(state, result)
    return digests, initial, state


def make_updates(label: str, sampled: tuple[int, ...]) -> dict[int, Int32]:
    """Give the sampled sellers updates that meet every check of the gate, one without any."""
    size = count_parameters(JOB_MODEL)
    common = draw(label, size, 1 << 15)
    honest = {
        seller: common + draw(f"{label}, seller {seller}", size, 1 << 15) for seller in sampled
    }
    tiny, copied, copier, reversed_, boosted, missing, *_ = sampled
    honest[tiny] >>= 8
    honest[copier] = honest[copied] + 1
    honest[reversed_] *= -2
    honest[boosted] *= 3
    del honest[missing]
    return {
        seller: np.clip(update, -MAX_UPDATE, MAX_UPDATE).astype(np.int32)
        for seller, update in honest.items()
    }


def describe(name: str, result: BallotResult) -> Digests:
    """Name what a node votes for and what its trace commits to."""
    return {
        f"{name}: digest": result.digest.hex(),
        f"{name}: trace": result.compute_trace(keccak(b"es seed")).hex(),
    }


# --- models and metrics -------------------------------------------------------------------------


def compute_models(evaluate: Evaluator) -> Digests:
    """Evaluate three candidates of each model, and measure the last by each metric that fits."""
    digests: Digests = {}
    for name, model in MODELS.items():
        samples, labels = draw_samples(name, model, 50), draw_labels(name, model, 50)
        candidates = [draw_parameters(f"{name} {index}", model) for index in range(3)]
        logits = evaluate(model, candidates, samples)
        digests[f"{name}: logits"] = keccak(logits.astype(">i8").tobytes()).hex()
        for metric in Metric:
            if (metric is Metric.NEG_MSE) == model.is_regression:
                utility = compute_utility(metric, logits[-1], labels)
                digests[f"{name}: {metric.name}"] = str(utility)
    return digests


# --- large updates ------------------------------------------------------------------------------

LARGE = (1 << 21) + 4099
"""Beyond what one int64 sum of squares holds, and no multiple of any slice."""


def compute_large_updates(*, subtracts: bool) -> Digests:
    """Equalise, compare, score and average updates with coordinates up to the bound."""
    bounds = (MAX_UPDATE, MAX_UPDATE, MAX_UPDATE // 2, MAX_UPDATE // 3, MAX_UPDATE // 3)
    updates = {
        index: draw(f"large {index}", LARGE, bound).astype(np.int32)
        for index, bound in enumerate(bounds)
    }
    candidates = select_candidates(updates)
    assert candidates.indices == tuple(updates)
    distances = subtract_all(updates) if subtracts else candidates.distances
    accepted = select_krum(candidates.indices, distances, byzantine_count=1, accepted_count=3)
    step = compute_rounded_mean([candidates.updates[index] for index in accepted])
    upper = [distances[i][j] for i in updates for j in updates if i < j]
    return {
        "large: distances": keccak(encode_distances(upper, LARGE)).hex(),
        "large: step": compute_tensor_digest(TensorKind.UPDATE, step).hex(),
    }


def subtract_all(updates: Mapping[int, Int32]) -> list[list[int]]:
    """Compute the distances of equalised updates as MECHANISM 11 reads, in int64."""
    norms = {index: sum_squares(update) for index, update in updates.items()}
    median = sorted(norms.values())[(len(norms) - 1) // 2]
    equalised = []
    for index, update in updates.items():
        scale = isqrt((median << 40) // norms[index])
        scaled = (update.astype(np.int64) * scale + (1 << 19)) >> 20
        equalised.append(np.clip(scaled, -MAX_UPDATE, MAX_UPDATE))
    return [[sum_squares(one - other) for other in equalised] for one in equalised]


def sum_squares(values: Int32 | Int64) -> int:
    pieces = (piece.astype(np.int64) for piece in split(values, 1 << 18))
    return sum(int((piece * piece).sum()) for piece in pieces)


# --- what would not be the same everywhere ------------------------------------------------------


def compute_float_digests(variant: Variant) -> Digests:
    """Do with floats what the rules do with integers: the evidence for integers, and of variety."""
    updates = make_updates("round 0", tuple(range(PER_ROUND)))
    arrived = list(updates.values())[:: -1 if variant.reverses_arrival else 1]
    total = np.zeros(len(arrived[0]), dtype=np.float32)
    for update in arrived:
        total += update.astype(np.float32) / np.float32(3)
    reals = draw("reals", 1 << 16, 1 << 30).reshape(256, 256) / 3
    return {
        "float32 mean": keccak((total / np.float32(len(arrived))).tobytes()).hex(),
        "float64 product": keccak((reals @ reals).tobytes()).hex(),
    }


# --- the process --------------------------------------------------------------------------------


def load_torch_evaluator(variant: Variant) -> Evaluator:
    import torch

    from d2m_node.training.exact import TorchEvaluator

    torch.set_num_threads(variant.torch_threads)
    torch.backends.mkldnn.set_flags(_enabled=variant.uses_onednn)
    return TorchEvaluator(torch.device("cpu"))


def describe_kernels() -> dict[str, Any]:
    """Say which kernels are in use, so that a test can tell that a variant took effect."""
    from numpy._core._multiarray_umath import __cpu_features__ as numpy_features

    # Scipy, if something has imported it, brings another one.
    (blas,) = (
        one
        for one in threadpoolctl.threadpool_info()
        if one["user_api"] == "blas" and "numpy" in one["filepath"]
    )
    kernels: dict[str, Any] = {
        "blas": blas["architecture"],
        "blas_threads": blas["num_threads"],
        "numpy": [name for name, is_used in numpy_features.items() if is_used],
        "avx512": numpy_features.get("X86_V4", False),
        "hash": hash("a text"),
    }
    if torch := sys.modules.get("torch"):
        kernels["torch"] = torch.backends.cpu.get_cpu_capability()
        kernels["torch_threads"] = torch.get_num_threads()
        kernels["onednn"] = torch.backends.mkldnn.enabled
    return kernels


def main(arguments: list[str]) -> None:
    if arguments == ["--record"]:
        RECORD.write_text(json.dumps(compute_digests(Variant()), indent=2) + "\n")
        return
    variant = msgspec.json.decode(arguments[0] if arguments else "{}", type=Variant)
    with threadpoolctl.threadpool_limits(variant.blas_threads, user_api="blas"):
        sys.stdout.write(
            json.dumps(
                {
                    "digests": compute_digests(variant),
                    "floats": compute_float_digests(variant),
                    "kernels": describe_kernels(),
                }
            )
        )


if __name__ == "__main__":
    main(sys.argv[1:])
