"""How much gas a role needs. The costs are those that `scripts/gas` measures."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

WANTED_ROUNDS: Final = 20
"""An account that cannot pay so many should be filled up."""

GAS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "round_10_votes": 345_445,
        "enrol_seller": 117_075,
        "reclaim_deposit": 36_418,
        "claim": 30_938,
        "open_auction_sealed": 370_377,
        "reveal_bid_sealed_first": 244_270,
        "close_auction_sealed": 215_860,
        "reclaim_bid_sealed": 42_240,
    }
)
"""By its name in the recorded costs; a test holds them against each other."""

_ROUNDS_PER_JOB: Final = 10

_OF_A_SELLERS_JOB: Final = ("enrol_seller", "reclaim_deposit", "claim")
_OF_A_BUYERS_JOB: Final = (
    "open_auction_sealed",
    "reveal_bid_sealed_first",
    "close_auction_sealed",
    "reclaim_bid_sealed",
)


def needed_gas(roles: Iterable[str]) -> int:
    """Return what the roles may spend in `WANTED_ROUNDS`, if this node has to send everything."""
    jobs = -(-WANTED_ROUNDS // _ROUNDS_PER_JOB)
    per_role = {
        "cone": WANTED_ROUNDS * GAS["round_10_votes"],
        "seller": jobs * sum(GAS[one] for one in _OF_A_SELLERS_JOB),
        "buyer": jobs * sum(GAS[one] for one in _OF_A_BUYERS_JOB),
    }
    return sum(per_role[role] for role in roles)
