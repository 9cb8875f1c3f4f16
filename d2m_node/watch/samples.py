"""From a reading to samples: a metric, its labels' values, and a number."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from d2m_node.role_control import RoleState
from d2m_node.watch import metrics
from d2m_node.watch.metrics import Metric
from d2m_node.watch.reading import NodeReading, Reading

WEI_PER_ETHER = 10**18


@dataclass(frozen=True, slots=True)
class Sample:
    """One number."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()
    """Values, in the order of the metric's labels."""


def list_samples(reading: Reading, version: str) -> Iterator[Sample]:
    """Yield all samples of a reading, but those of histograms."""
    needed = {check.name: check.is_ok for check in reading.checks if check.is_needed}
    yield from _by_label(metrics.READY, needed)
    node = reading.node
    if node is None:
        return
    labels = (version, str(node.chain_id), "0x" + node.account.hex())
    yield Sample(metrics.INFO, 1, labels)
    yield Sample(metrics.CLOCK_OFF, node.is_clock_off)
    for role, stands in sorted(node.roles.items()):
        for state in RoleState:
            yield Sample(metrics.ROLE_STATE, state is stands, (role, state.value))
    for (role, code), count in sorted(node.refusals.items()):
        yield Sample(metrics.REFUSALS, count, (role, code))
    for list_some in (
        _list_chain,
        _list_money,
        _list_jobs,
        _list_network,
        _list_queues,
        _list_store,
        _list_privacy,
    ):
        yield from list_some(node)
    for names, count in sorted(node.calls.items()):
        yield Sample(metrics.RPC_CALLS, count, names)


def to_ether(amount_wei: int) -> float:
    """Return an amount in ether, rounded to the nearest float."""
    return amount_wei / WEI_PER_ETHER


def _by_label(metric: Metric, values: Mapping[str, float]) -> Iterator[Sample]:
    for label, value in sorted(values.items()):
        yield Sample(metric, value, (label,))


def _list_chain(reading: NodeReading) -> Iterator[Sample]:
    chain = reading.chain
    yield Sample(metrics.HEAD_BLOCK, chain.head_number)
    yield Sample(metrics.FOLLOWED_BLOCK, reading.block_number)
    yield Sample(metrics.LAG_BLOCKS, max(chain.target_number - reading.block_number, 0))
    yield Sample(metrics.SILENT_SECONDS, chain.silent_seconds)
    yield Sample(metrics.REORGANISATIONS, chain.reorganisations)
    yield Sample(metrics.OPEN_TRANSACTIONS, chain.open_transactions)
    yield Sample(metrics.OPEN_BLOCKS, chain.open_blocks)
    for call, totals in chain.calls.items():
        yield Sample(metrics.TRANSACTIONS, totals.confirmed, (call, "confirmed"))
        yield Sample(metrics.TRANSACTIONS, totals.reverted, (call, "reverted"))
        yield Sample(metrics.GAS, totals.gas, (call,))
        yield Sample(metrics.FEES, to_ether(totals.fees_wei), (call,))


def _list_money(reading: NodeReading) -> Iterator[Sample]:
    figures = reading.figures
    if reading.balance_wei is not None:
        yield Sample(metrics.BALANCE, to_ether(reading.balance_wei))
    states = {
        "free": figures.free_wei,
        "locked": figures.locked_wei,
        "unbonding": figures.unbonding_wei,
    }
    yield from _by_label(metrics.STAKE, {name: to_ether(wei) for name, wei in states.items()})
    yield Sample(metrics.DEPOSITS, to_ether(figures.totals.held_wei))
    owed = {name: to_ether(wei) for name, wei in figures.claimable_wei.items()}
    yield from _by_label(metrics.CLAIMABLE, owed)
    yield from _by_label(metrics.CLAIMABLE_TOKEN, figures.claimable_token)
    yield Sample(metrics.EARNED, to_ether(figures.earned_wei))
    slashes = {"wrong_digest": 0, "not_opened": 0} | dict(figures.totals.slashes)
    yield from _by_label(metrics.SLASHES, slashes)
    yield Sample(metrics.SLASHED, to_ether(figures.totals.slashed_wei))
    yield Sample(metrics.FORFEITED, figures.totals.forfeited)


def _list_jobs(reading: NodeReading) -> Iterator[Sample]:
    figures, totals = reading.figures, reading.figures.totals
    yield from _by_label(metrics.JOBS, figures.phases)
    for (role, phase), count in sorted(figures.own_jobs.items()):
        yield Sample(metrics.OWN_JOBS, count, (role, phase))
    for job_id, job in figures.open_jobs.items():
        label = (str(job_id),)
        yield Sample(metrics.JOB_ROUNDS, job.rounds, label)
        if job.utility is not None:
            yield Sample(metrics.JOB_UTILITY, job.utility, label)
        if job.target is not None:
            yield Sample(metrics.JOB_TARGET, job.target, label)
    yield from _by_label(metrics.ROUNDS, {"decided": totals.rounds, "void": totals.void})
    yield Sample(metrics.FINALS, totals.finals)
    yield Sample(metrics.UNDECIDED, totals.undecided)
    votes = dict.fromkeys(("with_decision", "against_decision", "not_opened"), 0)
    yield from _by_label(metrics.VOTES, votes | dict(totals.votes))


def _list_network(reading: NodeReading) -> Iterator[Sample]:
    network = reading.network
    yield Sample(metrics.PEERS_CONNECTED, sum(peer.connected for peer in reading.peers))
    yield Sample(metrics.PEERS_KNOWN, len(reading.peers))
    for direction, counts in (("in", network.received_bytes), ("out", network.sent_bytes)):
        for kind in ("blobs", "gossip", "messages"):
            yield Sample(metrics.TRANSFER, counts.get(kind, 0), (direction, kind))
    verdicts = dict.fromkeys(("accept", "ignore", "reject", "flood", "outside"), 0)
    yield from _by_label(metrics.GOSSIP, verdicts | dict(network.verdicts))
    yield Sample(metrics.PUBLISHED, network.published)
    yield Sample(metrics.DROPPED, network.dropped)
    yield Sample(metrics.FAULTS, network.faults)
    yield Sample(metrics.BANS, network.bans)
    yield Sample(metrics.RELAYED, network.relayed_bytes)
    dials = dict.fromkeys(("reached", "failed"), 0)
    yield from _by_label(metrics.DIALS, dials | dict(network.dials))
    refusals = dict.fromkeys(("handshakes", "strangers", "streams", "slow"), 0)
    yield from _by_label(metrics.TURNED_AWAY, refusals | dict(network.refusals))
    yield Sample(metrics.DENIED, network.denied)
    yield Sample(metrics.RESTARTS, network.restarts)


def _list_queues(reading: NodeReading) -> Iterator[Sample]:
    busy, all_threads = reading.threads
    lengths = dict(reading.network.queue_lengths) | {
        "transactions": reading.chain.open_transactions,
        "threads": busy,
    }
    yield from _by_label(metrics.QUEUE, lengths)
    limits = dict(reading.network.queue_limits) | {"threads": all_threads}
    yield from _by_label(metrics.QUEUE_LIMIT, limits)


def _list_store(reading: NodeReading) -> Iterator[Sample]:
    store = reading.store
    if store is not None:
        yield Sample(metrics.BLOB_BYTES, store.blob_bytes)
        yield Sample(metrics.BLOB_QUOTA, store.quota_bytes)
        yield Sample(metrics.BLOB_KEPT, store.kept_bytes)
        yield Sample(metrics.DISK_FREE, store.free_bytes)


def _list_privacy(reading: NodeReading) -> Iterator[Sample]:
    dearest = sorted(reading.privacy, key=lambda one: -one.epsilon)[: metrics.MAX_DATASETS]
    spent = {account.dataset[:12]: account.epsilon for account in dearest}
    yield from _by_label(metrics.EPSILON, spent)
    if reading.epsilon_budget is not None:
        yield Sample(metrics.EPSILON_BUDGET, reading.epsilon_budget)
