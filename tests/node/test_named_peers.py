"""An account that names a peer which is not its own: it gets nothing, and takes nothing away.

The registry asks for no proof that a peer agrees. Whoever asks must hold the peer's key, so what an
account is allowed goes to the peer that it named, and to nobody by its word.
"""

from pathlib import Path

import pytest

from d2m_node.errors import PeerUnreachable
from d2m_node.ports import TopicPlace
from protocol.events import PeerBound
from protocol.hashing import keccak
from protocol.wire import messages as wire
from protocol.wire.topics import Topic, name_topic
from tests.support.access import ASKERS, BLOBS, POINTS, Stage
from tests.support.job import JOB, Offer
from tests.support.market import DOMAIN
from tests.support.network import Shelf, connect, start_network

LIARS = ("seller", "other cone", "elsewhere", "registered")


def lie(stage: Stage, liar: str, about: str) -> None:
    """Let an account name the peer of another."""
    account = stage.peers[liar].signer.address
    stage.cast.market.apply(
        PeerBound(account=account, peer_id=stage.peers[about].peer_id, multiaddr=b"")
    )


async def list_served(stage: Stage, asker: str) -> set[str]:
    """Return the blobs that a peer is served."""
    peer_id = stage.peers[asker].peer_id
    library = stage.server.library
    return {name for name, kept in BLOBS.items() if await library.admits(peer_id, kept.digest)}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("liar", LIARS)
async def test_a_liar_gets_no_access_and_the_peer_that_it_names_keeps_its_own(
    liar: str, point: str
) -> None:
    stage = Stage(point)
    before = {asker: await list_served(stage, asker) for asker in ASKERS}
    lie(stage, liar, about="cone")
    after = {asker: await list_served(stage, asker) for asker in ASKERS}
    assert after[liar] == after["stranger"], "its own peer speaks for no account any more"
    assert after["cone"] == before["cone"] | before[liar], "what the liar may have, it gave away"
    untouched = set(ASKERS) - {liar, "cone"}
    assert {one: after[one] for one in untouched} == {one: before[one] for one in untouched}


@pytest.mark.parametrize("liar", LIARS)
async def test_a_liar_takes_no_place_in_the_gossip_from_the_peer_that_it_names(liar: str) -> None:
    stage = Stage("first round")
    lie(stage, liar, about="cone")
    for topic in Topic:
        name = name_topic(DOMAIN, JOB, topic)
        place_in = stage.server.library.place_in
        assert place_in(name, stage.peers["cone"].peer_id) is TopicPlace.AUDIENCE
        assert place_in(name, stage.peers[liar].peer_id) is TopicPlace.OUTSIDE


async def test_many_accounts_that_name_one_peer_make_a_node_ask_it_once() -> None:
    """Who names a victim cannot multiply what others ask of it."""
    stage = Stage("first round")
    cones = stage.cast.cones
    asked: list[bytes] = []
    fetch = stage.server.network.fetch_messages

    async def count(peer_id: bytes, request: wire.MessagesRequest) -> object:
        asked.append(peer_id)
        return await fetch(peer_id, request)

    stage.server.network.fetch_messages = count  # type: ignore[assignment, method-assign]
    victim = cones[1]
    for liar in cones[2:]:
        stage.cast.market.apply(
            PeerBound(account=liar.signer.address, peer_id=victim.peer_id, multiaddr=b"")
        )
    room = stage.cast.make_room(stage.server)
    await room.gather(wire.UpdateCommit, 0, [one.signer.address for one in cones])
    assert asked == [victim.peer_id], "and never itself"


async def test_a_peer_that_lacks_what_a_liar_should_have_is_blamed_by_nobody(
    tmp_path: Path,
) -> None:
    """A seller names another's peer: its update is asked for there, in vain."""
    update = Offer(Stage("first round").cast.sellers[0], 0)
    async with (
        start_network(tmp_path / "victim", Shelf()) as victim,
        start_network(tmp_path / "cone") as cone,
    ):
        await connect(cone, victim)
        for _ in range(20):
            with pytest.raises(PeerUnreachable, match="does not have the blob"):
                await cone.fetch_blob(
                    keccak(update.data), sources=[victim.peer_id], max_bytes=len(update.data)
                )
        assert cone.conduct.penalties() == victim.conduct.penalties() == {}
