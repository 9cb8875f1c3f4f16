"""What private trainings cost, by Opacus' Renyi accountant: an upper bound that adds up over jobs.

Source: Mironov, Talwar, Zhang 2019 (arXiv:1908.10530).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier

from d2m_node.ports import PrivateTraining
from protocol.errors import InvalidParams

ORDERS: Final = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *range(11, 64),
    *(64, 80, 96, 128, 192, 256, 512, 1024),
)
"""Opacus' own, and larger ones for much noise: each gives a bound, the best one counts."""


def compute_epsilon(history: Sequence[tuple[PrivateTraining, int]], delta: float) -> float:
    """Return the epsilon of trainings, each done so many times, at ``delta``."""
    accountant = RDPAccountant()
    accountant.history = [
        (one.noise_multiplier, one.sample_rate, one.steps * times)
        for one, times in history
        if one.steps * times
    ]
    with _quiet():
        return float(accountant.get_epsilon(delta=delta, alphas=list(ORDERS)))


def choose_noise(*, epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the least noise multiplier, to a hundredth of epsilon, for ``steps`` steps.

    Raises InvalidParams if an epsilon is too small for any.
    """
    try:
        with _quiet():
            return float(
                get_noise_multiplier(
                    target_epsilon=epsilon,
                    target_delta=delta,
                    sample_rate=sample_rate,
                    steps=steps,
                    accountant="rdp",
                    epsilon_tolerance=epsilon / 100,
                    alphas=list(ORDERS),
                )
            )
    except ValueError as exc:
        raise InvalidParams("epsilon_per_job", f"{epsilon:g} is too small for any noise") from exc


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice to try more orders: the bound holds with those that there are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        yield
