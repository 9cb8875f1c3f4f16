"""The cases of `tests/vectors/settlement.json`, computed from exact fractions.

Run as a module to write the file: `python -m tests.contracts.settlement_vectors`.
"""

import json
import random
from collections.abc import Sequence
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from tests.contracts import reference

PATH = Path(__file__).parents[1] / "vectors" / "settlement.json"
MAX_PRICE = 2**128 - 1
ONE_ETHER = 10**18
TARGET, ENDED, ABORTED, UNSERVED = 1, 2, 3, 4

BASE: dict[str, Any] = {
    "currency": "ether",
    "price_wei": 10_007,
    "outcome": ENDED,
    "cone_bps": 3000,
    "floor_bps": 5000,
    "refund_cap_bps": 1000,
    "rounds_max": 50,
    "rounds_done": 40,
    "sellers_per_round": 5,
    "target": 1_000_000,
    "initial_utility": 100_000,
    "last_utility": 900_000,
    "participation": [3, 2, 0],
    "weights": [5, 1],
    "spent_wei": [0, 0, 0],
}


def build() -> dict[str, Any]:
    """All cases. Bytes are hex with 0x, numbers are numbers."""
    return {
        "settlements": [_settle(name, {**BASE, **changes}) for name, changes in _list_changes()],
        "proofs": [_prove(count) for count in (1, 2, 3, 5, 7, 64, 255, 256)],
    }


NOTHING = {"rounds_done": 0, "participation": [0, 0, 0], "weights": [0, 0]}
MANY = {
    "price_wei": 11 * ONE_ETHER + 13,
    "participation": [(7 * i) % 11 for i in range(20)],
    "spent_wei": [10**15 * (i % 4) for i in range(20)],
    "weights": [(5 * i) % 9 for i in range(200)],
}


def _list_changes() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("half of the way", {}),
        ("the target", {"outcome": TARGET, "last_utility": 1_000_000}),
        ("an aborted job", {"outcome": ABORTED, "rounds_done": 7, "last_utility": 300_000}),
        ("nothing decided", {"outcome": ABORTED, **NOTHING}),
        ("data not served", {"outcome": UNSERVED, **NOTHING, "initial_utility": 0}),
        ("noise pays no floor", {"last_utility": 189_999}),
        ("a tenth of the way pays the floor", {"last_utility": 190_000}),
        ("no progress", {"last_utility": 99_999}),
        ("a target below the start", {"target": 90_000, "last_utility": 80_000}),
        ("negative utilities", {"target": -10, "initial_utility": -30, "last_utility": -20}),
        ("nobody was accepted", {"outcome": TARGET, "weights": [0, 0]}),
        ("nobody took part", {"outcome": TARGET, "participation": [0, 0, 0]}),
        ("accesses above the cap", {
            "outcome": TARGET, "price_wei": 10_000, "sellers_per_round": 3, "rounds_done": 4,
            "weights": [4, 3, 1, *[0] * 12],
        }),
        ("batches below the cap", {"spent_wei": [100, 0, 40]}),
        ("batches at the cap", {"spent_wei": [200, 0, 40]}),
        ("batches above the cap", {"spent_wei": [200, 7, 100]}),
        ("batches above the pool", {
            "refund_cap_bps": 10_000, "outcome": TARGET, "spent_wei": [9000, 0, 1],
        }),
        ("batches without a decided round", {
            "outcome": ABORTED, **NOTHING, "spent_wei": [10, 10, 10],
        }),
        ("batches of a job in the token", {"currency": "token"}),
        ("no share for CONE nodes", {"cone_bps": 0, "spent_wei": [10, 0, 0]}),
        ("no share for sellers", {"cone_bps": 10_000}),
        ("a price of one", {"price_wei": 1}),
        ("the highest price", {
            "price_wei": MAX_PRICE, "outcome": TARGET, "rounds_max": 1000, "rounds_done": 1000,
            "participation": [65_535, 1, 65_535], "weights": [1000, 999],
            "spent_wei": [(2**32 - 1) * 10**10] * 3,
        }),
        ("a long way", {"target": 2**62, "initial_utility": -(2**63), "last_utility": 2**61}),
        ("twenty payees", {"participation": [1] * 10, "weights": [3] * 10, "spent_wei": [9] * 10}),
        ("twenty-one payees", {
            "participation": [1] * 10, "weights": [3] * 11, "spent_wei": [9] * 10,
        }),
        ("many payees", MANY),
        ("many payees in the token", {
            **MANY, "currency": "token", "outcome": TARGET, "spent_wei": [0] * 20,
        }),
        ("many payees of data not served", {
            **MANY, "outcome": UNSERVED, "rounds_done": 0, "participation": [0] * 20,
            "weights": [0] * 200,
        }),
        ("all places taken", {
            "price_wei": 3 * ONE_ETHER + 1, "participation": [1 + i % 3 for i in range(64)],
            "spent_wei": [10**14] * 64, "weights": [i % 41 for i in range(256)],
        }),
        *((f"random {i}", _draw(random.Random(i))) for i in range(20)),
    ]  # fmt: skip


def _draw(source: random.Random) -> dict[str, Any]:
    rounds_max = source.randint(1, 60)
    rounds_done = source.randint(0, rounds_max)
    is_ether = source.random() < 0.8
    cones, sellers = source.randint(1, 12), source.randint(3, 16)
    # As the contracts have it: what nobody decided, nobody was accepted in.
    most = rounds_done
    return {
        "currency": "ether" if is_ether else "token",
        "price_wei": source.randint(1, 10 ** source.randint(1, 30)),
        "outcome": source.choice((TARGET, ENDED, ABORTED) if rounds_done else (ABORTED, UNSERVED)),
        "cone_bps": source.randint(0, 10_000),
        "floor_bps": source.randint(0, 10_000),
        "refund_cap_bps": source.randint(0, 10_000),
        "rounds_max": rounds_max,
        "rounds_done": rounds_done,
        "sellers_per_round": source.randint(3, 10),
        "target": source.randint(-(2**24), 2**20),
        "initial_utility": source.randint(-(2**24), 2**20),
        "last_utility": source.randint(-(2**24), 2**20),
        "participation": [source.randint(0, most) for _ in range(cones)],
        "weights": [source.randint(0, most) for _ in range(sellers)],
        "spent_wei": [source.randint(0, 10**6) if is_ether else 0 for _ in range(cones)],
    }


def _settle(name: str, case: dict[str, Any]) -> dict[str, Any]:
    cone_pool, seller_pool = _pools(case)
    share = case["price_wei"] * case["cone_bps"] // 10_000
    cap = floor(Fraction(share * case["refund_cap_bps"] // 10_000 * case["rounds_done"])
                / case["rounds_max"])  # fmt: skip
    cap = min(cap, cone_pool)
    spent = sum(case["spent_wei"])
    scale = min(Fraction(1), Fraction(cap, spent)) if spent else Fraction(1)
    refunds = [floor(one * scale) for one in case["spent_wei"]]
    counts = case["participation"]
    if case["outcome"] == UNSERVED:
        counts = [1] * len(counts)
    cones = _split(cone_pool - sum(refunds), counts, counts)
    accesses = Fraction(3 * case["sellers_per_round"] * case["rounds_done"], len(case["weights"]))
    paid = [min(one, -floor(-accesses)) for one in case["weights"]]
    sellers = _split(seller_pool, paid, case["weights"])
    expected = {
        "cone_pool_wei": cone_pool,
        "seller_pool_wei": seller_pool,
        "batch_refunds_wei": refunds,
        "cone_payouts_wei": cones,
        "seller_payouts_wei": sellers,
        "refund_wei": case["price_wei"] - sum(refunds) - sum(cones) - sum(sellers),
    }
    return {"name": name, **case, "expected": expected}


def _pools(case: dict[str, Any]) -> tuple[int, int]:
    share = case["price_wei"] * case["cone_bps"] // 10_000
    rest = case["price_wei"] - share
    part = Fraction(case["rounds_done"], case["rounds_max"])
    if case["outcome"] == UNSERVED:
        return share // case["rounds_max"], 0
    if case["rounds_done"] == 0:
        return 0, 0
    if case["outcome"] == TARGET:
        return share, rest
    way = case["target"] - case["initial_utility"]
    made = Fraction(case["last_utility"] - case["initial_utility"], way) if way > 0 else Fraction(1)
    bps = min(10_000, max(0, floor(10_000 * made)))
    if bps >= 1000:
        bps = max(bps, floor(case["floor_bps"] * part))
    return floor(share * part), rest * bps // 10_000


def _split(pool: int, paid: Sequence[int], weights: Sequence[int]) -> list[int]:
    total = sum(weights)
    return [floor(Fraction(pool * one, total)) if total else 0 for one in paid]


def _prove(count: int) -> dict[str, Any]:
    leaves = [keccak(b"leaf" + bytes([index])) for index in range(count)]
    index = count - 1 if count % 3 else count // 2
    return {
        "leaves": [_hex(leaf) for leaf in leaves],
        "index": index,
        "proof": [_hex(one) for one in _siblings(leaves, index)],
        "root": _hex(reference.merkle_root(leaves)),
    }


def _siblings(leaves: Sequence[bytes], index: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    neighbours = leaves[index ^ 1 : (index ^ 1) + 1]
    pairs = zip(leaves[::2], leaves[1::2], strict=False)
    parents = [keccak(left + right) for left, right in pairs]
    parents += leaves[len(parents) * 2 :]
    return [*neighbours, *_siblings(parents, index // 2)]


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=1) + "\n")
