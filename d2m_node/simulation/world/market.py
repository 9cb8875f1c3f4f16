"""One market from its first bid to its last payout, in one process and from one seed.

The roles are the daemon's own. What is around them is simulated: the chain is the real contracts in
an EVM of this process, the network hands messages over, time is trio's virtual clock.

run_scenario
└── open_ledger                     blocks come
    └── open_fabric                 messages arrive
        ├── each node               one life after another
        ├── director                lets faults happen
        └── observer                looks at each block, until all is paid
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Final

import trio

from d2m_node.errors import NodeError, UserError
from d2m_node.request_file import RequestFile
from d2m_node.roles.rooms import OVER
from d2m_node.simulation.chain.ledger import LedgerOptions, open_ledger
from d2m_node.simulation.checks.invariants import Referee, Rulebook, find_unpaid, find_violation
from d2m_node.simulation.computing.federation import Federation, share_out
from d2m_node.simulation.computing.training_pool import Pool, open_pool
from d2m_node.simulation.network.fabric import open_fabric
from d2m_node.simulation.network.links import FabricOptions
from d2m_node.simulation.nodes.memory import BlobPool
from d2m_node.simulation.report.gauge import Thermometer, is_honest
from d2m_node.simulation.report.observer import Observer
from d2m_node.simulation.report.outcome import Outcome
from d2m_node.simulation.report.progress import Progress
from d2m_node.simulation.report.record import Record
from d2m_node.simulation.scenario.plan import YODA, Scenario
from d2m_node.simulation.world.casting import cast_nodes, make_results
from d2m_node.simulation.world.director import Director
from d2m_node.simulation.world.simulated_node import Equipment, SimulatedNode, Surroundings
from d2m_node.simulation.world.summary import Run, sum_up
from d2m_node.simulation.world.virtual_time import run_in_virtual_time
from protocol.deposits import compute_deposit_range
from protocol.errors import RuleViolation
from protocol.evaluation import Evaluator, compute_logits_of_all
from protocol.market import MarketState
from protocol.profiles import BYZANTINE_SHARE, count_byzantine
from protocol.samples import validate_labels, validate_samples
from protocol.types import JobId, Wei

BALANCE_WEI: Final = Wei(1000 * 10**18)
BID_STEP_WEI: Final = 10**18
"""Each further buyer bids this much more."""
JOIN_BLOCKS: Final = 40
"""Within which every node has joined the market."""
PAYDAY_BLOCKS: Final = 60
"""After a job's end, within which everybody has pulled what it is owed."""
FIRST_JOB: Final = JobId(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a scenario is run, apart from what it says. Nothing of it changes what happens."""

    processes: int = 0
    """Training processes; none: training in this process."""
    evaluate: Evaluator = compute_logits_of_all
    log: IO[bytes] | None = None
    """Takes the log, one line of JSON per entry."""


DEFAULT: Final = RunOptions()


def _ignore(_: Progress) -> None:
    pass


def run_scenario(
    scenario: Scenario,
    *,
    data: Path | None = None,
    on_progress: Callable[[Progress], None] = _ignore,
    options: RunOptions = DEFAULT,
) -> Outcome:
    """Run a scenario to its end, and tell what it came to.

    Parameters
    ----------
    data :
        The folder with benchmark data; the digits need none.
    on_progress :
        Called with each block.

    Raises
    ------
    UserError
        If the data are not there, or do not fit the scenario.
    InvariantViolated
        If something happened that must not.
    """
    federation = share_out(scenario.data, scenario.sizes.sellers, scenario.seed, data)
    try:
        validate_samples(scenario.request.model, federation.validation.inputs)
        validate_labels(scenario.request.model, federation.validation.labels)
    except RuleViolation as exc:
        dataset = scenario.data.dataset
        raise UserError(f"request.model: does not fit {dataset}: {exc}") from exc
    with open_pool(options.processes) as pool:
        run = partial(_run_market, scenario, federation, pool, on_progress, options)
        try:
            return run_in_virtual_time(run, seed=scenario.seed)
        except BaseExceptionGroup as failures:
            violation = find_violation(failures)
            if violation is not None:  # what else failed did so because the run was over
                raise violation from None
            raise


async def _run_market(
    scenario: Scenario,
    federation: Federation,
    pool: Pool,
    on_progress: Callable[[Progress], None],
    options: RunOptions,
) -> Outcome:
    results = make_results(scenario, options.evaluate)
    equipment = cast_nodes(scenario, federation, pool, results)
    names = {kit.identity.account: name for name, kit in equipment.items()}
    record, blobs = Record(names, options.log), BlobPool()
    balances = dict.fromkeys(names, BALANCE_WEI)
    async with (
        open_ledger(scenario.params, balances, _ledger_options(scenario)) as ledger,
        open_fabric(_fabric_options(scenario)) as fabric,
        trio.open_nursery() as nursery,
    ):
        around = Surroundings(
            ledger=ledger,
            fabric=fabric,
            record=record,
            blobs=blobs,
            confirmations=scenario.chain.confirmations,
            has_appeals=YODA not in scenario.ablate,
        )
        nodes = {name: SimulatedNode(around, kit) for name, kit in equipment.items()}
        director = Director(scenario, nodes, ledger, fabric, record)
        model = scenario.request.model
        observer = Observer(
            ledger=ledger,
            fabric=fabric,
            record=record,
            referee=Referee(ledger, results, _make_rulebook(scenario, equipment, director)),
            thermometer=Thermometer(model, federation.test, blobs, options.evaluate),
            blobs=blobs,
            on_progress=on_progress,
            job_id=FIRST_JOB,
        )
        for name, node in nodes.items():
            nursery.start_soon(node.run, name=name)
        run = Run(scenario=scenario, nodes=nodes, observer=observer, faults=director.happened)
        outcome = await _see_through(run, director)
        nursery.cancel_scope.cancel()
    return outcome


def _ledger_options(scenario: Scenario) -> LedgerOptions:
    return LedgerOptions(seed=scenario.seed, block_seconds=scenario.chain.block_seconds)


def _fabric_options(scenario: Scenario) -> FabricOptions:
    network = scenario.network
    return FabricOptions(
        seed=scenario.seed,
        delay_seconds=network.delay_seconds,
        jitter_seconds=network.jitter_seconds,
        bytes_per_second=network.bytes_per_second,
        loss=network.loss,
        duplicate=network.duplicate,
    )


def _make_rulebook(
    scenario: Scenario, equipment: Mapping[str, Equipment], director: Director
) -> Rulebook:
    hostile_cones = sum(one.count for one in scenario.hostile_cones)
    planned = count_byzantine(scenario.sizes.cones, BYZANTINE_SHARE)
    return Rulebook(
        seed=scenario.seed,
        names={kit.identity.account: name for name, kit in equipment.items()},
        honest=frozenset(kit.identity.account for kit in equipment.values() if is_honest(kit.kind)),
        is_wrong_tolerated=hostile_cones > planned or YODA in scenario.ablate,
        is_excused=director.is_excused,
        has_turned=director.has_turned,
    )


async def _see_through(run: Run, director: Director) -> Outcome:
    """Let buyers bid once all have joined, and watch until everybody is paid."""
    scenario, observer, sizes = run.scenario, run.observer, run.scenario.sizes

    def find_all(state: MarketState) -> bool | None:
        is_complete = (
            len(state.peers) == len(sizes.names)
            and len(state.datasets) >= sizes.sellers
            and len(state.stakes) >= sizes.cones
        )
        return True if is_complete else None

    if await observer.follow(find_all, blocks_max=JOIN_BLOCKS) is None:
        raise NodeError(f"seed {scenario.seed}: not all nodes joined in {JOIN_BLOCKS} blocks")
    # Stake counts from the block before an auction; and nodes see blocks late.
    ready = observer.seen + 1 + scenario.chain.confirmations
    await observer.follow(lambda state: True if state.block_number >= ready else None)
    run.begin()
    first, *others = sizes.names_of("buyer")
    run.nodes[first].ask(_make_request(scenario, 0))
    await observer.follow(lambda state: True if FIRST_JOB in state.jobs else None)
    for number, name in enumerate(others, start=1):
        run.nodes[name].ask(_make_request(scenario, number))
    async with trio.open_nursery() as faults:
        faults.start_soon(director.run, observer.seen)
        await observer.follow(_find_end)
        faults.cancel_scope.cancel()
    honest = [node.identity.account for node in run.nodes.values() if is_honest(node.kind)]
    await observer.follow(
        lambda state: None if find_unpaid(state, honest) else True, blocks_max=PAYDAY_BLOCKS
    )
    observer.referee.check_payments()
    return sum_up(run)


def _find_end(state: MarketState) -> bool | None:
    return True if all(job.phase in OVER for job in state.jobs.values()) else None


def _make_request(scenario: Scenario, number: int) -> RequestFile:
    """Return what a buyer asks for: all the same, and each one bids more than the one before."""
    request = scenario.request
    bid_wei = Wei(request.bid_wei + number * BID_STEP_WEI)
    least_wei, _ = compute_deposit_range(bid_wei, request.terms.sellers_min, scenario.params)
    deposit_wei = max(request.terms.seller_deposit_wei, least_wei)
    terms = replace(request.terms, seller_deposit_wei=deposit_wei)
    return replace(request, bid_wei=bid_wei, terms=terms)
