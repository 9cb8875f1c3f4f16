"""The cases of `tests/vectors/enrolment.json`, computed from `reference` and plain lists.

Run as a module to write the file: `python -m tests.contracts.enrolment_vectors`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from tests.contracts import reference

PATH = Path(__file__).parents[1] / "vectors" / "enrolment.json"
CHAIN = 1337
MARKET = bytes([0x11]) * 20
JOB = 7
REACH = 8191
BLOCKS = (101, 100 + REACH, 101 + REACH, 100 + 2 * REACH, 101 + 2 * REACH, 1_000_000)
SIZES = ((5, 3), (7, 5), (21, 20), (64, 63), (65, 64), (256, 1), (256, 64), (256, 255))


def build() -> dict[str, Any]:
    """All cases. Bytes are hex with 0x, numbers are numbers."""
    randomness = keccak(b"randomness")
    seed = enrol_seed(CHAIN, MARKET, JOB, randomness)
    return {
        "chain": CHAIN,
        "market": _hex(MARKET),
        "seed": {"job": JOB, "randomness": _hex(randomness), "seed": _hex(seed)},
        "draws": [
            {
                "label": label,
                "seed": _hex(seed),
                "applied": applied,
                "places": places,
                "indices": draw(seed, label, places, applied),
            }
            for label in ("enrol-sellers", "enrol-cones")
            for applied, places in SIZES
        ],
        "sellers": [_build_sellers(count) for count in (0, 1, 2, 20, 256)],
        "cones": [_build_cones(count) for count in (0, 1, 2, 20)],
        "anchors": [_build_anchor(100, block) for block in BLOCKS],
        "signatures": [_build_signature(number) for number in range(6)],
    }


def enrol_seed(chain: int, market: bytes, job: int, randomness: bytes) -> bytes:
    return reference.tagged("enrol", chain, market, job, randomness)


def draw(seed: bytes, label: str, count: int, size: int) -> list[int]:
    """Shuffle the first places of a whole list; sorted, as members are."""
    words = _list_words(reference.tagged(label, seed))
    positions = list(range(size))
    for i in range(count):
        fair = 2**64 - 2**64 % (size - i)
        word = next(word for word in words if word < fair)
        j = i + word % (size - i)
        positions[i], positions[j] = positions[j], positions[i]
    return sorted(positions[:count])


def _list_words(seed: bytes) -> Iterator[int]:
    for block in range(1000):
        data = keccak(seed + block.to_bytes(8, "big"))
        yield from (int.from_bytes(data[i : i + 8], "big") for i in range(0, 32, 8))


def hash_list(applications: Sequence[bytes]) -> int:
    """240 bits of a rolling hash, 16 bits of the count."""
    value = 0
    for count, application in enumerate(applications, start=1):
        chained = keccak(reference.word(value) + application)
        value = int.from_bytes(chained[:30] + count.to_bytes(2, "big"), "big")
    return value


def _build_anchor(seed_block: int, block: int) -> dict[str, int]:
    """Move on by the whole reach until the hash of the block is served."""
    anchor = seed_block
    while block - anchor > REACH:
        anchor += REACH
    return {"seed_block": seed_block, "block": block, "anchor": anchor}


def _accounts(count: int) -> list[bytes]:
    return [keccak(b"applicant" + bytes([i]))[:20] for i in range(count)]


def _build_sellers(count: int) -> dict[str, Any]:
    accounts = _accounts(count)
    applications = hash_list([reference.word(account) for account in accounts])
    return {"accounts": [_hex(one) for one in accounts], "applications": _hex_word(applications)}


def _build_cones(count: int) -> dict[str, Any]:
    cones = [(account, keccak(b"root" + account)) for account in _accounts(count)]
    applications = hash_list([reference.word(account) + root for account, root in cones])
    return {
        "cones": [[_hex(account), _hex(root)] for account, root in cones],
        "applications": _hex_word(applications),
    }


def _build_signature(number: int) -> dict[str, str]:
    key = PrivateKey(keccak(b"d2m-test-signer"))
    digest = keccak(b"signed" + bytes([number]))
    signature = key.sign_msg_hash(digest)
    return {
        "digest": _hex(digest),
        "signature": _hex(reference.sign(key, digest)),
        "r": _hex(reference.word(signature.r)),
        "vs": _hex(reference.word(signature.s + (signature.v << 255))),
        "signer": _hex(key.public_key.to_canonical_address()),
    }


def _hex_word(value: int) -> str:
    return _hex(reference.word(value))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=1) + "\n")
