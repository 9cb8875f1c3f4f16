"""What a simulated job cost and came to, round by round, read off the chain and the network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from d2m_node.ports import Samples
from d2m_node.simulation.chain.blocks import MinedBlock
from d2m_node.simulation.hostile.kinds import FLAWS
from d2m_node.simulation.nodes.memory import BlobPool
from d2m_node.simulation.nodes.names import role_of
from d2m_node.simulation.report.outcome import HONEST, NodePayout
from protocol.course import list_participation
from protocol.deposits import DepositStatus
from protocol.digest import RoundHeader
from protocol.evaluation import Evaluator
from protocol.events import (
    AttemptOpened,
    DecisionOverturned,
    MiniRoundOpened,
    PoolCalled,
    RoundDecided,
)
from protocol.fixed_point import Int32
from protocol.job import JobState
from protocol.model import ModelDescription, count_parameters
from protocol.shares import list_credits
from protocol.types import Address, Digest, JobId
from protocol.update import TensorKind, decode_tensor

LOST: Final = frozenset({DepositStatus.FORFEITED, DepositStatus.EQUIVOCATED})


class Thermometer:
    """Measures models on the test data, each once."""

    def __init__(
        self, model: ModelDescription, test: Samples, blobs: BlobPool, evaluate: Evaluator
    ) -> None:
        self._model = model
        self._test = test
        self._blobs = blobs
        self._evaluate = evaluate
        self._measured: dict[Digest, float] = {}

    def measure(self, parameters: Int32) -> float:
        """Return the accuracy of parameters, 0 to 1."""
        (logits,) = self._evaluate(self._model, (parameters,), self._test.inputs)
        return float(np.mean(np.argmax(logits, axis=1) == self._test.labels))

    def measure_blob(self, digest: Digest) -> float | None:
        """Return the accuracy of a model that nodes hold; None if none has it (yet)."""
        if digest not in self._measured:
            data = self._blobs.find(digest)
            if data is None:
                return None
            parameters = decode_tensor(data, TensorKind.PARAMETERS, count_parameters(self._model))
            self._measured[digest] = self.measure(parameters)
        return self._measured[digest]

    def measure_rounds(self, job: JobState) -> list[float | None]:
        """Return the accuracy after each decided round of a job."""
        headers = (RoundHeader.decode(one.header) for one in job.decided_rounds)
        return [self.measure_blob(header.model_digest) for header in headers]


@dataclass(slots=True)
class RoundFigures:
    """What one decided round took, with all attempts that led to it."""

    votes: int = 0
    mini_rounds: int = 0
    blocks: int = 0
    gas: int = 0
    network_bytes: int = 0


def measure_rounds(
    blocks: Sequence[MinedBlock], bytes_at: Mapping[int, int], job_id: JobId
) -> list[RoundFigures]:
    """Measure the decided rounds of a job, in order.

    A round begins with its first attempt, or with the decision before. What a decision that was
    taken back took belongs to the one that came after it.
    """
    rounds: list[RoundFigures] = []
    current: RoundFigures | None = None
    bytes_before = 0
    for block in blocks:
        for event in _list_events(block, job_id):
            match event:
                case AttemptOpened():
                    if current is None:
                        current, bytes_before = RoundFigures(), bytes_at.get(block.number, 0)
                    current.mini_rounds += 1
                case MiniRoundOpened() | PoolCalled() if current is not None:
                    current.mini_rounds += 1
                case RoundDecided() if current is not None:
                    current.votes = event.votes
                    current.network_bytes += bytes_at.get(block.number, 0) - bytes_before
                    bytes_before = bytes_at.get(block.number, 0)
                    rounds.append(current)
                    current = RoundFigures()
                case DecisionOverturned() if rounds:
                    current = rounds.pop()
                case _:
                    pass
        if current is not None:
            current.blocks += 1
            current.gas += sum(call.gas_used for call in block.calls)
    return rounds


def _list_events(block: MinedBlock, job_id: JobId) -> Iterator[object]:
    for recorded in block.events:
        if getattr(recorded.event, "job", None) == job_id:
            yield recorded.event


def list_payouts(
    job: JobState, accounts: Mapping[Address, str], kinds: Mapping[str, str]
) -> tuple[NodePayout, ...]:
    """List what each node got and lost, in the order of the nodes."""
    paid: dict[Address, int] = {}
    for payout in job.payouts:
        paid[payout.payee] = paid.get(payout.payee, 0) + payout.amount_wei
    counts = dict(list_credits(job))
    if job.course is not None:
        members = (cone.account for cone in job.cones)
        counts |= dict(zip(members, list_participation(job.course, len(job.cones)), strict=True))
    return tuple(
        NodePayout(
            node=name,
            role=role_of(name),
            group=kinds.get(name, HONEST),
            payout_wei=paid.get(account, 0),
            contribution=counts.get(account, 0),
            slashed_wei=_sum_lost(job, account),
        )
        for account, name in accounts.items()
    )


def _sum_lost(job: JobState, account: Address) -> int:
    lost = sum(one.amount_wei for one in job.slashes if one.account == account)
    deposit = job.deposits.get(account)
    is_lost = deposit is not None and deposit.status in LOST
    return lost + (deposit.amount_wei if deposit is not None and is_lost else 0)


def is_honest(kind: str | None) -> bool:
    """Tell whether a node of a kind means well: flawed data are no attack."""
    return kind is None or kind in FLAWS
