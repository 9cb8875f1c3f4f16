"""A finished simulation as an `Outcome`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from d2m_node.roles.rooms import OVER
from d2m_node.simulation.report.gauge import list_payouts, measure_rounds
from d2m_node.simulation.report.observer import Observer
from d2m_node.simulation.report.outcome import Outcome
from d2m_node.simulation.scenario.plan import Scenario
from d2m_node.simulation.world.simulated_node import SimulatedNode
from protocol.events import DecisionOverturned
from protocol.job import JobPhase, JobState
from protocol.model import initial_parameters
from protocol.request import decode_body
from protocol.settlement import Outcome as Ending
from protocol.types import Digest


@dataclass(slots=True, kw_only=True)
class Run:
    """A simulation that runs."""

    scenario: Scenario
    nodes: Mapping[str, SimulatedNode]
    observer: Observer
    faults: Mapping[str, int]
    """How often each kind has happened so far."""
    began: float = 0.0
    """By the simulated clock; and by the clock on the wall."""
    began_really: float = 0.0

    def begin(self) -> None:
        """Count time from now on."""
        self.began, self.began_really = trio.current_time(), time.monotonic()


def sum_up(run: Run) -> Outcome:
    """Tell what the first job came to."""
    observer, scenario = run.observer, run.scenario
    ledger, state = observer.ledger, observer.ledger.state
    job = state.jobs[observer.job_id]
    initial = _measure_initial(run, job)
    accuracy = tuple(_fill(initial, observer.thermometer.measure_rounds(job)))
    rounds = measure_rounds(ledger.blocks, observer.bytes_at, job.job_id)
    calls = [call for block in ledger.blocks for call in block.calls]
    return Outcome(
        seed=scenario.seed,
        scenario=scenario.table,
        ended=_name_ending(job),
        initial_accuracy=initial,
        accuracy=accuracy,
        final_accuracy=accuracy[-1] if accuracy else initial,
        log_digest=observer.record.digest,
        wrong_decisions=sum(observer.referee.is_wrong(job, one) for one in job.decided),
        overturned_decisions=sum(
            isinstance(one.event, DecisionOverturned)
            for block in ledger.blocks
            for one in block.events
        ),
        votes=tuple(one.votes for one in rounds),
        mini_rounds=tuple(one.mini_rounds for one in rounds),
        blocks=tuple(one.blocks for one in rounds),
        gas=tuple(one.gas for one in rounds),
        network_bytes=tuple(one.network_bytes for one in rounds),
        gas_total=sum(call.gas_used for call in calls),
        network_bytes_total=observer.bytes_at[observer.seen],
        payouts=list_payouts(
            job,
            {node.identity.account: name for name, node in run.nodes.items()},
            {name: node.kind for name, node in run.nodes.items() if node.kind is not None},
        ),
        refused_calls=sum(call.is_reverted for call in calls),
        virtual_seconds=trio.current_time() - run.began,
        seconds=time.monotonic() - run.began_really,
        faults=dict(sorted(run.faults.items())),
    )


def _measure_initial(run: Run, job: JobState) -> float:
    """Measure the model that the request's seed makes."""
    data = run.observer.blobs.find(job.body_hash)
    if job.phase not in OVER or data is None:
        return 0.0
    body = decode_body(data)
    parameters = initial_parameters(body.model, Digest(body.initial_seed))
    return run.observer.thermometer.measure(parameters)


def _fill(before: float, measured: list[float | None]) -> list[float]:
    """Let a model that nobody holds count as the one before it: nobody could go on from it."""
    filled: list[float] = []
    for one in measured:
        before = before if one is None else one
        filled.append(before)
    return filled


def _name_ending(job: JobState) -> str:
    if job.phase is JobPhase.CANCELLED or job.ended is None:
        return JobPhase.CANCELLED.value
    return Ending(job.ended.outcome).name.lower()
