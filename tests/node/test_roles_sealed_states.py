"""A job whose model is for its buyer only: states leave a node sealed, to who may have them."""

import msgspec
import pytest

from d2m_node.errors import PeerUnreachable, UserError
from d2m_node.ports import Ports, Purpose, Reference
from d2m_node.roles.delivery import is_delivered, keep_model, open_model
from d2m_node.roles.sealed_states import STATE_KEY_TAG, WantedState, fetch_sealed
from d2m_node.sealing import IdentitySeal
from protocol.hashing import keccak
from protocol.request import ModelAccess
from protocol.types import Digest
from protocol.wire import messages as wire
from tests.support.access import ASKERS, BLOBS, PARAMETERS, POINTS, WEIGHTS, Stage
from tests.support.job import JOB
from tests.support.market import Node

KEYS = wire.MessagesRequest(job_id=JOB, kind=STATE_KEY_TAG, step=0)
POOL = {"cone", "other cone"}
MAY_OPEN = {
    "first round": set(),
    "second round": POOL | {"seller"},
    "final evaluation": POOL,
    "ended": POOL | {"buyer"},
    "settled": POOL | {"buyer"},
    "cancelled": set(),
}
"""Who may have the parameters after the first round, as far as they are decided."""


def wanted(data: bytes = PARAMETERS) -> WantedState:
    return WantedState(job_id=JOB, round_index=0, digest=keccak(data), max_bytes=1000)


async def try_open(stage: Stage, node: Node, data: bytes = PARAMETERS) -> bytes | None:
    try:
        return await fetch_sealed(node.ports, wanted(data), [stage.server.peer_id])
    except PeerUnreachable:
        return None


@pytest.mark.parametrize("point", POINTS)
async def test_a_state_is_opened_by_who_may_have_it_and_by_nobody_else(point: str) -> None:
    stage = Stage(point, ModelAccess.BUYER_ONLY)
    opened = {
        asker for asker, node in stage.peers.items() if await try_open(stage, node) == PARAMETERS
    }
    assert opened == MAY_OPEN[point]


@pytest.mark.parametrize("point", POINTS)
async def test_no_state_is_served_in_the_clear_not_even_to_the_pool(point: str) -> None:
    stage = Stage(point, ModelAccess.BUYER_ONLY)
    for name in ("parameters", "weights", "undecided"):
        for node in stage.peers.values():
            assert not await stage.server.library.admits(node.peer_id, BLOBS[name].digest)


async def test_the_sealed_blob_is_refused_to_who_may_not_open_it() -> None:
    stage = Stage("second round", ModelAccess.BUYER_ONLY)
    library = stage.server.library
    (key, _) = await library.read_messages(stage.peers["cone"].peer_id, KEYS)
    assert isinstance(key, wire.StateKey)
    served = {
        asker
        for asker, node in stage.peers.items()
        if await library.read_blob(node.peer_id, Digest(key.sealed_digest)) is not None
    }
    assert served == POOL | {"seller"}


async def test_what_is_served_holds_nothing_of_the_state_in_the_clear() -> None:
    stage = Stage("second round", ModelAccess.BUYER_ONLY)
    cone = stage.peers["cone"].peer_id
    (key, _) = await stage.server.library.read_messages(cone, KEYS)
    assert isinstance(key, wire.StateKey)
    sealed = await stage.server.library.read_blob(cone, Digest(key.sealed_digest))
    assert sealed is not None
    assert keccak(sealed) == key.sealed_digest
    assert PARAMETERS not in sealed
    assert PARAMETERS not in key.box


@pytest.mark.parametrize("access", [ModelAccess.PARTICIPANTS, ModelAccess.PUBLIC])
async def test_a_job_that_does_not_ask_for_it_gives_no_keys(access: ModelAccess) -> None:
    stage = Stage("second round", access)
    for node in stage.peers.values():
        assert await stage.server.library.read_messages(node.peer_id, KEYS) == []


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        (ModelAccess.PARTICIPANTS, POOL | {"buyer", "seller"}),
        (ModelAccess.PUBLIC, set(ASKERS)),
        (ModelAccess.BUYER_ONLY, set()),
    ],
)
async def test_the_request_says_who_has_the_model_of_a_settled_job(
    access: ModelAccess, expected: set[str]
) -> None:
    stage = Stage("settled", access)
    served = {
        asker
        for asker, node in stage.peers.items()
        if await stage.server.library.admits(node.peer_id, BLOBS["parameters"].digest)
    }
    assert served == expected
    for name in ("weights", "undecided"):
        stranger = stage.peers["stranger"].peer_id
        assert not await stage.server.library.admits(stranger, BLOBS[name].digest)


@pytest.mark.parametrize("access", [ModelAccess.PARTICIPANTS, ModelAccess.PUBLIC])
async def test_a_model_that_is_for_all_is_the_buyers_first(access: ModelAccess) -> None:
    stage = Stage("ended", access)
    served = {
        asker
        for asker, node in stage.peers.items()
        if await stage.server.library.admits(node.peer_id, BLOBS["parameters"].digest)
    }
    assert served == POOL | {"buyer"}


async def test_a_node_that_lost_the_request_serves_no_state() -> None:
    stage = Stage("settled", ModelAccess.PUBLIC)
    body = stage.cast.market.state.jobs[JOB].body_hash
    del stage.server.store.blobs.data[body]
    cone = stage.peers["cone"].peer_id
    assert not await stage.server.library.admits(cone, BLOBS["parameters"].digest)


async def test_every_node_seals_a_state_alike_after_a_restart_too() -> None:
    digests = set()
    for _ in range(2):
        stage = Stage("second round", ModelAccess.BUYER_ONLY)
        for asker in ("cone", "seller"):
            keys = await stage.server.library.read_messages(stage.peers[asker].peer_id, KEYS)
            digests.add(tuple(one.sealed_digest for one in keys if isinstance(one, wire.StateKey)))
    assert len(digests) == 1


class Liar:
    """A CONE node's library that answers as it likes."""

    def __init__(self, stage: Stage, **changes: bytes) -> None:
        self._honest, self._changes = stage.server.library, changes
        self.sealed: bytes | None = None

    async def read_messages(
        self, peer_id: bytes, request: wire.MessagesRequest
    ) -> list[wire.PulledMessage]:
        told = await self._honest.read_messages(peer_id, request)
        return [msgspec.structs.replace(one, **self._changes) for one in told]

    async def read_blob(self, peer_id: bytes, digest: Digest) -> bytes | None:
        return self.sealed


async def test_a_liar_is_passed_over_and_an_honest_node_asked() -> None:
    stage = Stage("second round", ModelAccess.BUYER_ONLY)
    liar = stage.cast.cones[3]
    liar.library = Liar(stage, sealed_digest=bytes(32))  # type: ignore[assignment]
    peers = [liar.peer_id, stage.server.peer_id]
    node = stage.peers["cone"]
    liar.library.sealed = b"garbage"  # type: ignore[attr-defined]
    assert await fetch_sealed(node.ports, wanted(), peers) == PARAMETERS


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"\x00"])
async def test_a_sealed_blob_that_does_not_open_is_one_clear_error(damage: object) -> None:
    stage = Stage("second round", ModelAccess.BUYER_ONLY)
    node, liar = stage.peers["cone"], stage.cast.cones[3]
    (key, _) = await stage.server.library.read_messages(node.peer_id, KEYS)
    assert isinstance(key, wire.StateKey)
    sealed = await stage.server.library.read_blob(node.peer_id, Digest(key.sealed_digest))
    liar.library = Liar(stage)  # type: ignore[assignment]
    liar.library.sealed = damage(sealed)  # type: ignore[attr-defined, operator]
    with pytest.raises(PeerUnreachable, match="chunk 0 of 1 does not open"):
        await fetch_sealed(node.ports, wanted(), [liar.peer_id])


async def test_a_key_for_another_peer_or_round_is_not_taken() -> None:
    stage = Stage("second round", ModelAccess.BUYER_ONLY)
    node, liar = stage.peers["cone"], stage.cast.cones[3]
    (other, _) = await stage.server.library.read_messages(stage.peers["seller"].peer_id, KEYS)
    assert isinstance(other, wire.StateKey)
    liar.library = Liar(stage, box=other.box)  # type: ignore[assignment]
    with pytest.raises(PeerUnreachable, match="no peer gave a key that opens it"):
        await fetch_sealed(node.ports, wanted(), [liar.peer_id])
    replayed = WantedState(job_id=JOB, round_index=1, digest=keccak(PARAMETERS), max_bytes=1000)
    with pytest.raises(PeerUnreachable, match="no peer gave a key that opens it"):
        await fetch_sealed(node.ports, replayed, [stage.server.peer_id])


async def test_inclusion_weights_travel_sealed_too() -> None:
    stage = Stage("second round", ModelAccess.BUYER_ONLY)
    assert await try_open(stage, stage.peers["seller"], WEIGHTS) == WEIGHTS
    assert await try_open(stage, stage.peers["buyer"], WEIGHTS) is None


def reopen(node: Node, seal: IdentitySeal) -> Ports:
    """The same store, as another process of the node sees it."""
    return Ports(
        chain=node.chain,
        network=node.network,  # type: ignore[arg-type]
        store=node.store,
        signer=node.signer,
        datasets=node.ports.datasets,
        herald=node.ports.herald,
        seal=seal,
    )


async def test_a_sealed_copy_opens_after_a_restart() -> None:
    stage = Stage("settled", ModelAccess.BUYER_ONLY)
    buyer, file = stage.cast.buyer, b"a model file" * 10
    assert not await is_delivered(buyer.ports, JOB)
    await keep_model(buyer.ports, JOB, file, is_sealed=True)
    stored = [
        buyer.store.blobs.data[digest]
        for digest, kept_for in buyer.store.blobs.kept_for.items()
        if Reference(Purpose.MODEL, JOB) in kept_for
    ]
    assert len(stored) == 1
    assert file[:8] not in stored[0]
    assert not any(file[:8] in value for value in buyer.store.journal.values.values())
    again = reopen(buyer, IdentitySeal(keccak(b"peer " + buyer.name.encode())))
    assert await open_model(again, JOB) == file
    assert await is_delivered(again, JOB)


async def test_with_another_peer_key_the_model_is_fetched_again() -> None:
    stage = Stage("settled", ModelAccess.BUYER_ONLY)
    buyer, file = stage.cast.buyer, b"a model file" * 10
    await keep_model(buyer.ports, JOB, file, is_sealed=True)
    buyer.network.peer_id = IdentitySeal(keccak(b"another")).peer_id
    other = reopen(buyer, IdentitySeal(keccak(b"another")))
    assert not await is_delivered(other, JOB)
    assert await open_model(other, JOB) is None
    await keep_model(other, JOB, file, is_sealed=True)
    assert await open_model(other, JOB) == file


async def test_a_box_that_was_damaged_is_one_clear_error() -> None:
    stage = Stage("settled", ModelAccess.BUYER_ONLY)
    buyer = stage.cast.buyer
    await keep_model(buyer.ports, JOB, b"a model file", is_sealed=True)
    ((name, stored),) = buyer.store.journal.values.items()
    buyer.store.journal.values[name] = stored[:-1] + bytes([stored[-1] ^ 1])
    with pytest.raises(UserError, match="the sealed model does not open"):
        await open_model(buyer.ports, JOB)


async def test_a_copy_in_the_clear_is_as_it_always_was() -> None:
    buyer = Stage("settled").cast.buyer
    await keep_model(buyer.ports, JOB, b"file", is_sealed=False)
    assert await buyer.store.journal.recall("model", str(JOB)) == keccak(b"file")
    assert await open_model(buyer.ports, JOB) == b"file"


async def test_a_sealed_copy_that_the_disk_lost_is_not_delivered() -> None:
    buyer = Stage("settled", ModelAccess.BUYER_ONLY).cast.buyer
    await keep_model(buyer.ports, JOB, b"file", is_sealed=True)
    buyer.store.blobs.data.clear()
    assert not await is_delivered(buyer.ports, JOB)
    assert await open_model(buyer.ports, JOB) is None
