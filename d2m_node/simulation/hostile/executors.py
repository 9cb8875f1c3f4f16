"""CONE nodes that vote for something else than the result, behind the honest executor's door.

Each takes an executor to compute what honest nodes would: a liar that knows the truth lies best.
What it votes for is a header like any other, with bytes behind it that it serves. So where nothing
stops it, the job goes on from its model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np

from d2m_node.roles.executor import Executor, HonestExecutor
from protocol.digest import (
    FinalResult,
    RoundHeader,
    compute_credit_root,
    encode_sampler_state,
)
from protocol.fixed_point import Int32, Int64
from protocol.hashing import hash_domain, keccak, word
from protocol.osmd import State
from protocol.round import BallotResult, FinalWork, RoundWork
from protocol.types import Digest, UtilityQ20
from protocol.update import MAX_PARAMETER, TensorKind, encode_tensor

PERFECT: Final = UtilityQ20(1 << 20)
FORGED_SPREAD_Q20: Final = 1 << 17
"""Half-width of what a forged model's parameters are moved by: an eighth."""


class StaleExecutor:
    """Votes as if nothing had been done since the round before."""

    def __init__(self, truth: Executor | None = None) -> None:
        self._truth: Executor = HonestExecutor() if truth is None else truth

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Leave the model and everybody's credits as they were."""
        honest = self._truth.compute_round(work)
        header = RoundHeader.decode(honest.opening)
        parameters = encode_tensor(TensorKind.PARAMETERS, work.before.parameters)
        sampler = encode_sampler_state(work.before.sampler)
        stale = replace(
            header,
            model_digest=keccak(parameters),
            sampler_digest=keccak(sampler),
            accepted=0,
            utility_after=header.utility_before,
            credit_root=compute_credit_root(work.payees, work.before.credits),
            credit_sum=sum(work.before.credits),
        )
        return _vote_for(honest, stale, (parameters, sampler))

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Claim that nothing was learned."""
        honest = self._truth.compute_final(work)
        result = FinalResult.decode(honest.opening)
        return _claim(honest, replace(result, utility=result.initial_utility))


class ForgingExecutor:
    """Votes for a forged model and credits seller 0 alone.

    All that share a seed vote for one digest. With a seed of its own a node votes for noise.
    """

    def __init__(self, seed: bytes, truth: Executor | None = None) -> None:
        self._seed = seed
        self._truth: Executor = HonestExecutor() if truth is None else truth

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Put another model in the place of the honest one."""
        honest = self._truth.compute_round(work)
        header = RoundHeader.decode(honest.opening)
        parameters = encode_tensor(TensorKind.PARAMETERS, self._forge(work))
        # Credits as they would be if seller 0 alone were accepted, so that all adds up.
        credits = tuple(
            count + (1 if index == 0 else 0) for index, count in enumerate(work.before.credits)
        )
        wrong = replace(
            header,
            accepted=1,
            model_digest=keccak(parameters),
            credit_root=compute_credit_root(work.payees, credits),
            credit_sum=sum(credits),
        )
        return _vote_for(honest, wrong, (parameters, honest.blobs[1]))

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Claim a perfect model, or, with a seed of its own, another one than others claim."""
        honest = self._truth.compute_final(work)
        result = FinalResult.decode(honest.opening)
        doubt = int.from_bytes(hash_domain("claim", self._seed)[:2], "big")
        return _claim(honest, replace(result, utility=UtilityQ20(PERFECT - doubt)))

    def _forge(self, work: RoundWork) -> Int32:
        seed = hash_domain("forgery", self._seed, word(work.job_id), word(work.round_index))
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
        before = work.before.parameters
        moved = generator.integers(
            -FORGED_SPREAD_Q20, FORGED_SPREAD_Q20, len(before), dtype=np.int32
        )
        forged: Int32 = np.clip(before + moved, -MAX_PARAMETER, MAX_PARAMETER)
        return forged


def _vote_for(honest: BallotResult, header: RoundHeader, blobs: tuple[bytes, ...]) -> BallotResult:
    return replace(honest, digest=header.digest, opening=header.encode(), blobs=blobs)


def _claim(honest: BallotResult, result: FinalResult) -> BallotResult:
    return replace(honest, digest=result.digest, opening=result.encode())


@dataclass(frozen=True, slots=True)
class OpenedResult:
    """A vote that others opened in this ballot: all that a copier knows of it."""

    digest: Digest
    voters: int


FindOpened = Callable[[], Sequence[OpenedResult]]
"""Lists what was opened in the ballot that is open now."""


class CopyingExecutor:
    """Computes nothing: votes for what others have opened by then, with a trace made up.

    In the first set of a ballot nothing is opened when it has to commit. It guesses then.
    """

    def __init__(self, seed: bytes, find_opened: FindOpened) -> None:
        self._seed = seed
        self._find_opened = find_opened

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Wait for what others open."""
        guess = hash_domain("guess", self._seed, work.before.previous_digest)
        return cast("BallotResult", CopiedResult(guess, self._find_opened))

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Wait for what others open."""
        guess = hash_domain("guess", self._seed, word(work.round_index))
        return cast("BallotResult", CopiedResult(guess, self._find_opened))


class CopiedResult:
    """A `BallotResult` whose digest is what most have opened when it is asked for."""

    opening = b""
    blobs: tuple[bytes, ...] = ()
    distances = b""
    sampler: State = ()

    def __init__(self, guess: Digest, find_opened: FindOpened) -> None:
        self._guess = guess
        self._find_opened = find_opened

    @property
    def digest(self) -> Digest:
        """The digest with the most votes so far, or a guess."""
        opened = sorted(self._find_opened(), key=lambda one: (-one.voters, one.digest))
        return opened[0].digest if opened else self._guess

    @property
    def logits(self) -> Int64:
        """Nothing was evaluated."""
        return np.zeros((0,), dtype=np.int64)

    def compute_trace(self, seed: Digest) -> Digest:
        """Make a trace up: the real one takes the work that was not done."""
        return hash_domain("made-up", self._guess, seed)
