"""Rules of access between real hosts: what a peer may have follows from its key and the chain."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from d2m_node.errors import PeerUnreachable
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.roles.sealed_states import WantedState, fetch_sealed
from protocol.events import PeerBound
from protocol.hashing import keccak
from protocol.request import ModelAccess
from protocol.types import Digest
from protocol.wire import messages as wire
from tests.support.access import ASKERS, BLOBS, PARAMETERS, Stage
from tests.support.job import JOB, Offer
from tests.support.network import start_network

NOWHERE = keccak(b"nowhere")


@dataclass
class Town:
    """A CONE node that serves, and one host for each kind of asker."""

    stage: Stage
    server: Libp2pNetwork
    hosts: dict[str, Libp2pNetwork]

    async def ask(self, asker: str, digest: Digest) -> bytes | str:
        """Return what a host gets, or what it is told."""
        try:
            return await self.hosts[asker].fetch_blob(
                digest, sources=[self.server.peer_id], max_bytes=100
            )
        except PeerUnreachable as error:
            return str(error).replace(digest.hex(), "that")


@asynccontextmanager
async def open_town(
    folder: Path, point: str, model_access: ModelAccess = ModelAccess.PARTICIPANTS
) -> AsyncIterator[Town]:
    """Start real hosts, and let the registry name all but the stranger's."""
    stage = Stage(point, model_access)
    async with AsyncExitStack() as all_of_them:
        server = await all_of_them.enter_async_context(
            start_network(folder / "server", stage.server.library)
        )
        hosts = {}
        for asker in ASKERS:
            host = await all_of_them.enter_async_context(start_network(folder / asker))
            host.set_address_book({server.peer_id: server.listening[0]})
            hosts[asker] = host
            if asker != "stranger":
                account = stage.peers[asker].signer.address
                stage.cast.market.apply(
                    PeerBound(account=account, peer_id=host.peer_id, multiaddr=b"")
                )
        yield Town(stage, server, hosts)


@pytest.mark.parametrize(
    ("point", "name", "expected"),
    [
        ("second round", "request", set(ASKERS)),
        ("second round", "update", {"cone", "other cone"}),
        ("second round", "validation", {"cone", "other cone"}),
        ("second round", "parameters", {"cone", "other cone", "seller"}),
        ("ended", "parameters", {"cone", "other cone", "buyer"}),
        ("ended", "model", set()),
    ],
)
async def test_only_those_whom_the_table_names_get_a_blob_over_a_socket(
    tmp_path: Path, point: str, name: str, expected: set[str]
) -> None:
    kept = BLOBS[name]
    async with open_town(tmp_path, point) as town:
        answers = {asker: await town.ask(asker, kept.digest) for asker in ASKERS}
        absent = {await town.ask(asker, NOWHERE) for asker in ASKERS}
        denied = town.server.measure().denied
        told = {peer.peer_id: peer.turned_away.get("denied", 0) for peer in town.server.peers()}
    assert {asker for asker, answer in answers.items() if answer == kept.data} == expected
    refused = {asker: 1 + (answer != kept.data) for asker, answer in answers.items()}
    assert {one: told[host.peer_id] for one, host in town.hosts.items()} == refused
    told_apart = {answer for answer in answers.values() if answer != kept.data}
    assert len(absent) == 1
    assert told_apart <= absent, "a refusal must not tell that the blob is here"
    assert denied == 2 * len(ASKERS) - len(expected)


async def test_gossip_is_pulled_by_the_pool_alone_over_a_socket(tmp_path: Path) -> None:
    request = wire.MessagesRequest(job_id=JOB, kind=1, step=0)
    async with open_town(tmp_path, "first round") as town:
        room = town.stage.cast.make_room(town.stage.server)
        room._keep(Offer(town.stage.cast.sellers[2], 2).commit)
        found = {
            asker: await host.fetch_messages(town.server.peer_id, request)
            for asker, host in town.hosts.items()
        }
    assert {asker for asker, messages in found.items() if messages} == {"cone", "other cone"}


async def test_a_sealed_state_is_opened_over_a_socket_by_who_may_have_it(tmp_path: Path) -> None:
    state = WantedState(job_id=JOB, round_index=0, digest=keccak(PARAMETERS), max_bytes=1000)
    opened = set()
    async with open_town(tmp_path, "second round", ModelAccess.BUYER_ONLY) as town:
        for asker, host in town.hosts.items():
            own = town.stage.peers[asker].ports
            ports = replace(own, network=host, seal=host.seal)
            try:
                assert await fetch_sealed(ports, state, [town.server.peer_id]) == PARAMETERS
            except PeerUnreachable:
                continue
            opened.add(asker)
        clear = {await town.ask(asker, state.digest) for asker in ASKERS}
        absent = {await town.ask(asker, NOWHERE) for asker in ASKERS}
    assert opened == {"cone", "other cone", "seller"}
    assert clear == absent, "not even the pool has it in the clear"
