"""The cases of `tests/vectors/auctions.json`, in plain arithmetic of their own.

Run as a module to write the file: `python -m tests.contracts.auction_vectors`.
"""

import json
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[1] / "vectors" / "auctions.json"
ONE_ETHER = 10**18
SEALED, SECOND_PRICE, OPEN = 0, 1, 2
UNREVEALED = None


LEAST_BIDS = (
    (0, 0),
    (1, 0),
    (ONE_ETHER, 0),
    (0, 1),
    (0, 19),
    (0, 20),
    (0, 21),
    (100, 90),
    (100, 96),
    (ONE_ETHER, 10 * ONE_ETHER),
    (ONE_ETHER, 10 * ONE_ETHER + 1),
    (7, 2**128 - 1),
)
EXTENSIONS = (
    # Opened in block 100 for 50 blocks: the last tenth is five blocks.
    (100, 100, 150, 0, 1000),
    (145, 100, 150, 0, 1000),
    (146, 100, 150, 0, 1000),
    (150, 100, 150, 0, 1000),
    # Extended before: the tenth is still that of the window as it was opened.
    (150, 100, 155, 5, 1000),
    (151, 100, 155, 5, 1000),
    (155, 100, 155, 5, 1000),
    # The bound of all extensions.
    (199, 100, 199, 49, 50),
    (200, 100, 200, 50, 50),
    (150, 100, 150, 0, 3),
    # Windows of less than ten blocks, and of one.
    (108, 100, 109, 0, 1000),
    (109, 100, 109, 0, 1000),
    (100, 100, 101, 0, 1000),
    (101, 100, 101, 0, 1000),
    (118, 100, 119, 0, 1000),
    (119, 100, 119, 0, 1000),
)
SELLER_DEPOSITS = (
    # (price, sellers at least, deposit of the terms), with 30 % for the CONE nodes
    (10 * ONE_ETHER, 5, ONE_ETHER),
    (10 * ONE_ETHER, 5, 14 * ONE_ETHER // 10),
    (5 * ONE_ETHER, 5, ONE_ETHER),
    (ONE_ETHER, 6, ONE_ETHER),
    (10_007, 3, 3000),
    (1, 20, 7),
    (0, 3, 7),
)
AWARDS = (
    # (mode, reserve, amounts by order of commitment, order of the reveals)
    (SEALED, 8, [9], [0]),
    (SEALED, 8, [9, 12, 10], [0, 1, 2]),
    (SEALED, 8, [9, 12, 12], [2, 1, 0]),
    (SEALED, 8, [12, 12, 12], [1, 2, 0]),
    (SEALED, 8, [9, UNREVEALED, 10], [2, 0]),
    (SEALED, 8, [UNREVEALED, UNREVEALED], []),
    (SECOND_PRICE, 8, [9], [0]),
    (SECOND_PRICE, 8, [9, 12, 10], [0, 1, 2]),
    (SECOND_PRICE, 8, [9, 12, 10], [1, 2, 0]),
    (SECOND_PRICE, 8, [9, 12, 10], [2, 0, 1]),
    (SECOND_PRICE, 8, [12, 9], [0, 1]),
    (SECOND_PRICE, 8, [12, 12, 9], [0, 1, 2]),
    (SECOND_PRICE, 8, [12, 12, 9], [2, 1, 0]),
    (SECOND_PRICE, 8, [9, 12, 12], [2, 0, 1]),
    (SECOND_PRICE, 8, [10, UNREVEALED, 9], [2, 0]),
    (SECOND_PRICE, 8, [10, UNREVEALED], [0]),
    (SECOND_PRICE, 8, [8, 8], [1, 0]),
    (SECOND_PRICE, 8, [UNREVEALED], []),
)


def build() -> dict[str, Any]:
    return {
        "least_bid": [_build_least(*case) for case in LEAST_BIDS],
        "extension": [_build_extension(*case) for case in EXTENSIONS],
        "seller_deposit": [_build_seller_deposit(*case) for case in SELLER_DEPOSITS],
        "awards": [_build_award(*case) for case in AWARDS],
    }


def _build_least(reserve_wei: int, best_wei: int) -> dict[str, int]:
    raised_wei = ceil(best_wei * Fraction(105, 100))
    return {
        "reserve_wei": reserve_wei,
        "best_wei": best_wei,
        "least_wei": max(1, reserve_wei, raised_wei),
    }


def _build_extension(
    now_block: int, opened_block: int, commit_end: int, extended: int, max_window: int
) -> dict[str, int]:
    window = range(opened_block + 1, commit_end - extended + 1)
    late_count = max(1, len(window) // 10)
    is_late = now_block in range(commit_end - late_count + 1, commit_end + 1)
    return {
        "now_block": now_block,
        "opened_block": opened_block,
        "commit_end": commit_end,
        "extended_blocks": extended,
        "max_window_blocks": max_window,
        "blocks": min(late_count, max_window - extended) if is_late else 0,
    }


def _build_seller_deposit(price_wei: int, sellers_min: int, asked_wei: int) -> dict[str, int]:
    pool_wei = price_wei - price_wei * 3000 // 10_000
    return {
        "price_wei": price_wei,
        "sellers_min": sellers_min,
        "asked_wei": asked_wei,
        "deposit_wei": min(asked_wei, max(1, ceil(Fraction(pool_wei, sellers_min)))),
    }


def _build_award(
    mode: int, reserve: int, amounts: list[int | None], reveals: list[int]
) -> dict[str, Any]:
    """Amounts are in ether; a bid that is not revealed has none."""
    ranked = sorted(reveals, key=lambda index: (-(amounts[index] or 0), index))
    paid = [amounts[index] for index in ranked]
    price = None
    if ranked:
        price = paid[0] if mode == SEALED else max([reserve, *paid[1:2]])
    return {
        "mode": mode,
        "reserve_wei": reserve * ONE_ETHER,
        "amounts_wei": [None if one is None else one * ONE_ETHER for one in amounts],
        "reveals": reveals,
        "winner": ranked[0] if ranked else None,
        "price_wei": None if price is None else price * ONE_ETHER,
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=1) + "\n")
