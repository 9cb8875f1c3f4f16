"""A request file becomes exact terms, and each mistake in it is named."""

from dataclasses import astuple
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from d2m_node.errors import UserError
from d2m_node.request_file import RequestFile, parse_request, read_request
from d2m_node.training.dataset_file import read_dataset_file
from d2m_node.user_input import read_toml
from protocol.auction import AuctionMode
from protocol.layers import Flatten, Linear
from protocol.model import InputKind, bag_of_tokens, cnn
from protocol.profiles import Goal, select_profile
from protocol.step import PLAIN_STEP, StepSpec
from protocol.terms import Metric
from protocol.types import Wei

EXAMPLE = Path(__file__).parents[2] / "configs" / "requests" / "digits.toml"
Table = dict[str, Any]


@pytest.fixture
def table() -> Table:
    return read_toml(EXAMPLE)


def parse(table: Table) -> RequestFile:
    return parse_request(table, EXAMPLE.parent)


def test_the_example_holds_the_devnet_terms() -> None:
    request = read_request(EXAMPLE)
    assert request.tags == ("digits", "images")
    assert request.bid_wei == 2 * 10**18
    assert request.model == cnn((1, 8, 8), 10)
    assert request.training.learning_rate_micros == 10_000
    assert request.sampling.alpha_bps == 2000
    assert request.sampling.eta_q16 == 1 << 16
    assert request.sampling.keep_bps == 7000
    assert request.terms.metric is Metric.ACC
    assert request.terms.sellers_per_round == 5
    assert request.terms.stake_wei == Wei(10**18)
    assert request.terms.seller_deposit_wei == Wei(15 * 10**16)
    assert request.terms.header_blocks == 10


def test_the_examples_for_tables_and_texts_are_valid() -> None:
    houses, reviews = (
        read_request(EXAMPLE.with_name(name)) for name in ("houses.toml", "reviews.toml")
    )
    assert houses.model.input_kind is InputKind.TABULAR
    assert houses.terms.metric is Metric.NEG_MSE
    assert houses.terms.target == -(2 << 20) // 10
    assert houses.sampling.eta_q16 == 1 << 16
    assert reviews.model == bag_of_tokens((128,), 2, vocabulary=8000)
    assert reviews.terms.metric is Metric.MACRO_F1
    for request in (houses, reviews):
        assert read_dataset_file(Path(request.validation_dataset)).tags == list(request.tags)


def test_the_examples_dataset_is_there_and_large_enough() -> None:
    request = read_request(EXAMPLE)
    assert Path(request.validation_dataset).is_absolute()
    split = read_toml(Path(request.validation_dataset))["split"]
    assert isinstance(split, dict)
    assert request.validation_final_count < split["held_out_count"]


def test_a_target_is_rounded_down_as_utilities_are(table: Table) -> None:
    # 0.9 << 20 is 943718.4; nine of ten right is (9 << 20) // 10.
    assert parse(table).terms.target == (9 << 20) // 10


def test_a_negative_target_of_cross_entropy_is_rounded_down_too(table: Table) -> None:
    table["terms"] |= {"metric": "cross-entropy", "target": Decimal("-0.3")}
    request = parse(table)
    assert request.terms.target == -314573
    assert request.terms.metric is Metric.NEG_CE


def test_the_default_step_depends_on_the_metric(table: Table) -> None:
    del table["sampling"]
    table["terms"] |= {"metric": "cross-entropy", "target": 0}
    assert parse(table).sampling.eta_q16 == 1 << 14


def test_a_request_that_says_nothing_of_its_step_takes_the_aggregate(table: Table) -> None:
    del table["step"]
    del table["training"]["rate_decay"]
    request = parse(table)
    assert request.step == PLAIN_STEP
    assert request.training.rate_decay_ppm == 1_000_000


def test_a_schedule_is_read_into_fixed_point(table: Table) -> None:
    table["training"]["rate_decay"] = Decimal("0.95")
    table["step"] = {"lengths": [Decimal("0.4"), 1, Decimal("1.5")], "momentum": Decimal("0.8")}
    request = parse(table)
    assert request.training.rate_decay_ppm == 950_000
    assert request.step == StepSpec(lengths_q16=(26_214, 65_536, 98_304), momentum_q16=52_429)


def test_a_rate_that_falls_to_nothing_before_the_last_round_is_refused(table: Table) -> None:
    table["terms"]["rounds_max"] = 6
    table["training"]["rate_decay"] = Decimal("0.1585")
    assert parse(table).training.rate_decay_ppm == 158_500
    table["training"]["rate_decay"] = Decimal("0.1584")
    with pytest.raises(UserError, match=r"training\.rate_decay: is 0\.1584; in round 6 the learn"):
        parse(table)


def test_a_model_may_be_a_list_of_layers(table: Table) -> None:
    table["model"] = {
        "input_shape": [1, 8, 8],
        "outputs": 10,
        "layers": [{"layer": "flatten"}, {"layer": "linear", "out_features": 10}],
    }
    assert parse(table).model.layers == (Flatten(), Linear(10))


def test_a_request_of_json_numbers_is_the_same(table: Table) -> None:
    expected = parse(table)
    table["training"]["learning_rate"] = 0.01
    table["terms"]["target"] = 0.9
    table["sampling"] = {"alpha": 0.2, "eta": 1.0, "keep": 0.7}
    assert parse(table) == expected


def test_tags_are_sorted_and_counted_once(table: Table) -> None:
    table["tags"] = ["images", "digits", "images"]
    assert parse(table).tags == ("digits", "images")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (None, "bid", 1, "unknown key 'bid'; did you mean 'bid_wei'?"),
        (None, "bid_wei", "2euro", "bid_wei: '2euro' is no amount"),
        (None, "bid_wei", "5ether", "bid_wei: must be between"),
        (None, "bid_wei", 1, "bid_wei: must be between"),
        (None, "tags", [], "tags: expected `array` of length >= 1"),
        (None, "tags", ["No Spaces"], "tags[0]: expected `str` matching"),
        (None, "auction", 3, "auction: expected `object`"),
        ("auction", "reveal_blocks", 0, "auction.reveal_blocks: expected `int` >= 1"),
        ("auction", "deposit", 1, "unknown key 'auction.deposit'; did you mean 'auction.deposit_"),
        ("model", "preset", "resnet", "model.preset: 'resnet' is none of logreg, mlp, cnn"),
        ("model", "hidden", 4, "model.hidden: cnn does not take it"),
        ("model", "outputs", 0, "model.outputs: expected `int` >= 1"),
        ("model", "outputs", 1, "terms.metric: one output is a regression; take NEG_MSE"),
        ("model", "input_kind", "sound", "model.input_kind: invalid enum value 'sound'"),
        ("model", "input_kind", "tokens", "model.input_shape: give (tokens,) for tokens"),
        ("model", "layers", [], "model: give either preset or layers"),
        ("model", "kernel", 9, "model.kernel: (9, 9) is larger than the input"),
        ("training", "epochs", 0, "training.epochs: out of range"),
        ("training", "learning_rate", Decimal("inf"), "training.learning_rate"),
        ("training", "learning_rate", Decimal("1e999999"), "training.learning_rate: 1E+999999 is"),
        ("training", "learning_rate", Decimal("1e900000"), "training.learning_rate: 1E+900000 is"),
        ("training", "learning_rate", "1e999999", "training.learning_rate: 1E+999999 is"),
        ("training", "learning_rate", Decimal("1e90"), "training.learning_rate: out of range"),
        ("training", "rate_decay", 0, "training.rate_decay: out of range"),
        ("training", "rate_decay", Decimal("1.01"), "training.rate_decay: out of range"),
        ("training", "rate_decay", Decimal("nan"), "training.rate_decay"),
        ("training", "decay", 1, "unknown key 'training.decay'; did you mean 'training.rate_dec"),
        ("step", "lengths", [], "step.lengths: 0 numbers; give 1 to 4"),
        ("step", "lengths", [1, 2, 3, 4, 5], "step.lengths: 5 numbers; give 1 to 4"),
        ("step", "lengths", 1, "step.lengths: expected `array`"),
        ("step", "lengths", [0], "step.lengths: give numbers above 0, at most 16"),
        ("step", "lengths", [-1], "step.lengths: give numbers above 0, at most 16"),
        ("step", "lengths", [17], "step.lengths: give numbers above 0, at most 16"),
        ("step", "lengths", [Decimal("inf")], "step.lengths"),
        ("step", "lengths", [1, Decimal("1.000001")], "step.lengths: a number stands there twice"),
        ("step", "momentum", 1, "step.momentum: is 1; give a number from 0 to below 1"),
        ("step", "momentum", Decimal("-0.1"), "step.momentum: is -0.1; give a number from 0"),
        ("step", "length", 1, "unknown key 'step.length'; did you mean 'step.lengths'?"),
        ("sampling", "alpha", Decimal("1e999999"), "sampling.alpha: 1E+999999 is no number"),
        ("sampling", "eta", Decimal("1e999999"), "sampling.eta: 1E+999999 is no number"),
        ("validation", "dataset", "~nosuchuser/x", "validation.dataset: ~nosuchuser/x: "),
        (None, "bid_wei", "9" * 5000 + "ether", "bid_wei: an amount has at most 80 characters"),
        ("terms", "target", Decimal("1e999999"), "terms.target: is 1E+999999; give a number"),
        ("sampling", "keep", Decimal("1.5"), "sampling.keep: out of range"),
        ("validation", "dataset", "", "validation.dataset: expected `str` of length >= 1"),
        ("terms", "metric", "f1", "terms.metric: give one of accuracy, cross-entropy, macro-f1"),
        ("terms", "target", Decimal(90), "terms.target: is 90; give a number between 0 and 1"),
        ("terms", "target", Decimal("nan"), "terms.target"),
        ("terms", "target", "high", "terms.target"),
        ("terms", "lead", 0, "terms.lead: is 0; raise it to at least 1"),
        ("terms", "lead", "3", "terms.lead: expected `int`, got `str`"),
        ("terms", "sellers_min", 4, "terms.sellers_per_round: is 5; lower it to at most 4"),
        (
            "terms",
            "appeal_block",
            2,
            "unknown key 'terms.appeal_block'; did you mean 'terms.appeal",
        ),
        ("terms", "stake_wei", "many", "terms.stake_wei: 'many' is no amount"),
        ("terms", "seller_deposit_wei", "5 euro", "terms.seller_deposit_wei: '5 euro' is no"),
        ("terms", "seller_deposit_wei", 0, "terms.seller_deposit_wei: is 0; raise it to at"),
    ],
)
def test_a_mistake_is_named(
    table: Table, section: str | None, key: str, value: object, message: str
) -> None:
    (table if section is None else table[section])[key] = value
    with pytest.raises(UserError) as failure:
        parse(table)
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (None, "tags"),
        ("model", "outputs"),
        ("terms", "rounds_max"),
        ("terms", "target"),
        ("terms", "seller_deposit_wei"),
    ],
)
def test_what_is_missing_is_named(table: Table, section: str | None, key: str) -> None:
    del (table if section is None else table[section])[key]
    with pytest.raises(UserError, match=f"missing required field `{key}`"):
        parse(table)


def test_sizes_of_a_preset_do_not_go_with_layers(table: Table) -> None:
    del table["model"]["preset"]
    table["model"]["layers"] = [{"layer": "flatten"}, {"layer": "linear", "out_features": 10}]
    with pytest.raises(UserError, match=r"model\.channels: goes with a preset"):
        parse(table)


def test_a_mistake_in_a_file_names_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "request.toml"
    path.write_text("tags = 5")
    with pytest.raises(UserError) as failure:
        read_request(path)
    assert str(failure.value).count(str(path)) == 1
    with pytest.raises(UserError) as failure:
        read_request(tmp_path / "none.toml")
    assert str(failure.value).count("none.toml") == 1


VOTE_KEYS = ("lead", "first_set_size", "growth_numerator", "growth_denominator")


def leave_out_vote(table: Table) -> Table:
    for key in VOTE_KEYS:
        del table["terms"][key]
    return table


def test_a_vote_that_is_left_out_is_chosen_for_the_pools_that_may_be(table: Table) -> None:
    leave_out_vote(table)["terms"] |= {"cones_min": 5, "cones_max": 7}
    chosen = parse(table).terms
    expected = select_profile(Goal(range(5, 8)))
    assert tuple(getattr(chosen, key) for key in VOTE_KEYS) == astuple(expected)
    table["terms"] |= {"cones_max": 20}
    assert parse(table).terms.first_set_size > chosen.first_set_size


def test_a_vote_that_is_given_stays(table: Table) -> None:
    terms = parse(table).terms
    assert tuple(getattr(terms, key) for key in VOTE_KEYS) == (3, 4, 3, 2)


@pytest.mark.parametrize("key", VOTE_KEYS)
def test_a_vote_is_given_wholly_or_not_at_all(table: Table, key: str) -> None:
    del table["terms"][key]
    with pytest.raises(UserError, match=f"missing required field `{key}`"):
        parse(table)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"cones_max": 65}, "terms.cones_max: is 65; lower it to at most 64"),
        ({"cones_min": 21}, "terms.cones_min: is 21; lower it to at most 20"),
        ({"cones_min": 0}, "terms.cones_min: is 0; raise it to at least 1"),
        ({"cones_min": "five"}, "terms.cones_min: expected `int`, got `str`"),
    ],
)
def test_no_vote_is_chosen_for_a_pool_that_cannot_be(
    table: Table, sizes: Table, message: str
) -> None:
    leave_out_vote(table)["terms"] |= sizes
    with pytest.raises(UserError) as failure:
        parse(table)
    assert message in str(failure.value)


def test_a_request_is_for_a_sealed_auction_in_ether_unless_it_says_so(table: Table) -> None:
    request = parse(table)
    assert (request.mode, request.is_in_token) == (AuctionMode.SEALED, False)


def test_a_second_price_auction_is_asked_for_by_name(table: Table) -> None:
    table["auction"]["mode"] = "second-price"
    request = parse(table)
    assert request.mode is AuctionMode.SECOND_PRICE
    assert (request.deposit_wei, request.reveal_blocks) == (4 * 10**18, 4)


def test_an_open_auction_has_nothing_to_seal(table: Table) -> None:
    table["auction"] = {"mode": "open", "reserve_wei": "0.1ether", "commit_blocks": 20}
    request = parse(table)
    assert request.mode is AuctionMode.OPEN
    assert (request.deposit_wei, request.reveal_blocks) == (0, 0)
    assert request.commit_blocks == 20


@pytest.mark.parametrize(
    ("key", "value"), [("deposit_wei", "4ether"), ("deposit_wei", 0), ("reveal_blocks", 4)]
)
def test_what_only_sealed_bids_need_is_refused_in_an_open_auction(
    table: Table, key: str, value: object
) -> None:
    table["auction"] = {"mode": "open", "reserve_wei": 0, "commit_blocks": 20, key: value}
    with pytest.raises(UserError, match=rf"^auction\.{key}: an open auction has none; remove it"):
        parse(table)


@pytest.mark.parametrize("mode", ["sealed", "second-price"])
@pytest.mark.parametrize("key", ["deposit_wei", "reveal_blocks"])
def test_what_sealed_bids_need_is_missed(table: Table, mode: str, key: str) -> None:
    table["auction"]["mode"] = mode
    del table["auction"][key]
    with pytest.raises(UserError, match=rf"^auction\.{key}: missing"):
        parse(table)


def test_an_unknown_mode_or_currency_is_named(table: Table) -> None:
    for key in ("mode", "currency"):
        wrong = {**table, "auction": {**table["auction"], key: "dutch"}}
        with pytest.raises(UserError, match=rf"^auction\.{key}: "):
            parse(wrong)


@pytest.mark.parametrize("bid", [0, "0.05ether"])
def test_a_bid_that_its_own_open_auction_would_not_take_is_refused(
    table: Table, bid: int | str
) -> None:
    reserve = 0 if bid == 0 else "0.1ether"
    table["auction"] = {"mode": "open", "reserve_wei": reserve, "commit_blocks": 20}
    table["bid_wei"] = bid
    with pytest.raises(UserError, match=r"^bid_wei: must be at least auction\.reserve_wei"):
        parse(table)


def test_amounts_of_a_token_are_whole_smallest_units(table: Table) -> None:
    table["bid_wei"] = 2_000_000
    table["auction"] |= {"currency": "token", "deposit_wei": "4000000", "reserve_wei": 100_000}
    table["terms"]["seller_deposit_wei"] = 150_000
    request = parse(table)
    assert request.is_in_token
    assert (request.bid_wei, request.deposit_wei) == (2_000_000, 4_000_000)
    assert request.terms.seller_deposit_wei == 150_000
    assert request.terms.stake_wei == 10**18, "stake is ether in every job"


@pytest.mark.parametrize(
    "place", ["bid_wei", "auction.deposit_wei", "auction.reserve_wei", "terms.seller_deposit_wei"]
)
@pytest.mark.parametrize("amount", ["1ether", "5 gwei", "0.5"])
def test_an_amount_of_a_token_with_a_unit_is_refused(table: Table, place: str, amount: str) -> None:
    table["bid_wei"] = 2_000_000
    table["auction"] |= {"currency": "token", "deposit_wei": 4_000_000, "reserve_wei": 100_000}
    table["terms"]["seller_deposit_wei"] = 150_000
    section, _, key = place.rpartition(".")
    (table[section] if section else table)[key] = amount
    with pytest.raises(UserError, match=rf"^{place}: .* is no amount of a token; write whole"):
        parse(table)
