"""The cases of `tests/vectors/deposits.json`, computed from `reference`.

Run as a module to write the file: `python -m tests.contracts.deposit_vectors`.
"""

import json
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from tests.contracts import reference

PATH = Path(__file__).parents[1] / "vectors" / "deposits.json"
CHAIN = 1337
MARKET = bytes([0x11]) * 20
JOB, ROUND = 7, 3
SELLER_KEY = PrivateKey(keccak(b"d2m-test-seller"))
SELLER = SELLER_KEY.public_key.to_canonical_address()
STRANGER_KEY = PrivateKey(keccak(b"d2m-test-stranger"))
FIRST, SECOND = keccak(b"first commitment"), keccak(b"second commitment")
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
ONE_ETHER = 10**18

PROVED = "proved"
EQUAL = "equal commitments"
NOT_SIGNED = "not signed by the seller"


def build() -> dict[str, Any]:
    """All cases. Bytes are hex with 0x, numbers are numbers."""
    return {
        "chain": CHAIN,
        "market": _hex(MARKET),
        "deposit_range": [
            _build_range(*case)
            for case in (
                (10 * ONE_ETHER, 5, 3000, 5000),
                (11 * ONE_ETHER, 6, 3000, 5000),
                (10_007, 3, 3000, 5000),
                (10_007, 7, 3333, 1),
                (10_007, 20, 3000, 0),
                (10_007, 4, 3000, 10_000),
                (10_007, 4, 10_000, 5000),
                (1, 20, 3000, 5000),
                (0, 3, 3000, 5000),
            )
        ],
        "forfeit": _build_forfeits(),
        "update_commitment": {
            "job": JOB,
            "round": ROUND,
            "commitment": _hex(FIRST),
            "digest": _hex(_message(FIRST)),
        },
        "equivocation": _build_equivocations(),
    }


def _build_range(price_wei: int, sellers_min: int, cone_bps: int, floor_bps: int) -> dict[str, int]:
    pool_wei = price_wei - price_wei * cone_bps // 10_000
    share = Fraction(pool_wei, sellers_min)
    return {
        "price_wei": price_wei,
        "sellers_min": sellers_min,
        "cone_bps": cone_bps,
        "floor_bps": floor_bps,
        "least_wei": max(1, ceil(share * floor_bps / 10_000)),
        "most_wei": max(1, ceil(share)),
    }


def _build_forfeits() -> list[dict[str, Any]]:
    target, ended, aborted, unserved = 1, 2, 3, 4
    cases = (
        (ended, 3, 100, 100, True, True),
        (ended, 3, 100, 99, True, True),
        (ended, 3, -5, -6, True, True),
        (ended, 3, 100, 101, True, False),
        (ended, 3, -6, -5, True, False),
        (ended, 3, 100, 100, False, False),
        (ended, 3, 100, 50, False, False),
        (ended, 0, 0, 0, True, False),
        (aborted, 1, 100, 100, True, True),
        (aborted, 1, 100, 101, True, False),
        (aborted, 1, 100, 100, False, False),
        (target, 2, 100, 100, True, False),
        (unserved, 0, 0, 0, False, False),
        (0, 2, 100, 50, True, False),
    )
    names = (
        "outcome",
        "rounds_done",
        "initial_utility",
        "last_utility",
        "is_final_evaluated",
        "is_forfeit",
    )
    return [dict(zip(names, case, strict=True)) for case in cases]


def _build_equivocations() -> list[dict[str, Any]]:
    first, second = _sign(_message(FIRST)), _sign(_message(SECOND))
    other_job = reference.update_message(CHAIN, MARKET, JOB + 1, ROUND, SECOND)
    other_round = reference.update_message(CHAIN, MARKET, JOB, ROUND + 1, SECOND)
    other_chain = reference.update_message(CHAIN + 1, MARKET, JOB, ROUND, SECOND)
    other_market = reference.update_message(CHAIN, bytes(20), JOB, ROUND, SECOND)
    forged = reference.sign(STRANGER_KEY, _message(SECOND))
    return [
        _build_case("two commitments", PROVED, FIRST, first, SECOND, second),
        _build_case("the same in the other order", PROVED, SECOND, second, FIRST, first),
        _build_case("one commitment twice", EQUAL, FIRST, first, FIRST, first),
        _build_case("a mirrored signature", EQUAL, FIRST, first, FIRST, mirror(first)),
        _build_case("mirrored second", NOT_SIGNED, FIRST, first, SECOND, mirror(second)),
        _build_case("mirrored first", NOT_SIGNED, FIRST, mirror(first), SECOND, second),
        _build_case("forged second", NOT_SIGNED, FIRST, first, SECOND, forged),
        _build_case("forged first", NOT_SIGNED, SECOND, forged, FIRST, first),
        _build_case("another job", NOT_SIGNED, FIRST, first, SECOND, _sign(other_job)),
        _build_case("another round", NOT_SIGNED, FIRST, first, SECOND, _sign(other_round)),
        _build_case("another chain", NOT_SIGNED, FIRST, first, SECOND, _sign(other_chain)),
        _build_case("another market", NOT_SIGNED, FIRST, first, SECOND, _sign(other_market)),
        _build_case("signatures swapped", NOT_SIGNED, FIRST, second, SECOND, first),
        _build_case("no signature", NOT_SIGNED, FIRST, first, SECOND, b""),
        _build_case("zeros", NOT_SIGNED, FIRST, first, SECOND, bytes(65)),
        _build_case("wrong v", NOT_SIGNED, FIRST, first, SECOND, second[:64] + b"\x01"),
    ]


def _build_case(
    name: str, verdict: str, first: bytes, first_signature: bytes, second: bytes, signature: bytes
) -> dict[str, Any]:
    return {
        "name": name,
        "job": JOB,
        "round": ROUND,
        "seller": _hex(SELLER),
        "first": {"commitment": _hex(first), "signature": _hex(first_signature)},
        "second": {"commitment": _hex(second), "signature": _hex(signature)},
        "verdict": verdict,
    }


def _message(commitment: bytes) -> bytes:
    return reference.update_message(CHAIN, MARKET, JOB, ROUND, commitment)


def _sign(message: bytes) -> bytes:
    return reference.sign(SELLER_KEY, message)


def mirror(signature: bytes) -> bytes:
    """The other valid signature of the same key for the same message."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=1) + "\n")
