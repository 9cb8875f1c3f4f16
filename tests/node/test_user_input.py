"""Amounts, addresses and tables, as people write them."""

from decimal import Decimal
from pathlib import Path

import pytest

from d2m_node.errors import UserError
from d2m_node.user_input import explain_unknown_key, parse_address, parse_wei, read_toml


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
    ],
)
def test_an_amount_is_exact(amount: object, wei: int) -> None:
    assert parse_wei(amount) == wei


@pytest.mark.parametrize(
    "amount",
    ["", "ether", "-1", -1, "5 euro", "1e18", 1.5, True, None, "0.5", "0.5wei", "\u0665ether"],
)
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(UserError):
        parse_wei(amount)


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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.toml: cannot be read: No such file"):
        read_toml(tmp_path / "a.toml")
