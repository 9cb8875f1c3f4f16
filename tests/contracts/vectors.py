"""The cases of `tests/vectors/commitments.json`, computed from `reference`.

Run as a module to write the file: `python -m tests.contracts.vectors`.
"""

import json
from pathlib import Path
from typing import Any

from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from tests.contracts import reference

PATH = Path(__file__).parents[1] / "vectors" / "commitments.json"
CHAIN = 1337
MARKET = bytes([0x11]) * 20
NODE_KEY = PrivateKey(keccak(b"d2m-test-node"))
NODE = NODE_KEY.public_key.to_canonical_address()

TERMS = {
    "rounds_max": 6,
    "target": 996147,
    "metric": 0,
    "sellers_per_round": 5,
    "lead": 3,
    "first_set_size": 4,
    "growth_numerator": 3,
    "growth_denominator": 2,
    "sellers_min": 5,
    "sellers_max": 20,
    "cones_min": 5,
    "cones_max": 64,
    "stake_wei": 5 * 10**18,
    "seller_deposit_wei": 10**18,
    "enrolment_blocks": 6,
    "validation_blocks": 7,
    "update_commit_blocks": 4,
    "update_open_blocks": 2,
    "availability_blocks": 3,
    "vote_commit_blocks": 3,
    "vote_open_blocks": 3,
    "decision_blocks": 1,
    "appeal_blocks": 2,
    "header_blocks": 20,
}


def build() -> dict[str, Any]:
    """All cases. Bytes are hex with 0x, numbers are numbers."""
    return {
        "chain": CHAIN,
        "market": _hex(MARKET),
        **_build_request(),
        **_build_vote(),
        **_build_credits(),
        "course": _build_course(),
        "header": _build_header(),
        "final": _build_final(),
        "final_negative": _build_final(initial_utility=-1, utility=-(1 << 62)),
    }


def _build_request() -> dict[str, Any]:
    terms = list(TERMS.values())
    negative = list({**TERMS, "target": -5 * 2**20, "metric": 1}.values())
    body_hash = keccak(b"body")
    request_hash = reference.request_hash(terms, body_hash)
    bid = {
        "auction": 7,
        "bidder": _hex(NODE),
        "amount_wei": 10**18,
        "request_hash": _hex(request_hash),
        "salt": _hex(keccak(b"salt")),
    }
    commitment = reference.tagged(
        "bid", CHAIN, MARKET, 7, NODE, 10**18, request_hash, keccak(b"salt")
    )
    return {
        "terms_hash": {"terms": TERMS, "hash": _hex(reference.terms_hash(terms))},
        "terms_hash_negative_target": {
            "terms": {**TERMS, "target": -5 * 2**20, "metric": 1},
            "hash": _hex(reference.terms_hash(negative)),
        },
        "request_hash": {
            "terms": TERMS,
            "body_hash": _hex(body_hash),
            "hash": _hex(request_hash),
        },
        "bid": {**bid, "commitment": _hex(commitment)},
    }


def _build_vote() -> dict[str, Any]:
    job, round_index, mini = 7, 3, (1 << 32) | (2 << 16) | 1
    digest, trace = keccak(b"digest"), keccak(b"trace")
    element, randomness = keccak(b"element"), b"\x22" * 32
    commitment = reference.tagged(
        "vote", CHAIN, MARKET, job, round_index, mini, NODE, digest, trace, element
    )
    es_seed = reference.tagged("es", CHAIN, MARKET, job, round_index, 0, randomness)
    vote_digest = reference.vote_message(CHAIN, MARKET, job, round_index, mini, commitment)
    receipt_digest = reference.receipt_message(CHAIN, MARKET, job, 1)
    return {
        "vote": {
            "job": job,
            "round": round_index,
            "mini": mini,
            "node": _hex(NODE),
            "digest": _hex(digest),
            "trace": _hex(trace),
            "element": _hex(element),
            "commitment": _hex(commitment),
        },
        "es_seed": {
            "job": job,
            "round": round_index,
            "mini": 0,
            "randomness": _hex(randomness),
            "seed": _hex(es_seed),
        },
        "audit_seed": {
            "job": job,
            "round": round_index,
            "mini": mini,
            "randomness": _hex(randomness),
            "seed": _hex(
                reference.tagged("audit", CHAIN, MARKET, job, round_index, mini, randomness)
            ),
        },
        "ticket": {
            "node": _hex(NODE),
            "element": _hex(element),
            "es_seed": _hex(es_seed),
            "ticket": _hex(reference.tagged("ticket", NODE, element, es_seed)),
        },
        "eip712_vote": {
            "job": job,
            "round": round_index,
            "mini": mini,
            "commitment": _hex(commitment),
            "digest": _hex(vote_digest),
            "private_key": _hex(NODE_KEY.to_bytes()),
            "signature": _hex(reference.sign(NODE_KEY, vote_digest)),
            "signer": _hex(NODE),
        },
        "eip712_receipt": {
            "job": job,
            "part": 1,
            "digest": _hex(receipt_digest),
            "signature": _hex(reference.sign(NODE_KEY, receipt_digest)),
            "signer": _hex(NODE),
        },
    }


def _build_credits() -> dict[str, Any]:
    payees = [bytes([position]) * 20 for position in range(1, 6)]
    credits = list(zip(payees, (3, 0, 2, 7, 1), strict=True))
    return {
        "credit_leaf": {
            "index": 3,
            "payee": _hex(payees[3]),
            "v": 7,
            "leaf": _hex(reference.tagged("credit", 3, payees[3], 7)),
        },
        "credit_roots": [
            {
                "leaves": [{"payee": _hex(payee), "v": v} for payee, v in credits[:count]],
                "root": _hex(reference.credit_root(credits[:count])),
            }
            for count in (0, 1, 2, 3, 5)
        ],
    }


def _build_course() -> dict[str, Any]:
    """A course after some rounds of a pool of 20, with a decision that may be appealed."""
    hashed = ("terms_hash", "parent", "decision", "digest", "model_digest", "credit_root")
    participation = [7 * index % 40 for index in range(20)]
    spending = [index * index for index in range(20)]
    wrong, unopened, voters, due = 0b101, 1 << 19, 0b1111_1000, 1234
    course = {
        **{name: keccak(name.encode()) for name in hashed},
        "utilities": 1 | (2**64 - 1) << 64,
        "progress": 1234 | 20 << 72 | 2 << 136,
        "decided_ballot": 3 << 40 | 20 << 56,
        "resumed_ballot": 0,
        "slashes": wrong | unopened << 64 | voters << 128 | due << 192,
        "participation": reference.packed(participation, 16, 4),
        "refunds": reference.packed(spending, 32, 8),
    }
    return {
        **{name: _hex(course[name]) for name in hashed},
        **{name: value for name, value in course.items() if name not in hashed},
        "hash": _hex(reference.course_hash(tuple(course.values()))),
        "counts": participation,
        "spent_wei": [units * 10**10 for units in spending],
        "planned": {"wrong": wrong, "unopened": unopened, "due": due},
    }


def _build_header() -> dict[str, Any]:
    plain = {
        "job": 7,
        "round_index": 3,
        "sampled": 0b10010,
        "available": 0b00010,
        "accepted": 0b00010,
        "utility_before": -5,
        "utility_after": 996147,
        "utilities": [52428, reference.NO_UTILITY],
        "credit_sum": 13,
    }
    hashed = {
        "model_digest": keccak(b"model"),
        "sampler_digest": keccak(b"sampler"),
        "previous_digest": keccak(b"previous"),
        "credit_root": keccak(b"credits"),
    }
    encoded = reference.round_header(**plain, **hashed, chain=CHAIN, market=MARKET)
    return {
        **plain,
        **{name: _hex(value) for name, value in hashed.items()},
        "bytes": _hex(encoded),
        "digest": _hex(keccak(encoded)),
    }


def _build_final(initial_utility: int = 104857, utility: int = 996147) -> dict[str, Any]:
    plain = {
        "job": 7,
        "round_index": 3,
        "initial_utility": initial_utility,
        "utility": utility,
    }
    encoded = reference.final_vote(
        **plain, model_digest=keccak(b"model"), chain=CHAIN, market=MARKET
    )
    return {
        **plain,
        "model_digest": _hex(keccak(b"model")),
        "bytes": _hex(encoded),
        "digest": _hex(keccak(encoded)),
    }


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=1) + "\n")
