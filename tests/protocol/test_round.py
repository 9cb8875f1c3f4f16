from dataclasses import replace

from protocol.aggregation import aggregate_round
from protocol.bitmap import decode_bitmap, encode_bitmap
from protocol.digest import RoundHeader, compute_credit_root, compute_sampler_digest
from protocol.hashing import Domain, keccak
from protocol.round import ModelState, RoundWork, apply_header, compute_round
from protocol.step import ONE_STEP, StepSpec
from protocol.types import Address, JobId, RoundIndex
from protocol.update import TensorKind, compute_tensor_digest
from tests.support.small_round import ROUND_RULES, make_round_inputs

INPUTS = make_round_inputs(seed=1)
BEFORE = ModelState(
    parameters=INPUTS.parameters,
    sampler=INPUTS.state,
    credits=tuple(range(16)),
    misses=INPUTS.misses,
    previous_digest=keccak(b"the round before"),
)
WORK = RoundWork(
    domain=Domain(1337, Address(bytes(range(20)))),
    job_id=JobId(7),
    round_index=RoundIndex(3),
    rules=ROUND_RULES,
    payees=tuple(Address(bytes([index]) * 20) for index in range(16)),
    before=BEFORE,
    sampled=INPUTS.sampled,
    updates=INPUTS.updates,
    samples=INPUTS.samples,
    labels=INPUTS.labels,
)


def test_the_header_tells_what_was_computed() -> None:
    expected = aggregate_round(ROUND_RULES, INPUTS)
    result = compute_round(WORK)
    header = RoundHeader.decode(result.opening)
    assert header.digest == result.digest == keccak(result.opening)
    assert header.model_digest == compute_tensor_digest(TensorKind.PARAMETERS, expected.parameters)
    assert header.sampler_digest == compute_sampler_digest(expected.state)
    assert header.sampled == encode_bitmap(INPUTS.sampled)
    assert header.available == encode_bitmap(INPUTS.updates)
    assert header.accepted == encode_bitmap(expected.accepted)
    assert header.utilities == expected.utilities
    assert header.previous_digest == BEFORE.previous_digest
    assert (header.job, header.round_index, header.domain) == (7, 3, WORK.domain)
    assert (header.utility_before, header.utility_after) == (
        expected.utility_before,
        expected.utility_after,
    )


def test_only_accepted_sellers_gain_a_credit() -> None:
    header = RoundHeader.decode(compute_round(WORK).opening)
    accepted = decode_bitmap(header.accepted)
    assert 0 < len(accepted) < len(INPUTS.updates) < len(INPUTS.sampled)
    credits = tuple(count + (index in accepted) for index, count in enumerate(BEFORE.credits))
    assert header.credit_root == compute_credit_root(WORK.payees, credits)
    assert header.credit_sum == sum(BEFORE.credits) + len(accepted)
    assert apply_header(BEFORE, header).credits == credits


def test_a_decided_header_counts_misses_and_becomes_the_previous_one() -> None:
    header = RoundHeader.decode(compute_round(WORK).opening)
    after = apply_header(BEFORE, header)
    absent = set(INPUTS.sampled) - set(INPUTS.updates)
    assert len(absent) == 2
    assert after.misses == tuple(int(index in absent) for index in range(16))
    assert after.previous_digest == header.digest


def test_momentum_takes_the_parameters_before_the_last_decided_round() -> None:
    rules = replace(ROUND_RULES, step=StepSpec(momentum_q16=ONE_STEP // 2))
    previous = INPUTS.parameters - 4096
    work = replace(WORK, rules=rules, before=replace(BEFORE, previous_parameters=previous))
    expected = aggregate_round(rules, replace(INPUTS, previous_parameters=previous))
    header = RoundHeader.decode(compute_round(work).opening)
    assert header.model_digest == compute_tensor_digest(TensorKind.PARAMETERS, expected.parameters)
    assert (expected.parameters == aggregate_round(ROUND_RULES, INPUTS).parameters + 2048).all()


def test_a_round_without_momentum_does_not_look_back() -> None:
    before = replace(BEFORE, previous_parameters=INPUTS.parameters - 4096)
    assert compute_round(replace(WORK, before=before)).opening == compute_round(WORK).opening


def test_the_header_depends_on_the_order_of_nothing() -> None:
    backwards = replace(WORK, updates=dict(reversed(WORK.updates.items())))
    assert compute_round(backwards).opening == compute_round(WORK).opening
