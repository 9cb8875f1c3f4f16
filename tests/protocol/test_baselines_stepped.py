"""Every rule takes the step that a request asks for as the market takes it."""

from typing import Any

from protocol.baselines.interface import Aggregate, Offers
from protocol.baselines.stepped import Stepped
from protocol.step import ONE_STEP, StepSpec
from tests.support.offers import make_offers


class First:
    """Aggregates to the first update."""

    def aggregate(self, offers: Offers) -> Aggregate:
        return Aggregate(step=offers.updates[0], contributors=(0,))


class Nobody:
    """Accepts nobody."""

    def aggregate(self, offers: Offers) -> Aggregate:
        return Aggregate(step=offers.updates[0] * 0, contributors=())


def offer(step: list[int], **changes: Any) -> Offers:
    return make_offers([step], **changes)


def make_step(momentum: int = 0, *lengths: int) -> StepSpec:
    return StepSpec(lengths_q16=lengths or (ONE_STEP,), momentum_q16=momentum)


def test_the_length_that_measures_best_is_taken_and_the_first_of_equals() -> None:
    rule = Stepped(First(), make_step(0, ONE_STEP, 2 * ONE_STEP, 4 * ONE_STEP))

    def come_near_ten(updates: list[Any]) -> list[int]:
        return [-abs(int(one[0]) - 10) for one in updates]

    assert rule.aggregate(offer([5], measure=come_near_ten)).step.tolist() == [10]
    flat = offer([5], measure=lambda updates: [0] * len(updates))
    assert rule.aggregate(flat).step.tolist() == [5]


def test_one_length_is_not_measured() -> None:
    rule = Stepped(First(), make_step(0, 3 * ONE_STEP // 2))
    assert rule.aggregate(offer([5, -5])).step.tolist() == [8, -7]


def test_momentum_adds_a_part_of_the_last_step_whatever_the_length() -> None:
    rule = Stepped(First(), make_step(ONE_STEP // 2, 2 * ONE_STEP))
    assert rule.aggregate(offer([5], previous_step=[100])).step.tolist() == [60]
    assert rule.aggregate(offer([5])).step.tolist() == [10]


def test_who_contributes_stays_as_the_rule_says() -> None:
    rule = Stepped(First(), make_step(0, ONE_STEP // 2))
    assert rule.aggregate(offer([5])).contributors == (0,)


def test_without_contributors_nothing_moves() -> None:
    rule = Stepped(Nobody(), make_step(ONE_STEP // 2, ONE_STEP, 2 * ONE_STEP))
    assert rule.aggregate(offer([5], previous_step=[100])).step.tolist() == [0]
