"""Numbers of a run that are compared and plotted, with their names and units."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Final

from d2m_node.simulation.hostile.kinds import FLAWS
from d2m_node.simulation.report.outcome import HONEST, NodePayout, Outcome


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a run."""

    label: str
    """With its unit, as an axis says it."""
    read: Callable[[Outcome], float | None]
    """None where the run has no such number: a loop without a market has no votes."""


@dataclass(frozen=True, slots=True)
class RoundQuantity:
    """One number of each round."""

    label: str
    read: Callable[[Outcome], Sequence[float]]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _seconds_per_round(outcome: Outcome) -> float | None:
    return outcome.seconds / len(outcome.accuracy) if outcome.accuracy else None


QUANTITIES: Final[Mapping[str, Quantity]] = MappingProxyType(
    {
        "final_accuracy": Quantity("Test accuracy, %", lambda run: 100 * run.final_accuracy),
        "seconds": Quantity("Run time, s", lambda run: run.seconds),
        "seconds_per_round": Quantity("Run time per round, s", _seconds_per_round),
        "wrong_decisions": Quantity("Wrong decisions", lambda run: run.wrong_decisions),
        "overturned_decisions": Quantity(
            "Decisions taken back", lambda run: run.overturned_decisions
        ),
        "rounds_decided": Quantity("Rounds decided", lambda run: len(run.accuracy)),
        "votes": Quantity("Votes per round", lambda run: _mean(run.votes)),
        "mini_rounds": Quantity("Mini-rounds per round", lambda run: _mean(run.mini_rounds)),
        "blocks": Quantity("Blocks per round", lambda run: _mean(run.blocks)),
        "gas": Quantity(
            "Gas per round, thousands", lambda run: _mean([gas / 1000 for gas in run.gas])
        ),
        "network_bytes": Quantity(
            "Traffic per round, MB",
            lambda run: _mean([count / 1e6 for count in run.network_bytes]),
        ),
    }
)

ROUND_QUANTITIES: Final[Mapping[str, RoundQuantity]] = MappingProxyType(
    {
        "accuracy": RoundQuantity(
            "Test accuracy, %", lambda run: [100 * one for one in run.accuracy]
        ),
        "votes": RoundQuantity("Votes", lambda run: run.votes),
        "mini_rounds": RoundQuantity("Mini-rounds", lambda run: run.mini_rounds),
        "blocks": RoundQuantity("Blocks", lambda run: run.blocks),
        "gas": RoundQuantity("Gas, thousands", lambda run: [gas / 1000 for gas in run.gas]),
        "network_bytes": RoundQuantity(
            "Traffic, MB", lambda run: [count / 1e6 for count in run.network_bytes]
        ),
    }
)


def compute_pay_per_head(outcome: Outcome) -> dict[str, float]:
    """Compute what a seller of each group got, relative to an equal split of all sellers' pay.

    Empty if no seller was paid. Honest sellers come first, then those with data of less worth.
    """
    sellers = [one for one in outcome.payouts if one.role == "seller"]
    total = sum(one.payout_wei for one in sellers)
    if not total:
        return {}
    groups: dict[str, list[NodePayout]] = {}
    order = (HONEST, *FLAWS)

    def rank(one: NodePayout) -> tuple[int, str]:
        return (order.index(one.group) if one.group in order else len(order), one.group)

    for one in sorted(sellers, key=rank):
        groups.setdefault(one.group, []).append(one)
    equal = total / len(sellers)
    return {
        group: sum(one.payout_wei for one in members) / len(members) / equal
        for group, members in groups.items()
    }
