"""Epsilons against numbers from elsewhere: papers, another accountant, and the exact formula."""

import math
import warnings

import pytest
from opacus.accountants import PRVAccountant

from d2m_node.ports import PrivateTraining
from d2m_node.training.accounting import choose_noise, compute_epsilon
from protocol.errors import InvalidParams

DELTA = 1e-5


def training(noise: float, rate: float, steps: int) -> PrivateTraining:
    return PrivateTraining(noise_multiplier=noise, max_grad_norm=1, sample_rate=rate, steps=steps)


def compute_exactly(noise: float, steps: int, epsilon: float) -> float:
    """Delta of ``steps`` Gaussian mechanisms without sampling: Balle, Wang 2018, theorem 8."""
    mu = math.sqrt(steps) / noise

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize(
    ("one", "published"),
    [
        # Abadi et al. 2016, section 3.2: q = 0.01, sigma = 4, 10,000 steps.
        (training(4.0, 0.01, 10_000), 1.26),
        # The tutorial of TensorFlow Privacy: MNIST, batches of 250, 15 epochs.
        (training(1.3, 250 / 60_000, 3600), 1.18),
    ],
)
def test_epsilons_are_just_below_those_that_were_published(
    one: PrivateTraining, published: float
) -> None:
    """The conversion from Renyi has become tighter since; the PRV accountant is tighter still."""
    epsilon = compute_epsilon([(one, 1)], DELTA)
    assert epsilon <= published
    accountant = PRVAccountant()
    accountant.history = [(one.noise_multiplier, one.sample_rate, one.steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lower = accountant.get_epsilon(delta=DELTA)
    assert lower <= epsilon <= 1.15 * lower


@pytest.mark.parametrize(("noise", "steps"), [(5.0, 10), (1.0, 1), (20.0, 50)])
def test_epsilons_without_sampling_are_just_above_the_exact_ones(noise: float, steps: int) -> None:
    epsilon = compute_epsilon([(training(noise, 1.0, steps), 1)], DELTA)
    assert compute_exactly(noise, steps, epsilon) <= DELTA
    assert compute_exactly(noise, steps, 0.88 * epsilon) > DELTA


def test_trainings_add_up_in_any_grouping_and_order() -> None:
    one, other = training(1.0, 0.1, 20), training(2.0, 0.05, 7)
    together = compute_epsilon([(one, 3), (other, 2)], DELTA)
    apart = compute_epsilon([(other, 1), (one, 2), (other, 1), (one, 1)], DELTA)
    assert together == pytest.approx(apart)
    assert compute_epsilon([(one, 3)], DELTA) < together
    assert together < compute_epsilon([(one, 3)], DELTA) + compute_epsilon([(other, 2)], DELTA)


def test_nothing_costs_nothing() -> None:
    assert compute_epsilon([], DELTA) == 0
    assert compute_epsilon([(training(1.0, 0.1, 20), 0)], DELTA) == 0


@pytest.mark.parametrize("epsilon", [0.05, 1.0, 8.0])
def test_the_noise_that_is_chosen_costs_what_it_may_and_little_less(epsilon: float) -> None:
    noise = choose_noise(epsilon=epsilon, delta=DELTA, sample_rate=0.05, steps=300)
    spent = compute_epsilon([(training(noise, 0.05, 300), 1)], DELTA)
    assert 0.98 * epsilon <= spent <= epsilon


def test_an_epsilon_that_no_noise_reaches_is_refused() -> None:
    with pytest.raises(InvalidParams, match="epsilon_per_job: 1e-12 is too small"):
        choose_noise(epsilon=1e-12, delta=DELTA, sample_rate=1.0, steps=10)
