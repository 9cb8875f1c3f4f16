"""Results that nodes share: only between those who hold the same inputs, all of them."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from d2m_node.roles.executor import HonestExecutor
from d2m_node.simulation.computing.shared_results import SharedResults, compute_key
from d2m_node.simulation.hostile.executors import (
    CopyingExecutor,
    ForgingExecutor,
    OpenedResult,
    StaleExecutor,
)
from protocol.digest import FinalResult, RoundHeader
from protocol.hashing import Domain, keccak
from protocol.round import FinalWork, ModelState, RoundWork
from protocol.step import StepSpec
from protocol.terms import Metric
from protocol.types import NO_DIGEST, Address, Digest, JobId, RoundIndex
from tests.support.small_round import ROUND_RULES, make_round_inputs

DOMAIN = Domain(31337, Address(b"\x11" * 20))


def make_round_work(seed: int = 1) -> RoundWork:
    inputs = make_round_inputs(seed)
    return RoundWork(
        domain=DOMAIN,
        job_id=JobId(1),
        round_index=RoundIndex(0),
        rules=ROUND_RULES,
        payees=tuple(Address(bytes([index]) * 20) for index in range(16)),
        before=ModelState(
            parameters=inputs.parameters,
            sampler=inputs.state,
            credits=(0,) * 16,
            misses=inputs.misses,
            previous_digest=NO_DIGEST,
        ),
        sampled=inputs.sampled,
        updates=inputs.updates,
        samples=inputs.samples,
        labels=inputs.labels,
    )


def make_final_work() -> FinalWork:
    work = make_round_work()
    return FinalWork(
        domain=DOMAIN,
        job_id=JobId(1),
        round_index=RoundIndex(0),
        rules=ROUND_RULES,
        initial=work.before.parameters,
        parameters=work.before.parameters + 1,
        samples=work.samples,
        labels=work.labels,
    )


def other(value: Any) -> Any:
    """Return a value of the same type that differs in one place."""
    match value:
        case np.ndarray():
            return np.concatenate([value[:1] + 1, value[1:]])
        case dict():
            key = next(iter(value))
            return {**value, key: other(value[key])}
        case tuple():
            return (other(value[0]), *value[1:])
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:]
        case Metric():
            return Metric.NEG_CE
        case StepSpec():
            return StepSpec(momentum_q16=value.momentum_q16 + 1)
        case None:
            return np.zeros(1, dtype=np.int32)
        case int():
            return value + 1
        case _:
            raise TypeError(type(value))


def list_changes(work: Any, rebuild: Callable[[Any], Any]) -> list[tuple[str, Any]]:
    """List works that differ from one in a single place, with its name, records looked into."""
    changed: list[tuple[str, Any]] = []
    for field in fields(work):
        value = getattr(work, field.name)
        if field.name in ("before", "rules", "domain"):

            def put(inner: Any, name: str = field.name) -> Any:
                return rebuild(replace(work, **{name: inner}))

            changed += list_changes(value, put)
        elif field.name != "model":
            changed.append((field.name, rebuild(replace(work, **{field.name: other(value)}))))
    return changed


@pytest.mark.parametrize("work", [make_round_work(), make_final_work()], ids=["round", "final"])
def test_every_input_counts(work: RoundWork | FinalWork) -> None:
    changes = list_changes(work, lambda one: one)
    assert {"chain_id", "metric", "labels", "samples", "job_id"} <= {name for name, _ in changes}
    keys = [compute_key(work), *(compute_key(one) for _, one in changes)]
    assert len(set(keys)) == len(keys)
    model = replace(work.rules, model=replace_outputs(work))
    assert compute_key(replace(work, rules=model)) not in keys


def replace_outputs(work: RoundWork | FinalWork) -> Any:
    from protocol.model import logreg

    assert work.rules.model == logreg((1, 4, 4), 3)
    return logreg((1, 4, 4), 4)


def test_one_update_under_another_seller_is_another_input() -> None:
    work = make_round_work()
    first, second, *_ = work.updates
    swapped = {
        **work.updates,
        first: work.updates[second],
        second: work.updates[first],
    }
    assert compute_key(replace(work, updates=swapped)) != compute_key(work)


def test_a_result_is_computed_once_for_all_who_ask_and_is_the_honest_one() -> None:
    shared = SharedResults()
    results = [shared.compute_round(make_round_work()) for _ in range(5)]
    assert shared.computed_count == 1
    assert shared.asked_count == 5
    assert all(one is results[0] for one in results)
    assert results[0].digest == HonestExecutor().compute_round(make_round_work()).digest
    shared.compute_round(make_round_work(2))
    assert shared.computed_count == 2
    assert {one.digest for one in shared.known} >= {results[0].digest}


def test_old_rounds_are_forgotten_and_computed_again_to_the_same_end() -> None:
    shared = SharedResults()
    first = shared.compute_round(make_round_work())
    for number in (1, 2):
        shared.compute_round(replace(make_round_work(), round_index=RoundIndex(number)))
    assert shared.compute_round(make_round_work()).digest == first.digest
    assert shared.computed_count == 4


def test_liars_vote_for_headers_that_add_up_with_bytes_behind_them() -> None:
    work = make_round_work()
    honest = HonestExecutor().compute_round(work)
    stale = StaleExecutor().compute_round(work)
    together = [ForgingExecutor(b"one plan").compute_round(work) for _ in range(2)]
    alone = ForgingExecutor(b"another").compute_round(work)
    assert together[0].digest == together[1].digest
    assert len({honest.digest, stale.digest, together[0].digest, alone.digest}) == 4
    for result in (stale, together[0], alone):
        header = RoundHeader.decode(result.opening)
        assert header.digest == result.digest
        assert header.model_digest == keccak(result.blobs[0])
        assert header.sampler_digest == keccak(result.blobs[1])
        assert header.credit_sum == header.accepted


def test_liars_of_one_kind_claim_the_same_final_utility() -> None:
    work = make_final_work()
    honest = HonestExecutor().compute_final(work)
    claims = {
        name: executor.compute_final(work)
        for name, executor in {
            "together": ForgingExecutor(b"one plan"),
            "again": ForgingExecutor(b"one plan"),
            "alone": ForgingExecutor(b"another"),
        }.items()
    }
    assert claims["together"].digest == claims["again"].digest != claims["alone"].digest
    assert honest.digest not in {one.digest for one in claims.values()}
    stale = FinalResult.decode(StaleExecutor().compute_final(work).opening)
    assert stale.utility == stale.initial_utility
    for claim in claims.values():
        assert FinalResult.decode(claim.opening).digest == claim.digest


def test_a_copier_votes_for_what_most_have_opened_by_then() -> None:
    opened: list[OpenedResult] = []
    result = CopyingExecutor(b"seed", lambda: opened).compute_round(make_round_work())
    guess = result.digest
    few, many = Digest(b"\x01" * 32), Digest(b"\x02" * 32)
    opened += [OpenedResult(few, 1), OpenedResult(many, 2)]
    assert result.digest == many != guess
    assert result.compute_trace(few) != HonestExecutor().compute_round(
        make_round_work()
    ).compute_trace(few)
