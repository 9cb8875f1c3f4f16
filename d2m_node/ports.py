"""What roles and RPC may ask of chain, network, store, trainer and keys.

Each port has one adapter in the package of the same name; tests and the simulation may bring
others. Methods say what they raise.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import trio

from d2m_node.calls import ContractCall
from d2m_node.past_jobs import PastJobs
from protocol.events import BitmapsLogged, CourseChanged, RecordedEvent
from protocol.hashing import Domain
from protocol.market import MarketState
from protocol.model import ModelDescription
from protocol.params import ProtocolParams
from protocol.request import TrainingSpec, compute_rate_nanos
from protocol.samples import SampleArray
from protocol.types import Address, BlockNumber, Digest, JobId, RoundIndex
from protocol.wire.messages import GossipMessage, MessagesRequest, PulledMessage

Found = TypeVar("Found")
Int32Array = npt.NDArray[np.int32]


UNTOLD: Final = (BitmapsLogged, CourseChanged)
"""Events that are not kept for those who ask later: bitmaps are whatever anybody sends, and a
course is of use to the next call alone."""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """The chain turned: what was told of blocks after this one holds no more."""

    block_number: BlockNumber


class HistoryPort(Protocol):
    """What the chain said, numbered in the order in which it was followed.

    The newest entries are kept, across restarts too, because a restart follows again.
    """

    @property
    def first(self) -> int:
        """Number of the oldest entry that is kept; `end` if there is none."""

    @property
    def end(self) -> int:
        """Number of the entry that comes next."""

    def read(self, number: int) -> RecordedEvent | TakenBack:
        """Return an entry from `first` to before `end`."""


class ChainPort(Protocol):
    """The chain, followed. Blocks and events are those deep enough to act on."""

    @property
    def domain(self) -> Domain:
        """The chain id and market this port follows."""

    @property
    def params(self) -> ProtocolParams:
        """What the deployment of the contracts fixed for ever."""

    @property
    def state(self) -> MarketState:
        """The fold of all events up to `MarketState.block_number`."""

    @property
    def history(self) -> HistoryPort:
        """What led to the state, as far back as it is kept."""

    async def wait_block(self, number: BlockNumber) -> None:
        """Return when block ``number`` has been followed."""

    async def wait_for(self, find: Callable[[MarketState], Found | None]) -> Found:
        """Return the first result of ``find`` that is not None, asked after every block."""

    async def read_randomness(self, number: BlockNumber) -> bytes:
        """Return the 32 bytes of beacon randomness of a followed block.

        Raises ChainUnavailable.
        """

    async def read_header(self, number: BlockNumber) -> bytes:
        """Return the RLP header of a followed block, as the contracts check it.

        Raises ChainUnavailable.
        """

    async def submit(self, call: ContractCall, *, key: str) -> None:
        """Send a call and return once it is confirmed.

        ``key`` names what the call means. It is journaled with the signed transaction before
        sending: the same key is never sent twice, across restarts too; a second call with a
        confirmed key returns at once.

        Raises
        ------
        TransactionReverted
            If the contract refuses; the key is then free again.
        ChainUnavailable
            If no endpoint answers within the adapter's patience; what was signed stays
            journaled and is reconciled later.
        """


class Verdict(Enum):
    """What to do with a gossiped message before it is forwarded."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    """Not wanted now, but nobody's fault: a copy, or out of phase."""
    REJECT = "reject"
    """Against the rules; the peer that forwarded it is penalised."""


class TopicPlace(Enum):
    """What a peer has to do with a topic."""

    OUTSIDE = "outside"
    SPEAKER = "speaker"
    """Says things of its own there, and hears nothing."""
    AUDIENCE = "audience"
    """Hears everything, and passes it on."""


class Library(Protocol):
    """What this node serves to others. The network asks; the node decides who may have what."""

    def place_in(self, topic: str, peer_id: bytes) -> TopicPlace:
        """Say what a peer has to do with a topic. Asked for each message: must be quick."""

    async def admits(self, peer_id: bytes, digest: Digest) -> bool:
        """Say whether there is a blob that this peer may have."""

    async def read_blob(self, peer_id: bytes, digest: Digest) -> bytes | None:
        """Return a blob if this peer may have it, else None."""

    async def read_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[PulledMessage]:
        """Return the messages of a job's step that this peer may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialFailure:
    """An address of a peer that led nowhere."""

    multiaddr: str
    source: str
    """Who told it: bootstrap, registry, lan, cache, dht."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """One known peer, for `status` and `peers`."""

    peer_id: bytes
    multiaddr: str
    connected: bool
    last_error: str | None
    failures: Sequence[DialFailure] = ()
    """Of the last dial, if it led nowhere: each address that was tried."""
    next_dial_seconds: float | None = None
    """Until it is dialled again; None if it is connected, or dialled only when it is needed."""
    penalty: float = 0.0
    """Its faults, weighted by age."""
    banned_seconds: float | None = None
    """Until it is talked to again; None if it is not banned, or denied by the settings."""
    turned_away: Mapping[str, int] = field(default_factory=dict)
    """How often it came to which limit: strangers, streams, slow, flood, outside, denied."""


NO_RIVALS: Final[Mapping[bytes, Sequence[str]]] = MappingProxyType({})


class NetworkPort(Protocol):
    """Peers, gossip and streams. Peer ids are libp2p's bytes (multihash)."""

    @property
    def peer_id(self) -> bytes:
        """This node's libp2p identity."""

    def peers(self) -> Sequence[PeerStatus]:
        """Every peer this node knows, connected or not."""

    def set_address_book(
        self,
        addresses: Mapping[bytes, str],
        needed: Collection[bytes] = (),
        rivals: Mapping[bytes, Sequence[str]] = NO_RIVALS,
    ) -> None:
        """Say where peers are: peer id to multiaddr, without /p2p.

        ``rivals`` are further addresses that others name for the same peers: tried after.

        With those that are ``needed`` the node stays connected, with the others as far as it has
        too few connections.
        """

    def join_topic(
        self, topic: str, validate: Callable[[GossipMessage], Verdict]
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[GossipMessage]]:
        """Subscribe while the context is open; yield a bounded channel of accepted messages.

        ``validate`` runs before a message is forwarded and must not raise. When the channel is
        full the oldest message is dropped: phases end with a pull.
        """

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """Gossip a message. Returns when it is queued; delivery is never certain."""

    async def fetch_blob(
        self, digest: Digest, *, sources: Sequence[bytes], max_bytes: int
    ) -> bytes:
        """Fetch a blob from the first source that has it, and check its hash.

        Raises PeerUnreachable if no source delivers.
        """

    async def fetch_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[PulledMessage]:
        """Pull a peer's messages of one step. Raises PeerUnreachable, StreamTimeout."""


class Purpose(Enum):
    """What a blob is to a job. It says who may fetch it, and how long it is kept."""

    REQUEST = "request"
    """The body of a request: for everybody."""
    OWN_REQUEST = "own-request"
    """The same of this node's own bid: nobody else may have it. Never collected."""
    UPDATE = "update"
    """A seller's update: for the enrolled CONE nodes of the job, all alike."""
    OWN_UPDATE = "own-update"
    """The same of this node: it has signed for it, and nobody else may have it yet."""
    VALIDATION = "validation"
    """A part of the validation set: for whom an update is."""
    STATE = "state"
    """Parameters or inclusion weights after a round: for all who take part in the job."""
    MODEL = "model"
    """A delivered model as a file: for this node alone. Never collected."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Why a blob is kept. A blob without one is collected."""

    purpose: Purpose
    job_id: JobId


class JournalPort(Protocol):
    """What we are about to say, written before it is said. All writes are durable on return."""

    async def remember(self, kind: str, key: str, value: bytes) -> bytes:
        """Store a value once; return what is stored, the first value if there was one."""

    async def recall(self, kind: str, key: str) -> bytes | None:
        """Return a stored value."""

    async def recall_all(self, kind: str, prefix: str = "") -> dict[str, bytes]:
        """Return all values of a kind whose key begins with ``prefix``, by key."""


class BlobPort(Protocol):
    """Content-addressed bytes on disk."""

    async def put(
        self, data: bytes, reference: Reference, *, digest: Digest | None = None
    ) -> Digest:
        """Store bytes durably, and why they are kept; return their Keccak-256.

        Who has checked the bytes against it names the ``digest``, so that nobody hashes twice.
        Raises DiskFull if the disk takes no more; nothing has changed then.
        """

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes, checked against their hash.

        None if the store does not have them, or has found them damaged: they can be fetched and
        put again.
        """

    async def references(self, digest: Digest) -> frozenset[Reference]:
        """Return why a blob is kept."""

    async def find_refusal(self, job_id: JobId, size_bytes: int) -> str | None:
        """Say why a new job cannot have so much room, or set it aside and return None.

        What is set aside for a job counts until the job is over. Of several amounts for one job
        the largest counts.
        """

    async def check_room(self, size_bytes: int) -> None:
        """Raise DiskFull if the disk could not take so many bytes now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A job that a role of this node turned down or could not go on with, and why."""

    job_id: JobId
    role: str
    code: str
    """Names the reason: each job has one refusal per role and code."""
    reason: str
    block_number: BlockNumber
    """The last block followed when it was noted."""


class RefusalPort(Protocol):
    """The latest refusals: so many are kept, and older ones give way."""

    async def add(self, refusal: Refusal) -> bool:
        """Keep a refusal durably; tell whether it is new for its job, role and code."""

    async def latest(self, count: int, job_id: JobId | None = None) -> tuple[Refusal, ...]:
        """Return the latest refusals, of one job if it is named, newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFact:
    """Something that happened at this node: a role was switched, a job was refused."""

    number: int
    """Ascending from 1, across restarts too."""
    kind: str
    """Like role.enabled."""
    job_id: JobId | None
    details: Mapping[str, str]


class FactPort(Protocol):
    """The latest facts of this node: so many are kept, and older ones give way."""

    async def add(self, kind: str, details: Mapping[str, str], job_id: JobId | None) -> NodeFact:
        """Keep a fact durably."""

    async def latest(self) -> Sequence[NodeFact]:
        """Return the facts that are kept, oldest first."""


class HeraldPort(Protocol):
    """Tells whoever subscribed what happens at this node."""

    async def tell(self, kind: str, job_id: JobId | None = None, /, **details: str) -> None:
        """Keep a fact, then show it to subscribers; it waits for none of them."""


class StorePort(Protocol):
    """The node's memory."""

    @property
    def trusted_from(self) -> BlockNumber:
        """From this block on the journal knows all that the node says.

        Zero but for a store that was restored from a backup: then the block after that.
        """

    @property
    def journal(self) -> JournalPort:
        """First-write-wins records."""

    @property
    def blobs(self) -> BlobPort:
        """Updates, models, requests, validation sets, by hash."""

    @property
    def refusals(self) -> RefusalPort:
        """What roles turned down, and why."""

    @property
    def past(self) -> PastJobs:
        """Jobs of the market that are long over; `d2m_node.lookup` looks there, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Labelled examples as the exact evaluator takes them."""

    inputs: SampleArray
    """Shape (n, *input shape): the type says of which kind (`protocol.samples.DTYPES`)."""
    labels: npt.NDArray[np.int64]
    """Shape (n,); class numbers from zero, or a regression's targets in Q16."""


class DatasetPort(Protocol):
    """Data files on this machine."""

    async def load_samples(self, path: str) -> Samples:
        """Load what a dataset file describes. Raises UserError that names the file and field."""

    async def load_tags(self, path: str) -> tuple[str, ...]:
        """Return the tags that a dataset file declares, ascending. Raises UserError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateTraining:
    """How one training keeps differential privacy (DP-SGD), and all that its epsilon follows from.

    Each step takes every sample with the chance ``sample_rate``, clips the gradient of each to
    ``max_grad_norm``, and adds noise of that times ``noise_multiplier`` to their sum.
    """

    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTask:
    """What a seller trains in one round."""

    model: ModelDescription
    parameters: Int32Array
    """Where training starts, shape (d,), Q20."""
    spec: TrainingSpec
    samples: Samples
    seed: int
    """Order of the samples: on a CPU the same seed gives the same update."""
    round_index: RoundIndex = RoundIndex(0)
    """In which the update is offered: the request's learning rate may fall with it."""
    private: PrivateTraining | None = None
    """With differential privacy; the seed then counts for nothing."""

    @property
    def learning_rate(self) -> float:
        """Adam's rate in this round."""
        return compute_rate_nanos(self.spec, self.round_index) / 1_000_000_000


class TrainerPort(Protocol):
    """A seller's private training. Runs off the event loop; cancellable between batches.

    All methods raise TrainingStopped, a TransientError, if the training process crashes.
    """

    async def train(self, task: TrainingTask) -> Int32Array:
        """Train; return the update (d,), Q20.

        Raises InvalidParams if the samples do not fit the model.
        """

    async def compute_epsilon(
        self, history: Sequence[tuple[PrivateTraining, int]], delta: float
    ) -> float:
        """Return the epsilon of private trainings, each done so many times."""

    async def choose_noise(
        self, *, epsilon: float, delta: float, sample_rate: float, steps: int
    ) -> float:
        """Return the least noise multiplier that keeps ``steps`` within ``epsilon``.

        Raises InvalidParams if no sensible noise does.
        """


class SignerPort(Protocol):
    """The node's accounts. Keys never leave the adapter."""

    @property
    def address(self) -> Address:
        """The chain account."""

    def sign_digest(self, digest: Digest) -> bytes:
        """Sign an EIP-712 digest; 65 bytes ``r | s | v`` with v 27 or 28."""


class SealPort(Protocol):
    """What is sealed to this node's peer identity. The key never leaves the adapter."""

    def open_key(self, box: bytes, binding: bytes) -> bytes:
        """Return a key that was boxed for this node and this use. Raises SealBroken."""


class EntropyPort(Protocol):
    """Where salts, secrets and seeds come from. The noise of a private training does not."""

    def token_bytes(self, count: int, /) -> bytes:
        """Return so many bytes that nobody else can guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything a role may touch."""

    chain: ChainPort
    network: NetworkPort
    store: StorePort
    signer: SignerPort
    datasets: DatasetPort
    herald: HeraldPort
    seal: SealPort
    entropy: EntropyPort = secrets
