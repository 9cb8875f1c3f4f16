"""The process behind `tests.support.disk_faults`: does steps on a store, in a fork for each run."""

import ctypes
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import structlog
import trio

from d2m_node.errors import NodeError
from d2m_node.ports import Ports, Purpose, Reference
from d2m_node.roles.delivery import is_delivered, keep_model, open_model
from d2m_node.roles.sealed_states import SealedStates
from d2m_node.sealing import IdentitySeal
from d2m_node.settings import StorageSettings
from d2m_node.storage.collector import collect
from d2m_node.storage.database import Store, open_store
from d2m_node.storage.retention import KeepRules
from d2m_node.transaction_store import StoredTransaction, TransactionState
from d2m_node.user_input import ByteCount
from protocol.hashing import Domain, keccak
from protocol.types import Address, JobId
from tests.support.market_states import make_state

SETTINGS = StorageSettings(reserve_bytes=ByteCount(0))
RULES = KeepRules(blob_bytes=0, keep_jobs=0, keep_blocks=0, serve_blocks=0, final_blocks=1)
"""Everything goes that may."""
JOB = JobId(1)
DOMAIN = Domain(31337, Address(b"\x11" * 20))


async def remember(store: Store, kind: str, key: str, value: str) -> str:
    return (await store.journal.remember(kind, key, value.encode())).decode()


async def put(store: Store, text: str, purpose: str, job: int) -> None:
    await store.blobs.put(text.encode(), Reference(Purpose(purpose), JobId(job)))


async def get(store: Store, text: str) -> bool:
    return await store.blobs.get(keccak(text.encode())) == text.encode()


async def add(store: Store, key: str, nonce: int) -> None:
    raw = f"{key} {nonce}".encode()
    await store.transactions.add(
        StoredTransaction(key=key, nonce=nonce, raw=raw, transaction_hash=keccak(raw))
    )


async def settle(store: Store, nonce: int, state: str) -> None:
    await store.transactions.settle(nonce, TransactionState(state), None)


async def clean(store: Store, block: int, over: Sequence[int]) -> None:
    """Collect twice, so that jobs that are over by now are old enough."""
    for head in (block, block + 1):
        await collect(store, make_state(head, over), RULES)


def make_ports(store: Store) -> Ports:
    """What delivering a sealed model touches; nothing else is there."""
    seal = IdentitySeal(keccak(b"peer"))
    parts = {
        "chain": SimpleNamespace(domain=DOMAIN),
        "network": SimpleNamespace(peer_id=seal.peer_id),
        "signer": None,
        "datasets": None,
        "herald": None,
    }
    return Ports(store=store, seal=seal, **cast("Any", parts))


async def deliver(store: Store, text: str) -> str | None:
    """Take a model as its buyer does: only if it is not here. Return what is handed out then."""
    ports = make_ports(store)
    if not await is_delivered(ports, JOB):
        await keep_model(ports, JOB, text.encode(), is_sealed=True)
    found = await open_model(ports, JOB)
    return None if found is None else found.decode()


async def seal_state(store: Store, text: str) -> str | None:
    """Seal a state as it is served; return the hash of the sealed blob."""
    sealed = await SealedStates(store.blobs, DOMAIN).seal(JOB, 0, keccak(text.encode()))
    return None if sealed is None else sealed.sealed_digest.hex()


STEPS: dict[str, Callable[..., Awaitable[Any]]] = {
    one.__name__: one for one in (remember, put, get, add, settle, clean, deliver, seal_state)
}


async def do_all(folder: Path, steps: Sequence[Sequence[Any]], tell: Callable[[Any], None]) -> None:
    async with open_store(folder, SETTINGS) as store:
        for name, *arguments in steps:
            tell({"done": await STEPS[name](store, *arguments)})


def run_child(library: Any, command: dict[str, Any], report: int) -> None:
    """Do the steps; whatever has returned is reported at once."""

    def tell(what: Any) -> None:
        os.write(report, (json.dumps(what) + "\n").encode())

    fault = command["fault"]
    library.disk_faults_arm(
        command["folder"].encode(),
        ctypes.c_long(fault["die"]),
        fault["torn"],
        ctypes.c_long(fault["fail"]),
        fault["error"],
        ctypes.c_long(fault["bytes"]),
        fault["no_locks"],
        fault["read_only"],
    )
    try:
        trio.run(do_all, Path(command["folder"]), command["steps"], tell)
    except NodeError as error:
        tell({"error": [type(error).__name__, str(error)]})
    tell({"calls": library.disk_faults_calls()})


def run_fork(library: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Run the steps in a fork; return what it reported and how it ended."""
    reading, report = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        run_child(library, command, report)
        os._exit(0)
    os.close(report)
    with os.fdopen(reading) as lines:
        told = [json.loads(line) for line in lines]
    _, status = os.waitpid(child, 0)
    return {
        "done": [one["done"] for one in told if "done" in one],
        "error": next((one["error"] for one in told if "error" in one), None),
        "calls": next((one["calls"] for one in told if "calls" in one), 0),
        "status": os.waitstatus_to_exitcode(status),
    }


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    library = ctypes.CDLL(sys.argv[1])
    library.disk_faults_calls.restype = ctypes.c_long
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_fork(library, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
