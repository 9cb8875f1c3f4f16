"""Rosters as a test reads them, by the calls of `MembersHarness`."""

from typing import Any

from eth_utils.address import to_checksum_address

SELLER_SIZE, CONE_SIZE = 20, 52


def list_roster(rules: Any, roster: str, size: int) -> list[str]:
    read = rules.seller_at if size == SELLER_SIZE else rules.cone_account_at
    return [read(roster, index) for index in range(rules.count_members(roster, size))]


def list_pool(rules: Any, roster: str) -> list[tuple[str, bytes]]:
    """Accounts and ticket roots of a roster of nodes."""
    records = rules.read_cones(roster)
    cut = [records[at : at + CONE_SIZE] for at in range(0, len(records), CONE_SIZE)]
    return [(to_checksum_address(record[:20]), record[20:]) for record in cut]
