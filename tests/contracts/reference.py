"""The hashed formats once more, in few lines: what contracts and `protocol` are compared with.

Nothing here is imported from `protocol`, so that a shared mistake shows.
"""

import struct
from collections.abc import Sequence
from typing import Any

from eth_abi.abi import encode
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

TERMS_TYPE = "(uint256,int256," + ",".join(["uint256"] * 22) + ")"
COURSE_TYPE = "(" + "bytes32," * 6 + "uint256," * 5 + "uint256[4],uint256[8])"
NO_UTILITY = -(1 << 62)


def word(value: int | bytes) -> bytes:
    """32 bytes, big-endian; addresses are padded on the left."""
    data = value.to_bytes(32, "big") if isinstance(value, int) else value
    return data.rjust(32, b"\x00")


def tagged(name: str, *parts: int | bytes) -> bytes:
    return keccak(b"D2M/v1/" + name.encode() + b"\x00" + b"".join(map(word, parts)))


def terms_hash(terms: Sequence[int]) -> bytes:
    return keccak(encode([TERMS_TYPE], [tuple(terms)]))


def request_hash(terms: Sequence[int], body_hash: bytes) -> bytes:
    return keccak(encode([TERMS_TYPE], [tuple(terms)]) + body_hash)


def course_hash(course: Sequence[Any]) -> bytes:
    return keccak(encode([COURSE_TYPE], [tuple(course)]))


def packed(numbers: Sequence[int], bits: int, words: int) -> list[int]:
    """Numbers of so many bits each, from the lowest bits of the first word on."""
    per_word = 256 // bits
    return [
        sum(
            number << (bits * place)
            for place, number in enumerate(numbers[position * per_word : (position + 1) * per_word])
        )
        for position in range(words)
    ]


def domain_separator(chain: int, market: bytes) -> bytes:
    kind = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    return keccak(keccak(kind) + keccak(b"D2M") + keccak(b"1") + word(chain) + word(market))


def typed_message(chain: int, market: bytes, kind: bytes, *members: int | bytes) -> bytes:
    struct_hash = keccak(keccak(kind) + b"".join(map(word, members)))
    return keccak(b"\x19\x01" + domain_separator(chain, market) + struct_hash)


def vote_message(
    chain: int, market: bytes, job: int, round_index: int, mini: int, commitment: bytes
) -> bytes:
    kind = b"Vote(uint256 job,uint256 round,uint256 mini,bytes32 commitment)"
    return typed_message(chain, market, kind, job, round_index, mini, commitment)


def receipt_message(chain: int, market: bytes, job: int, part: int) -> bytes:
    return typed_message(chain, market, b"ValidationReceipt(uint256 job,uint256 part)", job, part)


def update_message(
    chain: int, market: bytes, job: int, round_index: int, commitment: bytes
) -> bytes:
    kind = b"UpdateCommitment(uint256 job,uint256 round,bytes32 commitment)"
    return typed_message(chain, market, kind, job, round_index, commitment)


def sign(key: PrivateKey, message: bytes) -> bytes:
    signature = key.sign_msg_hash(message)
    return signature.to_bytes()[:64] + bytes([27 + signature.v])


def sign_compact(key: PrivateKey, message: bytes) -> tuple[bytes, bytes]:
    """A signature as two words (EIP-2098): r, and s with the recovery bit on top."""
    signature = key.sign_msg_hash(message)
    return word(signature.r), word(signature.s | (signature.v << 255))


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) <= 1:
        return leaves[0] if leaves else bytes(32)
    parents = [keccak(b"".join(pair)) for pair in zip(leaves[::2], leaves[1::2], strict=False)]
    return merkle_root(parents + list(leaves[len(parents) * 2 :]))


def credit_leaves(credits: Sequence[tuple[bytes, int]]) -> list[bytes]:
    return [tagged("credit", index, payee, v) for index, (payee, v) in enumerate(credits)]


def credit_root(credits: Sequence[tuple[bytes, int]]) -> bytes:
    return merkle_root(credit_leaves(credits))


def round_header(
    *,
    job: int,
    round_index: int,
    model_digest: bytes,
    sampler_digest: bytes,
    sampled: int,
    available: int,
    accepted: int,
    utility_before: int,
    utility_after: int,
    utilities: Sequence[int],
    chain: int,
    market: bytes,
    previous_digest: bytes,
    credit_root: bytes,
    credit_sum: int,
) -> bytes:
    words = (job, round_index, model_digest, sampler_digest, sampled, available, accepted)
    numbers = (utility_before, utility_after, *utilities)
    tail = (chain, market, previous_digest, credit_root, credit_sum)
    return (
        b"D2M/v1/hdr"
        + b"".join(map(word, words))
        + struct.pack(f">{len(numbers)}q", *numbers)
        + b"".join(map(word, tail))
    )


def final_vote(
    *,
    chain: int,
    market: bytes,
    job: int,
    round_index: int,
    model_digest: bytes,
    initial_utility: int,
    utility: int,
) -> bytes:
    words = (chain, market, job, round_index, model_digest)
    numbers = struct.pack(">2q", initial_utility, utility)
    return b"D2M/v1/fin\x00" + b"".join(map(word, words)) + numbers


def ticket_chain(tip: bytes, length: int) -> list[bytes]:
    """h_0 .. h_length: element k hashed k times gives element 0."""
    chain = [tip]
    for _ in range(length):
        chain.append(keccak(chain[-1]))
    return chain[::-1]
