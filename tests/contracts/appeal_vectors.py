"""The cases of `tests/vectors/appeals.json`, computed from `reference`.

Run as a module to write the file: `python -m tests.contracts.appeal_vectors`.
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from tests.contracts import reference

PATH = Path(__file__).parents[1] / "vectors" / "appeals.json"
CHAIN = 1337
MARKET = bytes([0x11]) * 20
ONE_ETHER = 10**18


def build() -> dict[str, Any]:
    """All cases. Bytes are hex with 0x, numbers are numbers."""
    return {
        "chain": CHAIN,
        "market": _hex(MARKET),
        "audit_seeds": [
            _build_seed(*case)
            for case in (
                (7, 3, 0),
                (7, 3, 1),
                (7, 4, 0),
                (8, 3, 0),
                (7, 3, (1 << 32) | (2 << 16) | 1),
                (2**255, 0, 0),
            )
        ],
        "audits": [
            {"seed": _hex(seed.to_bytes(32)), "audit_bps": audit_bps, "is_audited": is_audited}
            for seed, audit_bps, is_audited in (
                (0, 1, True),
                (0, 0, False),
                (999, 1000, True),
                (1000, 1000, False),
                (10_000, 1, True),
                (10_001, 1, False),
                (9999, 10_000, True),
                (2**256 - 1, 9935, False),
                (2**256 - 1, 9936, True),
            )
        ],
        "bonds": [
            _build_bond(*case)
            for case in (
                (10 * ONE_ETHER, 3000, 6, 4, 64, 3),
                (10 * ONE_ETHER, 3000, 6, 4, 3, 3),
                (10 * ONE_ETHER, 3000, 6, 4, 64, 0),
                (10 * ONE_ETHER, 3000, 6, 4, 64, 64),
                (ONE_ETHER + 7, 3333, 7, 5, 5, 11),
                (ONE_ETHER, 10_000, 1, 1, 1, 1),
                (ONE_ETHER, 1, 10**15, 64, 64, 5),
                (ONE_ETHER, 0, 6, 4, 64, 2),
            )
        ],
    }


def _build_seed(job: int, round_index: int, mini: int) -> dict[str, Any]:
    randomness = keccak(b"randomness")
    seed = reference.tagged("audit", CHAIN, MARKET, job, round_index, mini, randomness)
    return {
        "job": job,
        "round": round_index,
        "mini": mini,
        "randomness": _hex(randomness),
        "seed": _hex(seed),
    }


def _build_bond(
    price_wei: int,
    cone_bps: int,
    rounds_max: int,
    first_set_size: int,
    cones_max: int,
    missing: int,
) -> dict[str, int]:
    """Pay every missing vote like one of the first execution set in a round without trouble."""
    pool_wei = int(Fraction(price_wei * cone_bps, 10_000))
    vote_wei = int(Fraction(pool_wei, rounds_max * min(first_set_size, cones_max))) or 1
    return {
        "price_wei": price_wei,
        "cone_bps": cone_bps,
        "rounds_max": rounds_max,
        "first_set_size": first_set_size,
        "cones_max": cones_max,
        "missing": missing,
        "bond_wei": missing * vote_wei,
    }


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=1) + "\n")
