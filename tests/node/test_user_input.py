"""Amounts, addresses and tables, as people write them."""

from decimal import Decimal
from pathlib import Path

import pytest

from d2m_node.errors import UserError
from d2m_node.user_input import (
    expand_home,
    explain_unknown_key,
    is_moderate,
    parse_address,
    parse_wei,
    read_toml,
)


@pytest.mark.parametrize(
    ("amount", "wei"),
    [
        (7, 7),
        ("7", 7),
        ("7wei", 7),
        ("1000gwei", 10**12),
        ("5ether", 5 * 10**18),
        ("5 ether", 5 * 10**18),
        ("0.000000000000000001ether", 1),
        ("12345678901234567890123456789.5ether", 123456789012345678901234567895 * 10**17),
        ((1 << 256) - 1, (1 << 256) - 1),
        ("0" * 79 + "7", 7),
    ],
)
def test_an_amount_is_exact(amount: object, wei: int) -> None:
    assert parse_wei(amount) == wei


@pytest.mark.parametrize(
    "amount",
    [
        *("", "ether", "-1", -1, "5 euro", "1e18", 1.5, True, None, "0.5", "0.5wei"),
        *("\u0665ether", 1 << 256, "0" * 80 + "7", "9" * 5000 + "ether"),
    ],
)
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(UserError):
        parse_wei(amount)


def test_an_amount_too_long_to_print_is_refused() -> None:
    with pytest.raises(UserError, match=r"a whole number of wei below 2\^256"):
        parse_wei(1 << 20_000)


def test_an_address_is_twenty_bytes() -> None:
    assert parse_address("0x" + "aB" * 20) == b"\xab" * 20


@pytest.mark.parametrize("text", ["", "ab" * 20, "0x" + "ab" * 19, "0x" + "zz" * 20, None])
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(UserError, match="no address"):
        parse_address(text)


def test_an_unknown_key_is_answered_with_the_closest_or_with_all() -> None:
    assert (
        explain_unknown_key("leed", ["lead", "bid"]) == "unknown key 'leed'; did you mean 'lead'?"
    )
    assert explain_unknown_key("x", ["lead", "bid"]) == "unknown key 'x'; known: bid, lead"


def test_numbers_with_a_point_stay_exact(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("target = 0.90")
    assert read_toml(tmp_path / "a.toml") == {"target": Decimal("0.90")}


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"#" * 300_000, b"a=" + b"[" * 100_000])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.toml"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(
    "number",
    ["1e999999999999999999999", "1e-99999999999999999999", "1e101", "-1e-101", "0x1" + "0" * 64],
)
def test_a_number_that_stalls_what_computes_with_it_is_refused(tmp_path: Path, number: str) -> None:
    (tmp_path / "a.toml").write_text(f"table.list = [1, {{ key = {number} }}]")
    with pytest.raises(UserError, match=r"a\.toml: no TOML: .*(compute with|256 bits)"):
        read_toml(tmp_path / "a.toml")


def test_large_and_small_numbers_are_read(tmp_path: Path) -> None:
    numbers = (1e100, "1e-100", "0e999", "inf", f"0x{'f' * 64}")
    (tmp_path / "a.toml").write_text(f"numbers = [{', '.join(map(str, numbers))}]")
    assert read_toml(tmp_path / "a.toml") == {
        "numbers": [
            *map(Decimal, ("1e100", "1e-100", "0e999", "inf")),
            (1 << 256) - 1,
        ]
    }


@pytest.mark.parametrize(
    ("number", "expected"),
    [("1e100", True), ("9.9e100", True), ("1e101", False), ("-1e-101", False), ("nan", True)],
)
def test_a_number_is_moderate_within_a_hundred_powers_of_ten(number: str, expected: bool) -> None:
    assert is_moderate(Decimal(number)) is expected


def test_a_home_is_expanded() -> None:
    assert expand_home("~/x") == Path.home() / "x"
    assert expand_home("a/~b") == Path("a/~b")


def test_a_home_of_nobody_is_named() -> None:
    with pytest.raises(UserError, match=r"^~nosuchuser/x: .* home directory"):
        expand_home("~nosuchuser/x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.toml: cannot be read: No such file"):
        read_toml(tmp_path / "a.toml")
