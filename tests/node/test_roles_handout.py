"""The final model for an operator: who is handed it, from where, and why not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from d2m_node.errors import NodeError, PeerUnreachable, UserError
from d2m_node.model_file import encode_model_file
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.past_jobs import Tie
from d2m_node.ports import Ports, Purpose, Reference
from d2m_node.roles.delivery import keep_model
from d2m_node.roles.handout import ModelDesk
from protocol.events import PeerBound
from protocol.hashing import keccak
from protocol.job import JobPhase, JobState
from protocol.model import count_parameters
from protocol.request import ModelAccess
from protocol.types import JobId
from protocol.update import TensorKind, encode_tensor
from tests.support.access import ASKERS, Stage
from tests.support.job import BODY, JOB
from tests.support.market import DOMAIN, Node
from tests.support.network import Shelf, start_network

VALUES = np.arange(count_parameters(BODY.model), dtype=np.int32)
TENSOR = encode_tensor(TensorKind.PARAMETERS, VALUES)
FILE = encode_model_file(VALUES, domain=DOMAIN, job=JOB, model=BODY.model)
STRANGERS = {"elsewhere", "registered", "stranger"}


def make_stage(point: str, access: ModelAccess = ModelAccess.PUBLIC) -> Stage:
    return Stage(point, access, TENSOR)


async def ask(node: Node) -> bytes | str:
    """Return the file, or the reason why there is none."""
    try:
        return await ModelDesk(node.ports).fetch(JOB)
    except NodeError as error:
        return str(error)


@pytest.mark.parametrize(
    ("access", "handed"),
    [
        (ModelAccess.PUBLIC, set(ASKERS)),
        (ModelAccess.PARTICIPANTS, set(ASKERS) - STRANGERS),
        (ModelAccess.BUYER_ONLY, {"buyer"}),
    ],
)
async def test_the_request_says_whose_operator_is_handed_the_model(
    access: ModelAccess, handed: set[str]
) -> None:
    stage = make_stage("settled", access)
    answers = {asker: await ask(node) for asker, node in stage.peers.items()}
    assert {asker for asker, answer in answers.items() if answer == FILE} == handed
    refused = {answer for asker, answer in answers.items() if asker not in handed}
    assert all("its request gives the model to the job's buyer" in str(one) for one in refused)


async def test_what_was_handed_out_is_not_kept() -> None:
    stage = make_stage("settled")
    node = stage.peers["stranger"]
    assert await ask(node) == FILE
    assert node.store.blobs.data == {}


async def test_a_cone_node_opens_no_connection_for_what_it_has() -> None:
    stage = make_stage("settled")
    stage.cast.market.nodes.clear()
    assert await ask(stage.server) == FILE


async def test_what_the_store_has_for_another_job_is_not_handed_out_as_this_ones() -> None:
    stage = make_stage("settled")
    node = stage.peers["stranger"]
    node.store.blobs.keep(TENSOR, Reference(Purpose.STATE, JobId(5)))
    del stage.server.store.blobs.data[keccak(TENSOR)]
    assert "nobody who can be reached has its model any more" in str(await ask(node))


async def test_the_buyer_has_the_model_first() -> None:
    stage = make_stage("ended")
    assert await ask(stage.cast.buyer) == FILE
    for asker in set(ASKERS) - {"buyer"}:
        answer = await ask(stage.peers[asker])
        assert "the model is its buyer's alone until the job is settled" in str(answer)


async def test_a_delivered_copy_is_handed_out_as_it_is() -> None:
    stage = make_stage("settled", ModelAccess.BUYER_ONLY)
    desk = ModelDesk(stage.cast.buyer.ports)
    assert await desk.delivered(JOB) is None
    await keep_model(stage.cast.buyer.ports, JOB, b"the copy", is_sealed=True)
    assert await desk.delivered(JOB) == b"the copy"


@pytest.mark.parametrize("access", list(ModelAccess))
async def test_a_copy_that_the_disk_has_lost_is_fetched_again(access: ModelAccess) -> None:
    stage = make_stage("settled", access)
    buyer = stage.cast.buyer
    is_sealed = access is ModelAccess.BUYER_ONLY
    await keep_model(buyer.ports, JOB, FILE, is_sealed=is_sealed)
    for digest, kept_for in buyer.store.blobs.kept_for.items():
        if Reference(Purpose.MODEL, JOB) in kept_for:
            del buyer.store.blobs.data[digest]
    desk = ModelDesk(buyer.ports)
    assert await desk.delivered(JOB) is None
    assert await desk.fetch(JOB) == FILE


@pytest.mark.parametrize("access", list(ModelAccess))
async def test_a_seller_that_drops_out_of_the_registry_is_still_a_seller(
    access: ModelAccess,
) -> None:
    """Who may have it here follows from the account, not from what the registry says of peers."""
    stage = make_stage("settled", access)
    market = stage.cast.market
    seller = stage.peers["seller"]
    peers = {one: peer for one, peer in market.state.peers.items() if one != seller.signer.address}
    market.state = replace(market.state, peers=peers)
    answer = await ask(seller)
    expected = {
        ModelAccess.PUBLIC: FILE,  # its peers see a stranger
        ModelAccess.PARTICIPANTS: "nobody who can be reached has its model any more",
        ModelAccess.BUYER_ONLY: "its request gives the model to the job's buyer only",
    }[access]
    assert answer == expected if isinstance(expected, bytes) else expected in str(answer)


def change_job(stage: Stage, **changes: object) -> None:
    market = stage.cast.market
    job: JobState = replace(market.state.jobs[JOB], **changes)  # type: ignore[arg-type]
    market.state = replace(market.state, jobs={**market.state.jobs, JOB: job})


async def test_each_reason_to_refuse_is_a_line_of_its_own() -> None:
    stranger = "stranger"
    unknown = make_stage("settled")
    with pytest.raises(UserError, match="job 99: the market has no such job"):
        await ModelDesk(unknown.peers[stranger].ports).fetch(JobId(99))
    for point, reason in {
        "cancelled": "job 1: it was cancelled, so it has no model",
        "second round": "job 1: its phase is training; there is no final model before its training",
        "ended": "job 1: its phase is settling; the model is its buyer's alone until the job is",
    }.items():
        assert str(await ask(make_stage(point).peers[stranger])).startswith(reason)
    barren = make_stage("settled")
    change_job(barren, decided=(), ended=None)
    answer = await ask(barren.peers[stranger])
    assert answer == "job 1: no round of it was decided, so it has no model"


async def test_a_model_that_nobody_has_any_more_is_said_to_be_gone() -> None:
    stage = make_stage("settled")
    del stage.server.store.blobs.data[keccak(TENSOR)]
    with pytest.raises(PeerUnreachable, match="job 1: nobody who can be reached has its model"):
        await ModelDesk(stage.peers["stranger"].ports).fetch(JOB)


async def test_a_model_that_does_not_come_is_not_waited_for_for_ever(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_stage("settled").peers["stranger"]

    async def sleep(*_arguments: object, **_more: object) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(node.network, "fetch_blob", sleep)
    with pytest.raises(PeerUnreachable, match="job 1: its model did not come within 300 s"):
        await ModelDesk(node.ports).fetch(JOB)


async def test_peers_that_are_connected_are_asked_first_and_failures_are_told_in_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = make_stage("settled")
    node = stage.peers["stranger"]
    away = {one.peer_id for one in stage.cast.cones[:2]}
    statuses = [replace(one, connected=one.peer_id not in away) for one in node.network.peers()]
    asked: list[list[bytes]] = []

    async def note(_digest: object, *, sources: list[bytes], max_bytes: int) -> bytes:
        asked.append(sources)
        raise PeerUnreachable("no answer; " * 100)

    monkeypatch.setattr(node.network, "peers", lambda: statuses)
    monkeypatch.setattr(node.network, "fetch_blob", note)
    answer = str(await ask(node))
    assert answer.startswith("job 1: nobody who can be reached has its request any more")
    assert len(answer) < 500
    (sources,) = asked
    everybody = (*stage.cast.cones, *stage.cast.sellers, stage.cast.buyer)
    assert set(sources) == {one.peer_id for one in everybody}
    assert set(sources[-2:]) == away


async def test_a_request_that_nobody_has_any_more_is_said_to_be_gone() -> None:
    stage = make_stage("settled")
    body_hash = stage.cast.market.state.jobs[JOB].body_hash
    for node in stage.cast.market.nodes.values():
        node.store.blobs.data.pop(body_hash, None)
    with pytest.raises(PeerUnreachable, match="job 1: nobody who can be reached has its request"):
        await ModelDesk(stage.peers["stranger"].ports).fetch(JOB)


async def test_a_request_that_is_none_is_refused() -> None:
    stage = make_stage("settled")
    garbage = b"no request"
    change_job(stage, body_hash=keccak(garbage))
    stage.server.store.blobs.keep(garbage, Reference(Purpose.REQUEST, JOB))
    assert str(await ask(stage.peers["stranger"])).startswith("job 1: its request is not valid")


async def test_a_model_of_a_job_that_left_the_state_is_handed_out_too() -> None:
    stage = make_stage("settled")
    market, job = stage.cast.market, stage.cast.market.state.jobs[JOB]
    for node in market.nodes.values():
        await node.store.past.keep([(job, Tie.NONE)])
    jobs = {one: found for one, found in market.state.jobs.items() if one != JOB}
    market.state = replace(market.state, jobs=jobs, past={JobPhase.SETTLED: 1})
    assert await ask(stage.peers["stranger"]) == FILE


@dataclass
class Pair:
    """A CONE node that has the model, and a node that asks, over real sockets."""

    stage: Stage
    ports: Ports

    async def ask(self) -> bytes:
        return await ModelDesk(self.ports).fetch(JOB)


@asynccontextmanager
async def open_pair(folder: Path, asker: str, access: ModelAccess) -> AsyncIterator[Pair]:
    stage = make_stage("settled", access)
    server, node = stage.server, stage.peers[asker]
    async with (
        start_network(folder / "server", server.library) as serving,
        start_network(folder / "asker", Shelf()) as asking,
    ):
        bind(stage, server, serving)
        if asker != "stranger":
            bind(stage, node, asking)
        asking.set_address_book({serving.peer_id: serving.listening[0]})
        yield Pair(stage, replace(node.ports, network=asking, seal=asking.seal))


def bind(stage: Stage, node: Node, network: Libp2pNetwork) -> None:
    """Let the registry name a node's real peer."""
    account = node.signer.address
    stage.cast.market.apply(PeerBound(account=account, peer_id=network.peer_id, multiaddr=b""))


@pytest.mark.parametrize(
    ("asker", "access"),
    [
        ("stranger", ModelAccess.PUBLIC),
        ("seller", ModelAccess.PARTICIPANTS),
        ("buyer", ModelAccess.BUYER_ONLY),
    ],
)
async def test_a_model_is_fetched_over_the_network(
    asker: str, access: ModelAccess, tmp_path: Path
) -> None:
    async with open_pair(tmp_path, asker, access) as pair:
        assert await pair.ask() == FILE


async def test_a_peer_that_does_not_let_us_have_the_model_is_like_one_that_has_it_no_more(
    tmp_path: Path,
) -> None:
    """Here the registry names another peer of this seller: to the network it is a stranger."""
    async with open_pair(tmp_path, "seller", ModelAccess.PARTICIPANTS) as pair:
        seller = pair.stage.peers["seller"]
        account = seller.signer.address
        pair.stage.cast.market.apply(PeerBound(account=account, peer_id=b"old", multiaddr=b""))
        with pytest.raises(PeerUnreachable, match="nobody who can be reached has its model"):
            await pair.ask()
