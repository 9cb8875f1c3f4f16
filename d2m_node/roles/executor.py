"""Who computes what a CONE node votes for.

The honest executor computes it by the rules. Hostile ones live in the simulation and come in
through the same door.
"""

from typing import Protocol

from protocol.evaluation import Evaluator, compute_logits_of_all
from protocol.round import BallotResult, FinalWork, RoundWork, compute_final, compute_round


class Executor(Protocol):
    """Pure work, run in a worker thread."""

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Compute the result of a round."""

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Compute the result of a final evaluation."""


class HonestExecutor:
    """Computes by the rules, on whatever device evaluates: the bytes are the same."""

    def __init__(self, evaluate: Evaluator = compute_logits_of_all) -> None:
        self._evaluate = evaluate

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Compute the result of a round."""
        return compute_round(work, self._evaluate)

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Compute the result of a final evaluation."""
        return compute_final(work, self._evaluate)
