"""What a dataset's privacy has cost so far, and what it may still be spent on.

An account is kept per dataset, known by what it holds and not by where it lies: over all jobs,
markets and accounts of this node. Every training is written down before it starts, so a crash can
only count one that was never told. A job is given its whole worst case, a training in each of its
rounds, before the node applies for it; what it does not use comes back when the job is over.

Epsilons of one dataset add up as Opacus' Renyi accountant says, for the configured delta.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Final, TypeVar

import msgspec
import trio

from d2m_node.errors import PrivacyBudgetSpent, StoreCorrupted, UserError
from d2m_node.ports import JournalPort, PrivateTraining, Samples, TrainerPort
from d2m_node.role_settings import PrivacySettings
from protocol.hashing import Domain
from protocol.request import TrainingSpec
from protocol.samples import encode_samples
from protocol.types import Address, JobId

T = TypeVar("T")

PROMISES: Final = "privacy-job"
TRAININGS: Final = "privacy-training"

_SLACK: Final = 1e-9
"""Rounding in sums of epsilons must not refuse a job that fits exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPolicy:
    """How private a seller's trainings are, and how much may be told of one dataset in all."""

    epsilon_budget: float
    delta: float
    max_grad_norm: float
    noise_multiplier: float | None = None
    epsilon_per_job: float | None = None
    """If set, the noise follows from it, for all rounds that a job may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyAccount:
    """What has been spent on one dataset."""

    dataset: str
    """Hash of its samples, in any order."""
    epsilon: float
    """Of all trainings together."""
    delta: float
    """For which the epsilon was computed."""
    trainings: int
    jobs: int


class _Promise(msgspec.Struct, frozen=True, array_like=True):
    """What a job may use."""

    private: PrivateTraining
    rounds: int
    account: bytes


class _Training(msgspec.Struct, frozen=True, array_like=True):
    """One training that may have been told."""

    private: PrivateTraining
    epsilon: float
    """Of the dataset, this training included."""
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Whose trainings a ledger writes down: the dataset's, in one market, by one account."""

    dataset: str
    domain: Domain
    account: Address

    def key(self, job_id: JobId) -> str:
        """Return the key of a job."""
        return f"{self.dataset}/{self.domain.chain_id}-{self.domain.market.hex()}/{job_id}"


class PrivacyLedger:
    """Keeps one dataset's account, and refuses what would overdraw it.

    Methods raise TransientError if the training process, which does the sums, crashes.
    """

    def __init__(
        self,
        policy: PrivacyPolicy,
        books: Books,
        journal: JournalPort,
        trainer: TrainerPort,
        *,
        is_over: Callable[[JobId], bool],
    ) -> None:
        self._policy = policy
        self._books = books
        self._journal = journal
        self._trainer = trainer
        self._is_over = is_over
        self._turn = trio.Lock()

    async def promise(
        self, job_id: JobId, spec: TrainingSpec, *, sample_count: int, rounds: int
    ) -> PrivateTraining:
        """Set aside what a job may cost at most; return how each of its rounds is trained.

        The same job is asked once: its promise stays, whatever the settings say later.

        Raises
        ------
        PrivacyBudgetSpent
            If the worst case does not fit into what is left.
        InvalidParams
            If no noise is enough for the epsilon of a job.
        """
        async with self._turn:
            key = self._books.key(job_id)
            stored = await self._journal.recall(PROMISES, key)
            if stored is None:
                private = await self._plan(spec, sample_count, rounds)
                history = await self._gather(besides=job_id)
                await self._check(history + Counter({private: rounds}), f"{rounds} rounds")
                fresh = _Promise(private, rounds, self._books.account)
                stored = await self._journal.remember(PROMISES, key, msgspec.msgpack.encode(fresh))
            return _decode(stored, _Promise).private

    async def begin(self, job_id: JobId, round_index: int) -> PrivateTraining:
        """Write one training down, durably; it may start when this returns.

        A round that is trained again after a crash counts again: what came of the first training
        is not known.

        Raises PrivacyBudgetSpent if it does not fit into what is left.
        """
        async with self._turn:
            key = self._books.key(job_id)
            stored = await self._journal.recall(PROMISES, key)
            assert stored is not None, "a job is promised before it begins"
            private = _decode(stored, _Promise).private
            history = await self._gather(besides=job_id)
            spent = await self._read_trainings()
            own = Counter({private: sum(1 for one in spent if one.startswith(f"{key}/"))})
            await self._check(history + own + Counter({private: 1}), "another round")
            told = Counter(one.private for one in spent.values()) + Counter({private: 1})
            delta = self._policy.delta
            epsilon = await self._trainer.compute_epsilon(list(told.items()), delta)
            prefix = f"{key}/{round_index:06}/"
            attempt = sum(1 for one in spent if one.startswith(prefix))
            entry = msgspec.msgpack.encode(_Training(private, epsilon, delta))
            await self._journal.remember(TRAININGS, f"{prefix}{attempt:06}", entry)
            return private

    async def _plan(self, spec: TrainingSpec, count: int, rounds: int) -> PrivateTraining:
        rate, steps = plan_steps(spec, count)
        policy = self._policy
        noise = policy.noise_multiplier
        if noise is None:
            assert policy.epsilon_per_job is not None, "the settings give one of the two"
            noise = await self._trainer.choose_noise(
                epsilon=policy.epsilon_per_job,
                delta=policy.delta,
                sample_rate=rate,
                steps=steps * rounds,
            )
        return PrivateTraining(
            noise_multiplier=noise,
            max_grad_norm=policy.max_grad_norm,
            sample_rate=rate,
            steps=steps,
        )

    async def _gather(self, *, besides: JobId) -> Counter[PrivateTraining]:
        """Count what other jobs have used, and what those that run may still use."""
        own = self._books.key(besides) + "/"
        spent = await self._read_trainings()
        history = Counter(one.private for key, one in spent.items() if not key.startswith(own))
        here = self._books.key(JobId(0)).removesuffix("0")
        for key, stored in (await self._journal.recall_all(PROMISES, here)).items():
            job_id = JobId(int(key.removeprefix(here)))
            if job_id != besides and not self._is_over(job_id):
                promise = _decode(stored, _Promise)
                rounds = {one.split("/")[3] for one in spent if one.startswith(f"{key}/")}
                history[promise.private] += max(0, promise.rounds - len(rounds))
        return history

    async def _read_trainings(self) -> Mapping[str, _Training]:
        stored = await self._journal.recall_all(TRAININGS, f"{self._books.dataset}/")
        return {key: _decode(value, _Training) for key, value in stored.items()}

    async def _check(self, history: Counter[PrivateTraining], what: str) -> None:
        policy = self._policy
        epsilon = await self._trainer.compute_epsilon(list(history.items()), policy.delta)
        if epsilon > policy.epsilon_budget + _SLACK:
            raise PrivacyBudgetSpent(
                f"{what} would bring the dataset's epsilon to {epsilon:.3g}, and "
                f"roles.seller.privacy.epsilon_budget is {policy.epsilon_budget:g}"
            )


def make_policy(settings: PrivacySettings) -> PrivacyPolicy | None:
    """Return what the settings want; None if trainings need not be private."""
    if settings.epsilon_budget is None:
        return None
    return PrivacyPolicy(
        epsilon_budget=settings.epsilon_budget,
        delta=settings.delta,
        max_grad_norm=settings.max_grad_norm,
        noise_multiplier=settings.noise_multiplier,
        epsilon_per_job=settings.epsilon_per_job,
    )


def check_delta(policy: PrivacyPolicy, sample_count: int) -> None:
    """Raise UserError if the delta says nothing for so few samples."""
    if policy.delta * sample_count >= 1:
        raise UserError(
            f"roles.seller.privacy.delta: {policy.delta:g} must be below 1/{sample_count}, one "
            "over the number of samples"
        )


async def read_accounts(journal: JournalPort) -> Sequence[PrivacyAccount]:
    """Return what has been spent on each dataset, ever, by this node."""
    by_dataset: dict[str, dict[str, _Training]] = {}
    for key, stored in (await journal.recall_all(TRAININGS)).items():
        by_dataset.setdefault(key.split("/")[0], {})[key] = _decode(stored, _Training)
    accounts = []
    for dataset, trainings in by_dataset.items():
        latest = max(trainings.values(), key=lambda one: one.epsilon)
        accounts.append(
            PrivacyAccount(
                dataset=dataset,
                epsilon=latest.epsilon,
                delta=latest.delta,
                trainings=len(trainings),
                jobs=len({tuple(key.split("/")[:3]) for key in trainings}),
            )
        )
    return accounts


def plan_steps(spec: TrainingSpec, sample_count: int) -> tuple[float, int]:
    """Return the chance of each sample in each step, and the steps of one training."""
    rate = min(1.0, spec.batch_size / sample_count)
    return rate, spec.epochs * ceil(sample_count / spec.batch_size)


def compute_dataset_id(samples: Samples) -> str:
    """Hash labelled samples, whatever their order, file or name."""
    rows = encode_samples(samples.inputs)
    hashes = sorted(
        sha256(label.tobytes() + row.tobytes()).digest()
        for row, label in zip(rows, samples.labels.astype(">i8"), strict=True)
    )
    return sha256(b"D2M/v1/dataset" + b"".join(hashes)).hexdigest()


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise StoreCorrupted(f"privacy ledger: {exc}; restore it from a backup") from exc
