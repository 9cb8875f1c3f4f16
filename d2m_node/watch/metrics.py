"""Every metric that a node exports, besides those of the Python process.

Labels have few values: what peers or strangers choose is never one. A job is a label only while it
is open and this account takes part in it, and of those at most `MAX_JOBS` newest.

Money is in ether. A sample is a 64-bit float, so it holds about 16 digits: above 0.009 ether the
last wei are rounded, by less than one part in 10^15. Exact amounts are in `d2m-node status` and
`earnings`. Amounts of a token are in its smallest unit: nobody here knows how many digits it has.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_JOBS: Final = 100
MAX_DATASETS: Final = 20


class Kind(Enum):
    """How Prometheus reads a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    """Since the process started, unless it is told by the chain; never goes down but in a
    reorganisation."""
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One family of samples."""

    name: str
    """As it is queried; of a counter with its ``_total``."""
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=f"d2m_{name}", kind=Kind.GAUGE, text=text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=f"d2m_{name}_total", kind=Kind.COUNTER, text=text, labels=labels)


def _histogram(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=f"d2m_{name}", kind=Kind.HISTOGRAM, text=text, labels=labels)


INFO: Final = _gauge(
    "node_info", "1; the labels say what runs where.", "version", "chain_id", "account"
)
READY: Final = _gauge("ready", "1 if a check of /readyz passes.", "check")
CLOCK_OFF: Final = _gauge(
    "clock_off", "1 if this machine's clock is off, held against the time of the chain's blocks."
)
ROLE_STATE: Final = _gauge(
    "role_state",
    "1 at where a role stands: on, draining, closing, failed, off.",
    "role",
    "state",
)
REFUSALS: Final = _gauge(
    "refusals",
    "Jobs that a role refused or could not go on with, of the last 1000; code: why.",
    "role",
    "code",
)

HEAD_BLOCK: Final = _gauge("chain_head_block", "Newest block that an endpoint named.")
FOLLOWED_BLOCK: Final = _gauge("chain_followed_block", "Newest block that has been followed.")
LAG_BLOCKS: Final = _gauge(
    "chain_lag_blocks", "Blocks that count, by chain.confirmations, and are not followed yet."
)
SILENT_SECONDS: Final = _gauge("chain_silent_seconds", "Since an endpoint last answered.")
REORGANISATIONS: Final = _counter("chain_reorganisations", "Times that the chain turned.")
TRANSACTIONS: Final = _counter(
    "transactions",
    "Own transactions that were mined; result: confirmed, reverted.",
    "call",
    "result",
)
GAS: Final = _counter("gas_used", "Gas of own transactions.", "call")
FEES: Final = _counter("fees_paid_ether", "Fees of own transactions.", "call")
OPEN_TRANSACTIONS: Final = _gauge("transactions_open", "Own transactions not mined yet.")
OPEN_BLOCKS: Final = _gauge(
    "transactions_oldest_open_blocks", "Blocks since the oldest of those was first sent."
)

BALANCE: Final = _gauge("balance_ether", "What the account holds; it pays the gas.")
STAKE: Final = _gauge("stake_ether", "Stake; state: free, locked, unbonding.", "state")
DEPOSITS: Final = _gauge("deposits_ether", "Seller deposits that jobs in ether hold.")
CLAIMABLE: Final = _gauge(
    "claimable_ether", "What the contracts owe; source: payouts, bonds, stake.", "source"
)
CLAIMABLE_TOKEN: Final = _gauge("claimable_token_units", "The same in the token.", "source")
EARNED: Final = _counter("earned_ether", "Payouts in ether that settlements credited, ever.")
SLASHES: Final = _counter("slashes", "Times that stake was slashed, ever.", "reason")
SLASHED: Final = _counter("slashed_ether", "Stake that was slashed, ever.")
FORFEITED: Final = _counter("deposits_forfeited", "Seller deposits that were lost, ever.")

JOBS: Final = _gauge("jobs", "Jobs of the market, ever.", "phase")
OWN_JOBS: Final = _gauge("own_jobs", "Jobs that this account takes part in.", "role", "phase")
JOB_UTILITY: Final = _gauge(
    "job_utility", "Last decided utility of an open job; for accuracy 1 is all right.", "job"
)
JOB_TARGET: Final = _gauge("job_target", "Utility that an open job is to reach.", "job")
JOB_ROUNDS: Final = _gauge("job_rounds", "Decided rounds of an open job.", "job")
ROUNDS: Final = _counter("rounds", "Rounds of the own jobs, ever; result: decided, void.", "result")
FINALS: Final = _counter("final_evaluations", "Decided final evaluations of the own jobs, ever.")
UNDECIDED: Final = _counter("attempts_undecided", "Attempts of the own jobs that failed, ever.")
VOTES: Final = _counter(
    "votes",
    "Own votes in decided ballots, ever; their sum is the votes cast. Result: with_decision,"
    " against_decision, not_opened.",
    "result",
)

PEERS_CONNECTED: Final = _gauge("peers_connected", "Peers with an open connection.")
PEERS_KNOWN: Final = _gauge("peers_known", "Peers in the address book, or connected.")
TRANSFER: Final = _counter(
    "transfer_bytes",
    "Bytes of blobs, pulled messages, and bodies of gossip; direction: in, out.",
    "direction",
    "kind",
)
GOSSIP: Final = _counter(
    "gossip_messages",
    "Gossip of others; verdict: accept, ignore, reject, flood if it is too much, or outside if its "
    "bringer has no place on the topic.",
    "verdict",
)
PUBLISHED: Final = _counter("gossip_published", "Own messages that were gossiped.")
DROPPED: Final = _counter("gossip_dropped", "Messages that gave way to newer ones in a full queue.")
FAULTS: Final = _counter("peer_faults", "Faults that peers were blamed for.")
DIALS: Final = _counter("peer_dials", "Peers that were dialled; result: reached, failed.", "result")
RELAYED: Final = _counter("relayed_bytes", "Bytes carried between others, as a relay.")
BANS: Final = _counter("peer_bans", "Times that a peer was banned.")
TURNED_AWAY: Final = _counter(
    "peer_refusals",
    "Connections, streams and answers that were refused or cut off at a limit: handshakes,"
    " strangers, streams, slow.",
    "limit",
)
DENIED: Final = _counter(
    "blobs_denied", "Requests for blobs that got no for an answer: not here, or not for the peer."
)
RESTARTS: Final = _counter("network_restarts", "Times that the network stack was started anew.")

QUEUE: Final = _gauge(
    "queue_length",
    "What waits; queue: publish, deliver (of the fullest topic), transactions, threads.",
    "queue",
)
QUEUE_LIMIT: Final = _gauge("queue_limit", "Where a queue is full; transactions: none.", "queue")
LOOP_LAG: Final = _histogram("event_loop_lag_seconds", "How late the event loop wakes a task.")
TRAINING: Final = _histogram(
    "training_seconds", "Local trainings; result: done, failed, cancelled.", "result"
)

BLOB_BYTES: Final = _gauge("store_blob_bytes", "Updates, models and validation sets on the disk.")
BLOB_QUOTA: Final = _gauge("store_blob_quota_bytes", "What storage.blob_bytes allows.")
BLOB_KEPT: Final = _gauge(
    "store_blob_kept_bytes", "Of the blobs, what no collection would free, and what is promised."
)
DISK_FREE: Final = _gauge("disk_free_bytes", "What the disk would still take, less the reserve.")

EPSILON: Final = _gauge(
    "privacy_epsilon",
    "Epsilon spent on a dataset, by the first digits of its hash; at most 20 datasets.",
    "dataset",
)
EPSILON_BUDGET: Final = _gauge(
    "privacy_epsilon_budget", "What roles.seller.privacy.epsilon_budget allows, if it is set."
)

RPC_CALLS: Final = _counter(
    "rpc_calls", "Calls of the local RPC; result: ok, or what kind of error.", "method", "result"
)

METRICS: Final[tuple[Metric, ...]] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, Metric)
)
"""In the order above."""
