"""What hostile sellers send, and what a round without Corrected OSMD makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from d2m_node.ports import Samples
from d2m_node.simulation.computing.ablations import (
    ABLATIONS,
    AblatedExecutor,
    Ablation,
    compute_ablated_round,
)
from d2m_node.simulation.hostile.data_attacks import DATA_ATTACKS
from d2m_node.simulation.hostile.update_attacks import (
    UPDATE_ATTACKS,
    Alie,
    Identical,
    InnerProduct,
    Noise,
    Replay,
    RingView,
    Scaled,
    SignFlip,
)
from protocol.digest import RoundHeader
from protocol.errors import InvalidParams
from protocol.round import compute_round
from protocol.update import MAX_UPDATE, TensorKind, encode_tensor
from tests.support.federation import START, measure_accuracy, prepare_round
from tests.support.rounds import follow

SEED = b"\x07" * 32
LEARNED = {2: np.array([4, -8, 1000], np.int32), 5: np.array([8, -4, 2000], np.int32)}


def view(seller: int = 5, **changes: object) -> RingView:
    whole = {"seller": seller, "learned": LEARNED, "previous_step": None, "seed": SEED, **changes}
    return RingView(**whole)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", UPDATE_ATTACKS)
def test_what_an_attack_makes_up_is_a_message_that_may_be_sent(name: str) -> None:
    huge = {index: np.full(50, MAX_UPDATE, np.int32) for index in (2, 5)}
    forged = UPDATE_ATTACKS[name]().forge(view(learned=huge, previous_step=huge[2]))
    assert (forged.dtype, forged.shape) == (np.int32, (50,))
    assert encode_tensor(TensorKind.UPDATE, forged)


@pytest.mark.parametrize("name", UPDATE_ATTACKS)
def test_an_attack_is_a_function_of_what_it_sees(name: str) -> None:
    attack = UPDATE_ATTACKS[name]()
    assert (attack.forge(view()) == attack.forge(view())).all()


def test_attacks_send_what_their_authors_say() -> None:
    assert SignFlip(2).forge(view()).tolist() == [-16, 8, -4000]
    assert Scaled(10).forge(view()).tolist() == [80, -40, 20000]
    assert InnerProduct(0.5).forge(view()).tolist() == [-3, 3, -750]
    assert Alie(1).forge(view()).tolist() == [4, -8, 1000]


def test_a_ring_of_identical_colluders_sends_one_vector() -> None:
    sent = [Identical().forge(view(seller)) for seller in LEARNED]
    assert (sent[0] == sent[1]).all()
    assert (sent[0] == -LEARNED[2]).all()


def test_noise_differs_by_seller_and_by_round() -> None:
    first = Noise().forge(view(2))
    assert (first != Noise().forge(view(5))).any()
    assert (first != Noise().forge(view(2, seed=b"\x08" * 32))).any()


def test_a_replay_follows_the_last_step() -> None:
    step = np.array([500_000, -500_000, 0], np.int32)
    sent = Replay(noise=0.0).forge(view(previous_step=step))
    assert (sent == step).all()


# --- data -------------------------------------------------------------------------------------


def make_samples(count: int = 100) -> Samples:
    inputs = np.arange(count * 4, dtype=np.uint8).reshape(count, 1, 2, 2)
    return Samples(inputs=inputs, labels=np.arange(count) % 10)


def test_flipped_labels_are_mirrored() -> None:
    flipped = DATA_ATTACKS["label-flip"](make_samples(), 10, SEED)
    assert flipped.labels[:10].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_a_noisy_seller_keeps_half_of_its_labels() -> None:
    samples = make_samples(1000)
    noisy = DATA_ATTACKS["noisy"](samples, 10, SEED)
    wrong = (noisy.labels != samples.labels).mean()
    assert 0.4 < wrong < 0.5
    assert noisy.inputs is samples.inputs


def test_a_poor_seller_keeps_a_tenth_of_its_samples() -> None:
    samples = make_samples()
    poor = DATA_ATTACKS["poor"](samples, 10, SEED)
    assert len(poor.labels) == len(poor.inputs) == 10
    assert len(DATA_ATTACKS["poor"](make_samples(2), 10, SEED).labels) == 2


@pytest.mark.parametrize("name", DATA_ATTACKS)
def test_data_are_corrupted_by_the_seed_alone(name: str) -> None:
    before = make_samples()
    labels = before.labels.copy()
    one, other = (DATA_ATTACKS[name](before, 10, SEED) for _ in range(2))
    assert (one.labels == other.labels).all()
    assert (before.labels == labels).all(), "the honest samples were changed"


# --- ablations --------------------------------------------------------------------------------


def test_an_ablation_that_leaves_nothing_out_gives_the_digest_of_the_market() -> None:
    state, whole = START, Ablation(learns=True, aggregator="corrected-osmd")
    for number in range(3):
        work = prepare_round(state, number)
        work = replace(work, updates=dict(list(work.updates.items())[:-1]))
        result = compute_round(work)
        assert compute_ablated_round(work, whole).digest == result.digest
        state = follow(state, result)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_learns_among_honest_sellers(name: str) -> None:
    state, executor = START, AblatedExecutor(name)
    for number in range(3):
        state = follow(state, executor.compute_round(prepare_round(state, number)))
    assert measure_accuracy(state) > measure_accuracy(START) + 0.2


def test_without_corrected_osmd_all_are_accepted_and_nothing_is_learned_about_them() -> None:
    work = prepare_round(START, 0)
    result = AblatedExecutor("no-corrected-osmd").compute_round(work)
    header = RoundHeader.decode(result.opening)
    assert header.accepted == header.available == header.sampled
    assert result.sampler == START.sampler


def test_one_hostile_seller_ruins_the_plain_mean_and_not_the_market() -> None:
    work = prepare_round(START, 0)
    first = work.sampled[0]
    wrecked = {**work.updates, first: np.full_like(work.updates[first], MAX_UPDATE)}
    wrecked[first][::2] = -MAX_UPDATE
    work = replace(work, updates=wrecked)
    mean = RoundHeader.decode(AblatedExecutor("no-corrected-osmd").compute_round(work).opening)
    ours = RoundHeader.decode(compute_round(work).opening)
    assert ours.utility_after > mean.utility_after + (1 << 16)
    assert not ours.accepted >> first & 1


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_round_without_updates_leaves_the_model_as_it_is(name: str) -> None:
    work = replace(prepare_round(START, 0), updates={})
    result = AblatedExecutor(name).compute_round(work)
    header = RoundHeader.decode(result.opening)
    assert header.accepted == 0
    assert header.utility_after == header.utility_before


def test_an_unknown_ablation_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidParams, match="no 'no-kurm'; known are no-corrected-osmd"):
        AblatedExecutor("no-kurm")
