"""A node that tells a fault harness, at every port, what it is about to do: an entry point of its
own.

Run as ``python -m d2m_node.simulation.faulty DATA_DIR SOCKET [ATTACK]``. The node connects to the
harness's unix socket. At each named point it writes one line and waits, with its whole event loop,
for the answer: so the harness can kill, stop or cut the node exactly there. An ordinary node knows
nothing of all this.

A point is what the node does and a side of it: ``journal/vote before``. The sides are *before* and
*after*; of a transaction also *signed*, when it is stored and nobody has seen it.
"""

import json
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from d2m_node.address_store import AddressStore
from d2m_node.calls import ContractCall
from d2m_node.logs import configure_logs
from d2m_node.measures import MeasuredChain
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.settings import NetworkSettings
from d2m_node.node import Behaviour, main
from d2m_node.past_jobs import PastJobs
from d2m_node.ports import Int32Array, Library, SealPort, SignerPort, TrainerPort, TrainingTask
from d2m_node.roles.executor import Executor
from d2m_node.roles.sealed_states import STATE_KEY_TAG
from d2m_node.settings import ChainSettings, Device, StorageSettings, load_settings
from d2m_node.simulation.adversaries import make_behaviour
from d2m_node.storage.database import Store
from d2m_node.storage.journal import Journal
from d2m_node.storage.transactions import Transactions
from d2m_node.transaction_store import StoredTransaction, TransactionStore
from protocol.digest import decode_sampler_state
from protocol.errors import ProtocolError
from protocol.osmd import ONE_Q30
from protocol.request import decode_body
from protocol.round import BallotResult, FinalWork, RoundWork
from protocol.types import Digest
from protocol.update import TENSOR_HEADER_BYTES, TensorKind
from protocol.validation_set import decode_part
from protocol.wire.messages import GossipMessage, MessagesRequest

BEFORE, SIGNED, AFTER = "before", "signed", "after"
_TENSOR_MAGIC_BYTES = 5


class Reporter:
    """The line to the harness. Blocks the caller, on purpose."""

    def __init__(self, path: Path, node: str) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._answers = self._socket.makefile("rb")

    def report(self, action: str, side: str, **details: object) -> None:
        """Tell where the node is, and go on when the harness says so."""
        line = json.dumps({"node": self._node, "action": action, "side": side, **details}) + "\n"
        with self._lock:
            self._socket.sendall(line.encode())
            self._answers.readline()


class _Around:
    """Stands before a part of the node; what it does not watch goes through untouched."""

    def __init__(self, inner: Any, reporter: Reporter) -> None:
        self._inner = inner
        self._reporter = reporter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class WatchedJournal(_Around):
    """Reports each new value."""

    async def remember(self, kind: str, key: str, value: bytes) -> bytes:
        """Store a value once, and tell so on both sides of the write."""
        details = {"key": key, "value": value.hex() if len(value) < 1024 else ""}
        self._reporter.report(f"journal/{kind}", BEFORE, **details)
        stored: bytes = await self._inner.remember(kind, key, value)
        self._reporter.report(f"journal/{kind}", AFTER, key=key, value=details["value"])
        return stored


class Calls:
    """Which call a key of a transaction stands for."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def note(self, key: str, call: ContractCall) -> str:
        """Remember a key's call; return the call's name."""
        return self._names.setdefault(key, type(call).__name__)

    def name(self, key: str) -> str:
        """Return the call's name; a key of an earlier run has none."""
        return self._names.get(key, "restored")


class WatchedTransactions(_Around):
    """Reports each signed transaction once it is stored, and before anybody sees it."""

    def __init__(self, inner: Any, reporter: Reporter, calls: Calls) -> None:
        super().__init__(inner, reporter)
        self._calls = calls

    async def add(self, transaction: StoredTransaction) -> None:
        """Store a transaction, then tell."""
        await self._inner.add(transaction)
        self._reporter.report(
            f"tx/{self._calls.name(transaction.key)}",
            SIGNED,
            key=transaction.key,
            nonce=transaction.nonce,
            hash=transaction.transaction_hash.hex(),
        )


class WatchedChain(_Around):
    """Reports each call before it is signed, and when it is confirmed."""

    def __init__(self, inner: Any, reporter: Reporter, calls: Calls) -> None:
        super().__init__(inner, reporter)
        self._calls = calls

    async def submit(self, call: ContractCall, *, key: str) -> None:
        """Send a call, and tell so on both sides."""
        name = self._calls.note(key, call)
        self._reporter.report(f"tx/{name}", BEFORE, key=key)
        await self._inner.submit(call, key=key)
        self._reporter.report(f"tx/{name}", AFTER, key=key)


class WatchedNetwork(_Around):
    """Reports what the node says, what it has fetched, and what it opens."""

    @property
    def seal(self) -> SealPort:
        """The seal of the node's identity, watched."""
        return cast("SealPort", WatchedSeal(self._inner.seal, self._reporter))

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """Gossip a message, and tell so on both sides."""
        name = type(message).__name__
        details = _tell_message(message)
        self._reporter.report(f"say/{name}", BEFORE, **details)
        await self._inner.publish(topic, message)
        self._reporter.report(f"say/{name}", AFTER, **details)

    async def fetch_blob(
        self, digest: Digest, *, sources: Sequence[bytes], max_bytes: int
    ) -> bytes:
        """Fetch a blob, and tell what it is."""
        data: bytes = await self._inner.fetch_blob(digest, sources=sources, max_bytes=max_bytes)
        self._reporter.report(f"fetch/{name_blob(data)}", AFTER)
        return data


def _tell_message(message: GossipMessage) -> dict[str, object]:
    names = ("job_id", "round_index", "mini", "attempt", "part", "commitment", "bitmap", "digest")
    values = {name: getattr(message, name, None) for name in names}
    return {
        name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()
    }


class WatchedLibrary(_Around):
    """Reports what peers are given."""

    async def read_blob(self, peer_id: bytes, digest: Digest) -> bytes | None:
        """Tell of a blob before the peer has the first byte of it."""
        data: bytes | None = await self._inner.read_blob(peer_id, digest)
        if data is not None:
            self._reporter.report(f"serve/{name_blob(data)}", BEFORE)
        return data

    async def read_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[GossipMessage]:
        """Tell of a pull before it is answered."""
        what = "state-key" if request.kind == STATE_KEY_TAG else "messages"
        self._reporter.report(f"serve/{what}", BEFORE)
        found: Sequence[GossipMessage] = await self._inner.read_messages(peer_id, request)
        return found


class WatchedSeal(_Around):
    """Reports the key of a sealed state that has come, and is not opened."""

    def open_key(self, box: bytes, binding: bytes) -> bytes:
        """Tell of a key, then open it."""
        self._reporter.report("open/key", BEFORE)
        key: bytes = self._inner.open_key(box, binding)
        return key


class WatchedTrainer(_Around):
    """Reports the training."""

    async def train(self, task: TrainingTask) -> Int32Array:
        """Train, and tell so on both sides."""
        self._reporter.report("train", BEFORE)
        update: Int32Array = await self._inner.train(task)
        self._reporter.report("train", AFTER)
        return update


class WatchedExecutor(_Around):
    """Reports the computation of a ballot, from the worker thread that does it."""

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Compute a round, and tell so on both sides."""
        self._reporter.report("compute/round", BEFORE)
        result: BallotResult = self._inner.compute_round(work)
        self._reporter.report("compute/round", AFTER, digest=result.digest.hex())
        return result

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Compute a final evaluation, and tell so on both sides."""
        self._reporter.report("compute/final", BEFORE)
        result: BallotResult = self._inner.compute_final(work)
        self._reporter.report("compute/final", AFTER, digest=result.digest.hex())
        return result


def name_blob(data: bytes) -> str:
    """Tell what a blob is by its bytes."""
    if data[:_TENSOR_MAGIC_BYTES] == b"D2MT\x01" and len(data) > TENSOR_HEADER_BYTES:
        is_update = data[_TENSOR_MAGIC_BYTES] == TensorKind.UPDATE
        return "update" if is_update else "parameters"
    readers: dict[str, Callable[[bytes], object]] = {
        "body": decode_body,
        "validation": decode_part,
    }
    for name, read in readers.items():
        try:
            read(data)
        except ProtocolError:
            continue
        return name
    return "sampler" if _is_sampler(data) else "sealed"


def _is_sampler(data: bytes) -> bool:
    """Tell weights from noise: each is a probability."""
    if len(data) % 8:
        return False
    return max(decode_sampler_state(data, len(data) // 8), default=0) <= ONE_Q30


def watch(honest: Behaviour, reporter: Reporter) -> Behaviour:
    """Put the reporter before every port of a node."""
    calls = Calls()

    @asynccontextmanager
    async def watched_store(folder: Path, settings: StorageSettings) -> AsyncGenerator[Store, None]:
        reporter.report("node/start", BEFORE)
        async with honest.open_store(folder, settings) as store:
            yield replace(
                store,
                journal=cast("Journal", WatchedJournal(store.journal, reporter)),
                transactions=cast(
                    "Transactions", WatchedTransactions(store.transactions, reporter, calls)
                ),
            )

    @asynccontextmanager
    async def watched_chain(
        settings: ChainSettings, signer: SignerPort, store: TransactionStore, past: PastJobs
    ) -> AsyncGenerator[MeasuredChain, None]:
        async with honest.open_chain(settings, signer, store, past) as chain:
            yield cast("MeasuredChain", WatchedChain(chain, reporter, calls))

    @asynccontextmanager
    async def watched_network(
        settings: NetworkSettings, library: Library, addresses: AddressStore
    ) -> AsyncGenerator[Libp2pNetwork, None]:
        watched = cast("Library", WatchedLibrary(library, reporter))
        async with honest.open_network(settings, watched, addresses) as network:
            yield cast("Libp2pNetwork", WatchedNetwork(network, reporter))
            reporter.report("node/stop", BEFORE)

    @asynccontextmanager
    async def watched_trainer(device: Device) -> AsyncGenerator[TrainerPort, None]:
        async with honest.open_trainer(device) as trainer:
            yield cast("TrainerPort", WatchedTrainer(trainer, reporter))

    async def watched_executor(device: Device) -> Executor:
        return cast("Executor", WatchedExecutor(await honest.make_executor(device), reporter))

    return replace(
        honest,
        open_trainer=watched_trainer,
        make_executor=watched_executor,
        open_store=watched_store,
        open_chain=watched_chain,
        open_network=watched_network,
    )


def run(folder: Path, path: Path, attack: str | None) -> None:
    """Run a watched node in this process."""
    settings = load_settings(folder, flags={})
    configure_logs(settings.logs)
    honest = Behaviour() if attack is None else make_behaviour(attack)
    main(settings, watch(honest, Reporter(path, folder.name)))


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
