"""Who plays what in a simulation: nodes with their data, trainers and executors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from d2m_node.ports import ChainPort, Samples, TrainerPort
from d2m_node.roles.executor import Executor, HonestExecutor
from d2m_node.simulation.computing.ablations import AblatedExecutor
from d2m_node.simulation.computing.federation import Federation
from d2m_node.simulation.computing.shared_results import SharedResults
from d2m_node.simulation.computing.training_pool import Pool, PooledTrainer
from d2m_node.simulation.hostile.executors import (
    CopyingExecutor,
    ForgingExecutor,
    OpenedResult,
    StaleExecutor,
)
from d2m_node.simulation.hostile.kinds import Hostile, assign_kinds, spoil_samples
from d2m_node.simulation.hostile.rings import Ring, RingTrainer, make_rings
from d2m_node.simulation.nodes.identities import Identity, draw_between, make_identity
from d2m_node.simulation.nodes.names import index_of, role_of
from d2m_node.simulation.scenario.plan import OSMD, YODA, Scenario
from d2m_node.simulation.scenario.request import VALIDATION
from d2m_node.simulation.world.simulated_node import OWN_DATA, Equipment, SharedDatasets
from protocol.evaluation import Evaluator, compute_logits_of_all
from protocol.hashing import hash_domain, word
from protocol.types import Digest

DELAY_LEVELS: Final = 8
"""So many delays there are of nodes that see blocks: each of its own would be dear."""
NO_OSMD: Final = "no-corrected-osmd"
"""What `osmd` in a scenario stands for: uniform sampling, and a plain mean."""


def make_results(scenario: Scenario, evaluate: Evaluator = compute_logits_of_all) -> SharedResults:
    """Make the executor of all honest nodes."""
    rules = [NO_OSMD if one == OSMD else one for one in scenario.ablate if one != YODA]
    inner: Executor = AblatedExecutor(rules[0], evaluate) if rules else HonestExecutor(evaluate)
    return SharedResults(inner)


def cast_nodes(
    scenario: Scenario, federation: Federation, pool: Pool, results: SharedResults
) -> dict[str, Equipment]:
    """Give every node its part."""
    sizes, seed = scenario.sizes, scenario.seed
    kinds = {
        **assign_kinds(sizes.names_of("seller"), scenario.hostile_sellers, seed, "seller"),
        **assign_kinds(sizes.names_of("cone"), scenario.hostile_cones, seed, "cone"),
    }
    rings = make_rings(scenario.hostile_sellers, seed)
    stage = _Stage(scenario, federation, pool, results, kinds, rings)
    return {name: stage.equip(name) for name in sizes.names}


@dataclass(frozen=True, slots=True)
class _Stage:
    """What it takes to equip a node."""

    scenario: Scenario
    federation: Federation
    pool: Pool
    results: SharedResults
    kinds: Mapping[str, Hostile]
    rings: Mapping[str, Ring]

    def equip(self, name: str) -> Equipment:
        scenario = self.scenario
        identity = make_identity(scenario.seed, name)
        hostile = self.kinds.get(name)
        fastest, slowest = scenario.chain.delay_seconds
        level = int(draw_between(scenario.seed, f"chain/{name}", (0, DELAY_LEVELS)))
        return Equipment(
            identity=identity,
            kind=None if hostile is None else hostile.kind,
            datasets=SharedDatasets(self._find_data(name, identity), scenario.request.tags),
            make_trainer=self._make_trainer(name),
            make_executor=self._make_executor(name, identity),
            chain_delay_seconds=fastest + (slowest - fastest) * level / DELAY_LEVELS,
        )

    def _find_data(self, name: str, identity: Identity) -> dict[str, Samples]:
        match role_of(name):
            case "buyer":
                return {f"/{VALIDATION}": self.federation.validation}
            case "seller":
                hostile = self.kinds.get(name)
                samples = self.federation.sellers[index_of(name)]
                return {OWN_DATA: spoil_samples(samples, hostile, identity.secret)}
            case _:
                return {}

    def _make_trainer(self, name: str) -> Callable[[], TrainerPort]:
        honest = PooledTrainer(self.pool, self._draw_training_seconds(name))
        hostile = self.kinds.get(name)
        ring = None if hostile is None else self.rings.get(hostile.kind)
        if ring is None or role_of(name) != "seller":
            return lambda: honest
        return lambda: RingTrainer(honest, ring, index_of(name))

    def _draw_training_seconds(self, name: str) -> float:
        """Some machines are faster than others, by up to a half."""
        most = self.scenario.training_seconds
        return draw_between(self.scenario.seed, f"training/{name}", (most / 2, most))

    def _make_executor(self, name: str, identity: Identity) -> Callable[[ChainPort], Executor]:
        hostile = self.kinds.get(name)
        kind = None if hostile is None or role_of(name) != "cone" else hostile.kind
        truth, seed = self.results, self.scenario.seed
        match kind:
            case "stale":
                return lambda _: StaleExecutor(truth)
            case "random":
                return lambda _: ForgingExecutor(identity.secret, truth)
            case "collude":
                together = hash_domain("collusion", word(seed))
                return lambda _: ForgingExecutor(together, truth)
            case "copy":
                return lambda chain: CopyingExecutor(identity.secret, _make_spy(chain))
            case _:
                return lambda _: truth


def _make_spy(chain: ChainPort) -> Callable[[], list[OpenedResult]]:
    """Return what reads opened votes off the chain, of the newest job's open ballot."""

    def find_opened() -> list[OpenedResult]:
        ballots = [job.ballot for job in chain.state.jobs.values() if job.ballot is not None]
        if not ballots:
            return []
        votes: dict[Digest, int] = {}
        for opening in ballots[-1].openings:
            votes[opening.digest] = votes.get(opening.digest, 0) + 1
        return [OpenedResult(digest, count) for digest, count in votes.items()]

    return find_opened
