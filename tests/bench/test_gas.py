"""What `scripts/check` compares with: the recorded gas, and what counts as a rise."""

from tests.bench.gas_report import compare, read_report
from tests.contracts.metering import transaction_gas


def test_the_report_has_what_is_asked_of_it() -> None:
    rounds = {f"round_{votes}_votes" for votes in (5, 10, 20, 40)}
    settlements = {f"settlement_{sellers}_sellers" for sellers in (20, 200)}
    assert rounds | settlements | {"job_50_rounds"} <= read_report().keys()


def test_a_rise_above_two_percent_is_told() -> None:
    assert compare({"round": 1000}, {"round": 1020}) == []
    assert compare({"round": 1000}, {"round": 1021}) == ["gas: round rose from 1000 to 1021"]


def test_a_fall_is_welcome() -> None:
    assert compare({"round": 1000}, {"round": 500}) == []


def test_a_cost_that_comes_or_goes_is_told() -> None:
    assert compare({}, {"round": 5}) == ["gas: round is not recorded: 5"]
    assert compare({"round": 5}, {}) == ["gas: round is not measured any more"]


def test_a_transaction_costs_its_base_its_data_and_what_it_executes() -> None:
    assert transaction_gas(b"", 0, 0) == 21_000
    assert transaction_gas(b"\x00\x01", 1000, 0) == 21_000 + 4 + 16 + 1000


def test_refunds_are_at_most_a_fifth() -> None:
    assert transaction_gas(b"", 9_000, 4_800) == 30_000 - 4_800
    assert transaction_gas(b"", 9_000, 9_000) == 30_000 - 6_000


def test_much_data_has_a_floor() -> None:
    assert transaction_gas(bytes([1]) * 100, 0, 0) == 21_000 + 4_000
