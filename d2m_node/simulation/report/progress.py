"""How far a simulation has come: told with each block."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the job stands."""

    block: int
    phase: str
    """joining, then the phases of a job: auction, enrolment, validation, training, ..."""
    rounds_done: int
    rounds_max: int
    accuracy: float | None
    """Of the newest model, on the test data."""
