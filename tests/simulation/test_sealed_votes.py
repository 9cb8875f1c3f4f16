"""Sealing changes how states travel, and nothing of what is voted on: the same bytes."""

from dataclasses import dataclass
from typing import Any

import pytest

from d2m_node.ports import Ports
from d2m_node.roles import sealed_states
from d2m_node.simulation.report.outcome import Outcome
from d2m_node.simulation.world import market
from d2m_node.simulation.world.market import FIRST_JOB, run_scenario
from d2m_node.simulation.world.summary import Run
from protocol.ballot import DecidedBallot
from protocol.events import PayoutCredited, RoundDecided
from protocol.sortition import BallotKind
from protocol.types import Address, Digest
from tests.support.scenarios import small_scenario, small_table

AWAY = {"kind": "crash", "block": 52, "blocks": 16, "nodes": ["cone-2"]}
"""A CONE node that misses a round: it computes the next ones from states that it fetches."""


@dataclass(frozen=True)
class Told:
    """One market, as far as it votes."""

    decided: tuple[DecidedBallot, ...]
    """All that the chain recorded of each: bitmaps with their signatures, commitments, votes with
    digests and traces, the header, who was right, and the blocks in which it happened."""
    model_digest: Digest
    payouts: tuple[PayoutCredited, ...]
    body_hash: Digest
    takers: set[str]
    """Nodes that took a state sealed, and opened it."""

    @property
    def rounds(self) -> list[RoundDecided]:
        decisions = (one.decision for one in self.decided)
        return [one for one in decisions if isinstance(one, RoundDecided)]


def tell(access: str, **tables: Any) -> Told:
    """Run a market of one seed whose request says who may have the model."""
    table = small_table()["request"]
    request = {
        **table,
        "delivery": {"model": access},
        "step": {"lengths": [0.5, 1.0], "momentum": 0.8},
        "terms": {**table["terms"], "rounds_max": 3},
    }
    runs: list[Run] = []
    takers: set[Address] = set()
    with pytest.MonkeyPatch.context() as patch:
        sum_up, fetch = market.sum_up, sealed_states._fetch_and_open

        def look(run: Run) -> Outcome:
            runs.append(run)
            return sum_up(run)

        async def take(ports: Ports, *arguments: Any) -> bytes:
            data = await fetch(ports, *arguments)
            takers.add(ports.signer.address)
            return data

        patch.setattr(market, "sum_up", look)
        patch.setattr(sealed_states, "_fetch_and_open", take)
        run_scenario(small_scenario(request=request, **tables))
    (run,) = runs
    job = run.observer.ledger.state.jobs[FIRST_JOB]
    assert job.ended is not None
    return Told(
        decided=job.decided,
        model_digest=job.ended.model_digest,
        payouts=job.payouts,
        body_hash=job.body_hash,
        takers={name for name, node in run.nodes.items() if node.identity.account in takers},
    )


def test_with_and_without_sealing_the_same_bytes_are_voted_on_and_decided() -> None:
    """No field of a header differs: none speaks of the request, which alone is another one."""
    plain = tell("participants", faults=[AWAY])
    sealed = tell("buyer-only", faults=[AWAY])
    sellers = {f"seller-{number}" for number in range(1, 5)}
    assert plain.takers == set()
    assert sealed.takers == {"buyer-1", "cone-2", *sellers}
    assert plain.body_hash != sealed.body_hash
    kinds = [one.ballot.kind for one in plain.decided]
    assert kinds == [BallotKind.ROUND] * 3 + [BallotKind.FINAL]
    assert all(one.ballot.batches and one.ballot.openings for one in plain.decided)
    assert [one.header for one in sealed.rounds] == [one.header for one in plain.rounds]
    assert sealed.decided == plain.decided
    assert sealed.model_digest == plain.model_digest
    assert sealed.payouts == plain.payouts
