"""What every `NetworkPort` promises: the one over libp2p, and the one of the simulation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from d2m_node.errors import PeerUnreachable
from d2m_node.ports import NetworkPort, Verdict
from protocol.hashing import keccak
from protocol.wire.messages import GossipMessage, MessagesRequest, ValidationReceipt
from tests.support.network import PATIENCE_SECONDS, accept, build_bitmap
from tests.support.network_ports import (
    Member,
    OpenParty,
    open_libp2p_party,
    open_simulated_party,
)

TOPIC = "d2m/1/31337/market/1/votes"
OTHER_TOPIC = "d2m/1/31337/market/1/updates"
BLOB = bytes(range(256)) * 100
DIGEST = keccak(BLOB)
BITMAPS = MessagesRequest(job_id=1, kind=3, step=0)

Channel = trio.MemoryReceiveChannel[GossipMessage]


@pytest.fixture(params=["libp2p", "simulated"])
def open_party(request: pytest.FixtureRequest, tmp_path: Path) -> OpenParty:
    is_real = request.param == "libp2p"
    return partial(open_libp2p_party if is_real else open_simulated_party, tmp_path)


async def receive(channel: Channel, count: int) -> list[int]:
    """Receive messages; return their numbers in the order of arrival."""
    with trio.fail_after(PATIENCE_SECONDS):
        return [(await channel.receive()).round_index for _ in range(count)]  # type: ignore[union-attr]


def judge_odd(verdict: Verdict) -> Callable[[GossipMessage], Verdict]:
    """Give a verdict on odd numbers, and accept the rest."""

    def judge(message: GossipMessage) -> Verdict:
        return verdict if message.round_index % 2 else Verdict.ACCEPT  # type: ignore[union-attr]

    return judge


async def fetch(port: NetworkPort, *sources: Member, max_bytes: int = len(BLOB)) -> bytes:
    with trio.fail_after(PATIENCE_SECONDS):
        return await port.fetch_blob(
            DIGEST, sources=[one.port.peer_id for one in sources], max_bytes=max_bytes
        )


# --- gossip


async def test_a_message_reaches_all_who_listen_to_its_topic_and_not_its_sender(
    open_party: OpenParty,
) -> None:
    async with (
        open_party(4) as party,
        party.ports[0].join_topic(TOPIC, accept) as own,
        party.ports[1].join_topic(TOPIC, accept) as first,
        party.ports[2].join_topic(TOPIC, accept) as second,
        party.ports[3].join_topic(OTHER_TOPIC, accept) as elsewhere,
    ):
        await party.wait_ready(TOPIC)
        await party.wait_ready(OTHER_TOPIC)
        for number in range(3):
            await party.ports[0].publish(TOPIC, build_bitmap(number))
        assert sorted(await receive(first, 3)) == [0, 1, 2]
        assert sorted(await receive(second, 3)) == [0, 1, 2]
        await party.ports[0].publish(OTHER_TOPIC, build_bitmap(3))
        assert await receive(elsewhere, 1) == [3]
        for channel in (own, first, second, elsewhere):
            with pytest.raises(trio.WouldBlock):
                channel.receive_nowait()


async def test_what_is_received_is_what_was_sent(open_party: OpenParty) -> None:
    async with open_party(2) as party, party.ports[1].join_topic(TOPIC, accept) as heard:
        await party.wait_ready(TOPIC)
        await party.ports[0].publish(TOPIC, build_bitmap(1))
        with trio.fail_after(PATIENCE_SECONDS):
            assert await heard.receive() == build_bitmap(1)


@pytest.mark.parametrize("verdict", [Verdict.REJECT, Verdict.IGNORE])
async def test_only_what_is_accepted_is_delivered_and_passed_on(
    open_party: OpenParty, verdict: Verdict
) -> None:
    """Three nodes in a line: the last one hears what the middle accepts."""
    async with (
        open_party(3, cuts=[(0, 2)]) as party,
        party.ports[1].join_topic(TOPIC, judge_odd(verdict)) as at_middle,
        party.ports[2].join_topic(TOPIC, accept) as at_end,
    ):
        await party.wait_ready(TOPIC)
        for number in (1, 2, 3, 4):
            await party.ports[0].publish(TOPIC, build_bitmap(number))
        assert await receive(at_middle, 2) == [2, 4]
        assert await receive(at_end, 2) == [2, 4]
        verdicts = party.members[1].measure().verdicts
        assert verdicts == {"accept": 2, verdict.value: 2}


async def test_whose_messages_are_rejected_is_banned_and_served_no_more(
    open_party: OpenParty,
) -> None:
    async with (
        open_party(2, max_penalty=2.5, dial_seconds=1.0) as party,
        party.ports[1].join_topic(TOPIC, judge_odd(Verdict.REJECT)),
    ):
        hostile, honest = party.members
        hostile.shelf.blobs[DIGEST] = honest.shelf.blobs[DIGEST] = BLOB
        await party.wait_ready(TOPIC)
        for number in (1, 3, 5):
            await hostile.port.publish(TOPIC, build_bitmap(number))
        with trio.fail_after(PATIENCE_SECONDS):
            while honest.measure().bans == 0:  # noqa: ASYNC110 - nobody else waits for this
                await trio.sleep(0.01)
        (status,) = honest.port.peers()
        assert status.peer_id == hostile.port.peer_id
        assert status.last_error is not None
        assert "AvailabilityBitmap against the rules" in status.last_error
        with pytest.raises(PeerUnreachable, match="banned"):
            await fetch(honest.port, hostile)
        with pytest.raises(PeerUnreachable):
            await fetch(hostile.port, honest)


async def test_whose_messages_are_ignored_is_not_blamed(open_party: OpenParty) -> None:
    async with (
        open_party(2, max_penalty=1.0) as party,
        party.ports[1].join_topic(TOPIC, judge_odd(Verdict.IGNORE)) as heard,
    ):
        await party.wait_ready(TOPIC)
        for number in (1, 3, 5, 6):
            await party.ports[0].publish(TOPIC, build_bitmap(number))
        assert await receive(heard, 1) == [6]
        assert party.members[1].measure().faults == 0


async def test_a_full_channel_drops_the_oldest(open_party: OpenParty) -> None:
    async with open_party(2, queue_length=3) as party:
        arrived = trio.Event()

        def judge(message: GossipMessage) -> Verdict:
            if message.round_index == 9:  # type: ignore[union-attr]
                arrived.set()
            return Verdict.ACCEPT

        async with party.ports[1].join_topic(TOPIC, judge) as heard:
            await party.wait_ready(TOPIC)
            for number in range(10):
                await party.ports[0].publish(TOPIC, build_bitmap(number))
            with trio.fail_after(PATIENCE_SECONDS):
                await arrived.wait()
            assert await receive(heard, 3) == [7, 8, 9]
            assert party.members[1].measure().dropped == 7


async def test_two_roles_of_one_node_judge_for_themselves(open_party: OpenParty) -> None:
    async with (
        open_party(2) as party,
        party.ports[1].join_topic(TOPIC, accept) as as_buyer,
        party.ports[1].join_topic(TOPIC, lambda _: Verdict.IGNORE) as as_seller,
    ):
        await party.wait_ready(TOPIC)
        await party.ports[0].publish(TOPIC, build_bitmap(1))
        assert await receive(as_buyer, 1) == [1]
        with pytest.raises(trio.WouldBlock):
            as_seller.receive_nowait()
        assert party.members[1].measure().verdicts == {"accept": 1}


async def test_a_topic_can_be_left_and_joined_again(open_party: OpenParty) -> None:
    async with open_party(2) as party:
        for number in (1, 2):
            async with party.ports[1].join_topic(TOPIC, accept) as heard:
                await party.wait_ready(TOPIC)
                await party.ports[0].publish(TOPIC, build_bitmap(number))
                assert await receive(heard, 1) == [number]


# --- blobs


async def test_a_blob_comes_from_the_first_source_that_has_it(open_party: OpenParty) -> None:
    async with open_party(3) as party:
        asker, without, source = party.members
        source.shelf.blobs[DIGEST] = BLOB
        assert await fetch(asker.port, without, source) == BLOB
        with pytest.raises(PeerUnreachable, match="does not have"):
            await fetch(asker.port, without)
        assert asker.measure().faults == 0


async def test_a_source_of_wrong_bytes_is_blamed_and_the_next_one_used(
    open_party: OpenParty,
) -> None:
    async with open_party(3) as party:
        asker, liar, source = party.members
        liar.shelf.blobs[DIGEST] = BLOB[:-1] + b"x"
        source.shelf.blobs[DIGEST] = BLOB
        assert await fetch(asker.port, liar, source) == BLOB
        assert asker.measure().faults == 1
        with pytest.raises(PeerUnreachable, match="wrong bytes"):
            await fetch(asker.port, liar)


async def test_a_blob_is_refused_to_whom_the_library_refuses_it(open_party: OpenParty) -> None:
    async with open_party(2) as party:
        asker, source = party.members
        source.shelf.blobs[DIGEST] = BLOB
        source.shelf.refused.add(asker.port.peer_id)
        with pytest.raises(PeerUnreachable, match="not for us"):
            await fetch(asker.port, source)
        source.shelf.refused.clear()
        assert await fetch(asker.port, source) == BLOB


async def test_a_blob_above_the_limit_is_not_taken_and_nobody_is_blamed(
    open_party: OpenParty,
) -> None:
    """Not even its honest source: a stranger may have named a blob of another kind."""
    async with open_party(2) as party:
        asker, source = party.members
        source.shelf.blobs[DIGEST] = BLOB
        with pytest.raises(PeerUnreachable, match=f"at most {len(BLOB) - 1} are allowed"):
            await fetch(asker.port, source, max_bytes=len(BLOB) - 1)
        assert asker.measure().faults == 0


async def test_a_blob_without_sources_is_unreachable(open_party: OpenParty) -> None:
    async with open_party(1) as party:
        with pytest.raises(PeerUnreachable, match="no source"):
            await fetch(party.ports[0])


# --- messages


async def test_the_messages_of_a_step_are_pulled(open_party: OpenParty) -> None:
    async with open_party(2) as party:
        asker, source = party.members
        source.shelf.messages = [build_bitmap(number) for number in range(256)]
        found = await asker.port.fetch_messages(source.port.peer_id, BITMAPS)
        assert list(found) == source.shelf.messages
        assert source.shelf.asked == [BITMAPS]


async def test_no_more_than_a_batch_is_pulled(open_party: OpenParty) -> None:
    async with open_party(2) as party:
        asker, source = party.members
        source.shelf.messages = [build_bitmap(number) for number in range(600)]
        found = await asker.port.fetch_messages(source.port.peer_id, BITMAPS)
        assert list(found) == source.shelf.messages[:512]


async def test_who_answers_what_was_not_asked_for_is_blamed(open_party: OpenParty) -> None:
    async with open_party(2) as party:
        asker, source = party.members
        receipt = ValidationReceipt(job_id=1, part=0, cone_index=0, signature=bytes(65))
        source.shelf.messages = [build_bitmap(1), receipt]
        with pytest.raises(PeerUnreachable, match="ValidationReceipt was not asked for"):
            await asker.port.fetch_messages(source.port.peer_id, BITMAPS)
        assert asker.measure().faults == 1


# --- peers


async def test_a_peer_that_has_ended_is_unreachable(open_party: OpenParty) -> None:
    async with open_party(2, dial_seconds=1.0) as party:
        asker, source = party.members
        source.shelf.blobs[DIGEST] = BLOB
        assert [one.connected for one in asker.port.peers()] == [True]
        await source.stop()
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(PeerUnreachable):
            await asker.port.fetch_messages(source.port.peer_id, BITMAPS)
        with pytest.raises(PeerUnreachable):
            await fetch(asker.port, source)
        assert [one.connected for one in asker.port.peers()] == [False]


async def test_a_peer_that_was_never_there_is_unreachable(open_party: OpenParty) -> None:
    async with open_party(2) as party:
        asker, source = party.members
        source.shelf.blobs[DIGEST] = BLOB
        stranger = b"\x12\x20" + bytes(32)
        with pytest.raises(PeerUnreachable):
            await asker.port.fetch_messages(stranger, BITMAPS)
        sources = [stranger, source.port.peer_id]
        assert await asker.port.fetch_blob(DIGEST, sources=sources, max_bytes=len(BLOB)) == BLOB
