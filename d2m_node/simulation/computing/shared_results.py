"""Results of CONE nodes that compute the same thing, computed once.

The key is a digest of every input, so whoever would compute something else does compute it. Nothing
but the key decides, and nothing but results is shared.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Final

import msgspec
import numpy as np

from d2m_node.roles.executor import Executor, HonestExecutor
from protocol.round import BallotResult, FinalWork, RoundWork
from protocol.types import Digest, JobId, RoundIndex

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownResult:
    """What an honest node that holds these inputs votes for."""

    job_id: JobId
    round_index: RoundIndex
    is_final: bool
    digest: Digest


class SharedResults:
    """An executor that many nodes share. It remembers what it computed."""

    def __init__(self, inner: Executor | None = None) -> None:
        self._inner: Executor = HonestExecutor() if inner is None else inner
        self._results: dict[bytes, BallotResult] = {}
        self._newest: RoundIndex = RoundIndex(0)
        self._keys_of: dict[RoundIndex, list[bytes]] = {}
        self.known: set[KnownResult] = set()
        self.computed_count = 0
        self.asked_count = 0

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Compute the result of a round, or return it if its inputs were seen."""
        return self._share(work)

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Compute the result of a final evaluation, or return it if its inputs were seen."""
        return self._share(work)

    def _share(self, work: RoundWork | FinalWork) -> BallotResult:
        key = compute_key(work)
        self.asked_count += 1
        found = self._results.get(key)
        if found is None:
            is_final = isinstance(work, FinalWork)
            found = (
                self._inner.compute_final(work)
                if isinstance(work, FinalWork)
                else self._inner.compute_round(work)
            )
            self.computed_count += 1
            self._keep(work.round_index, key, found)
            self.known.add(
                KnownResult(
                    job_id=work.job_id,
                    round_index=work.round_index,
                    is_final=is_final,
                    digest=found.digest,
                )
            )
        return found

    def _keep(self, round_index: RoundIndex, key: bytes, result: BallotResult) -> None:
        """Keep the results of two rounds: whoever is later computes again, to the same end."""
        self._results[key] = result
        self._keys_of.setdefault(round_index, []).append(key)
        self._newest = max(self._newest, round_index)
        for old in [one for one in self._keys_of if one < self._newest - 1]:
            for outdated in self._keys_of.pop(old):
                self._results.pop(outdated, None)


def compute_key(work: RoundWork | FinalWork) -> bytes:
    """Compute the digest of all fields of a work, its kind included."""
    hasher = hashlib.sha256(type(work).__name__.encode())
    _feed(hasher, work)
    return hasher.digest()


def _feed(hasher: "hashlib._Hash", value: object) -> None:
    """Hash a value with its type and length, so that no two values feed the same bytes."""
    if isinstance(value, np.ndarray):
        hasher.update(f"array {value.dtype.str} {value.shape} ".encode())
        hasher.update(np.ascontiguousarray(value).data)
    elif isinstance(value, Mapping):
        hasher.update(f"mapping {len(value)} ".encode())
        for key in sorted(value):
            _feed(hasher, key)
            _feed(hasher, value[key])
    elif isinstance(value, tuple):
        hasher.update(f"tuple {len(value)} ".encode())
        for one in value:
            _feed(hasher, one)
    elif value is None:
        hasher.update(b"none ")
    elif is_dataclass(value):
        hasher.update(f"record {type(value).__name__} ".encode())
        for field in fields(value):
            _feed(hasher, getattr(value, field.name))
    else:
        _feed_plain(hasher, value)


def _feed_plain(hasher: "hashlib._Hash", value: object) -> None:
    if isinstance(value, bytes):
        plain = value
    elif isinstance(value, Enum | int | str | msgspec.Struct):
        plain = msgspec.msgpack.encode(value)
    else:
        raise TypeError(f"an input of a kind that is not hashed: {type(value).__name__}")
    hasher.update(f"{type(value).__name__} {len(plain)} ".encode())
    hasher.update(plain)
