"""The simulated network: who hears what and when, from the seed alone, whatever fails."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from d2m_node.errors import PeerUnreachable, StreamTimeout, UserError
from d2m_node.logs import current_log_scope, log_scope
from d2m_node.ports import Verdict
from d2m_node.simulation.network.courier import Whisper
from d2m_node.simulation.network.fabric import open_fabric
from d2m_node.simulation.network.links import LIMITS, FabricOptions
from d2m_node.simulation.world.virtual_time import run_in_virtual_time
from protocol.hashing import keccak
from protocol.wire.codec import encode_message
from protocol.wire.messages import GossipMessage, MessagesRequest
from tests.support.elsewhere import run_elsewhere
from tests.support.fabric import TOPIC, Listener, open_listeners
from tests.support.network import Shelf, accept, build_bitmap

BLOB = bytes(range(256)) * 400
DIGEST = keccak(BLOB)
BITMAPS = MessagesRequest(job_id=1, kind=3, step=0)
MESSAGE_BYTES = len(encode_message(build_bitmap(0)))


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test under the clock of the simulation."""

    def run() -> None:
        run_in_virtual_time(test, seed=1)

    run.__name__ = test.__name__
    return run


# --- one seed, one run


async def gossip_at_random(seed: int) -> list[tuple[bytes, float, int]]:
    """Let twelve nodes gossip, crash and come back; return all that was heard, in order."""
    chance = random.Random(7)
    heard: list[tuple[bytes, float, int]] = []
    options = {"seed": seed, "loss": 0.1, "duplicate": 0.1, "jitter_seconds": 0.05}

    async def talk(listener: Listener, first: int) -> None:
        for number in range(first, first + 5):
            await trio.sleep(chance.uniform(0, 0.5))
            await listener.port.publish(TOPIC, build_bitmap(number))

    async with open_listeners("abcdefghijkl", **options) as (fabric, listeners):
        async with trio.open_nursery() as nursery:
            for position, listener in enumerate(listeners):
                listener.heard = Tagged(listener.name, heard)
                nursery.start_soon(talk, listener, 100 * position)
            await trio.sleep(0.7)
            fabric.partition([{b"a", b"b", b"c", b"d"}, {b"e", b"f"}])
            listeners[11].crash()
            await trio.sleep(0.7)
            fabric.heal()
        await trio.sleep(2)
    return heard


class Tagged(list[tuple[float, int]]):
    """What one node hears, noted in a list of all."""

    def __init__(self, name: bytes, heard: list[tuple[bytes, float, int]]) -> None:
        super().__init__()
        self.name, self.all = name, heard

    def append(self, entry: tuple[float, int]) -> None:
        self.all.append((self.name, *entry))


def test_the_same_seed_gives_the_same_deliveries_in_the_same_order() -> None:
    first = run_in_virtual_time(gossip_at_random, 1, seed=1)
    assert len(first) > 300
    assert run_in_virtual_time(gossip_at_random, 1, seed=1) == first
    assert run_in_virtual_time(gossip_at_random, 2, seed=1) != first


def test_deliveries_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    script = (
        "from d2m_node.simulation.world.virtual_time import run_in_virtual_time\n"
        "from tests.simulation.test_fabric import gossip_at_random\n"
        "print(run_in_virtual_time(gossip_at_random, 1, seed=1))"
    )
    assert run_elsewhere(script) == f"{run_in_virtual_time(gossip_at_random, 1, seed=1)}\n"


# --- gossip


@in_virtual_time
async def test_each_pair_of_nodes_has_a_delay_of_its_own_the_same_both_ways() -> None:
    async with open_listeners("abc", tick_seconds=1e-6) as (_, (a, b, c)):
        await a.port.publish(TOPIC, build_bitmap(1))
        await b.port.publish(TOPIC, build_bitmap(2))
        await trio.sleep(1)
    assert a.heard[0][0] == b.heard[0][0]
    (from_a, _), (from_b, _) = sorted(c.heard, key=lambda one: one[1])
    assert len({a.heard[0][0], from_a, from_b}) == 3
    assert all(0.02 <= time <= 0.201 for time in (a.heard[0][0], from_a, from_b))


@in_virtual_time
async def test_messages_of_one_node_stay_in_order_and_keep_the_daemons_pause() -> None:
    async with open_listeners("ab") as (_, (a, b)):
        for number in range(100):
            await a.port.publish(TOPIC, build_bitmap(number))
        assert a.port.measure().queue_lengths["publish"] == 100
        await trio.sleep(1)
    assert b.numbers == list(range(100))
    took = b.heard[-1][0] - b.heard[0][0]
    assert took == pytest.approx(99 * LIMITS.publish_pause_seconds, abs=0.005)


@in_virtual_time
async def test_publishing_waits_while_the_queue_is_full() -> None:
    limits = replace(LIMITS, publish_queue_length=10, publish_pause_seconds=1.0)
    async with open_listeners("ab", limits=limits) as (_, (a, b)):
        for number in range(15):
            await a.port.publish(TOPIC, build_bitmap(number))
        assert trio.current_time() == pytest.approx(4.0)
        await trio.sleep(20)
        assert b.numbers == list(range(15))


async def count_losses(loss: float) -> list[int]:
    async with open_listeners("ab", loss=loss) as (_, (a, b)):
        for number in range(1000):
            await a.port.publish(TOPIC, build_bitmap(number))
        await trio.sleep(5)
    return sorted(set(range(1000)) - set(b.numbers))


def test_so_many_messages_are_lost_as_chance_says() -> None:
    lost = run_in_virtual_time(count_losses, 0.2, seed=1)
    assert 150 < len(lost) < 250
    assert run_in_virtual_time(count_losses, 0.2, seed=2) == lost, "tasks ran in another order"
    assert run_in_virtual_time(count_losses, 0.0, seed=1) == []
    assert len(run_in_virtual_time(count_losses, 1.0, seed=1)) == 1000


@in_virtual_time
async def test_a_doubled_message_is_judged_twice() -> None:
    async with open_listeners("ab", duplicate=1.0) as (_, (a, b)):
        await a.port.publish(TOPIC, build_bitmap(1))
        await trio.sleep(1)
    assert b.numbers == [1, 1]


@in_virtual_time
async def test_jitter_lets_messages_overtake_each_other() -> None:
    async with open_listeners("ab", jitter_seconds=0.5) as (_, (a, b)):
        for number in range(50):
            await a.port.publish(TOPIC, build_bitmap(number))
        await trio.sleep(2)
    assert sorted(b.numbers) == list(range(50))
    assert b.numbers != list(range(50))


@in_virtual_time
async def test_a_partition_divides_until_it_heals_and_what_was_said_is_not_said_again() -> None:
    async with open_listeners("abcd") as (fabric, (a, b, c, d)):
        fabric.partition([{b"a", b"b"}])
        await a.port.publish(TOPIC, build_bitmap(1))
        await c.port.publish(TOPIC, build_bitmap(2))
        await trio.sleep(1)
        assert (b.numbers, c.numbers, d.numbers) == ([1], [], [2])
        fabric.heal()
        await a.port.publish(TOPIC, build_bitmap(3))
        await trio.sleep(1)
        assert (b.numbers, c.numbers, d.numbers) == ([1, 3], [3], [2, 3])


@in_virtual_time
async def test_what_is_on_its_way_does_not_arrive_over_a_partition() -> None:
    async with open_listeners("ab") as (fabric, (a, b)):
        await a.port.publish(TOPIC, build_bitmap(1))
        fabric.partition([{b"a"}])
        await trio.sleep(1)
    assert b.numbers == []


@in_virtual_time
async def test_gossip_goes_round_a_cut_link_once() -> None:
    async with open_listeners("abcd") as (fabric, (a, b, c, d)):
        fabric.set_link(b"a", b"b", is_cut=True)
        await a.port.publish(TOPIC, build_bitmap(1))
        await trio.sleep(1)
        assert (b.numbers, c.numbers, d.numbers) == ([1], [1], [1])
        assert b.heard[0][0] > min(c.heard[0][0], d.heard[0][0])
        fabric.set_link(b"a", b"b")
        await a.port.publish(TOPIC, build_bitmap(2))
        await trio.sleep(1)
        assert b.numbers == [1, 2]


@in_virtual_time
async def test_a_link_cut_on_the_way_is_gone_round_from_whoever_has_the_message() -> None:
    async with open_listeners("abc") as (fabric, (a, b, c)):
        fabric.set_link(b"a", b"b", delay_seconds=0.5)
        await a.port.publish(TOPIC, build_bitmap(1))
        await trio.sleep(0.3)
        fabric.set_link(b"a", b"b", is_cut=True)
        await trio.sleep(1)
        assert (b.numbers, c.numbers) == ([1], [1])


@in_virtual_time
async def test_one_link_may_be_slower_and_lose_more_than_others() -> None:
    async with open_listeners("abc") as (fabric, (a, b, c)):
        fabric.set_link(b"a", b"b", delay_seconds=3.0)
        fabric.set_link(b"c", b"a", loss=1.0)
        await a.port.publish(TOPIC, build_bitmap(1))
        await trio.sleep(4)
        assert b.heard == [(3.0, 1)]
        assert c.numbers == []


@in_virtual_time
async def test_a_full_channel_drops_the_oldest() -> None:
    limits = replace(LIMITS, queue_length=3)
    async with (
        open_listeners("ab", limits=limits) as (_, (a, b)),
        b.port.join_topic(TOPIC, accept) as channel,
    ):
        for number in range(10):
            await a.port.publish(TOPIC, build_bitmap(number))
        await trio.sleep(1)
        assert [channel.receive_nowait().round_index for _ in range(3)] == [7, 8, 9]  # type: ignore[union-attr]
        reading = b.port.measure()
        assert reading.queue_limits["deliver"] == reading.queue_lengths["deliver"] == 3
        assert reading.dropped == 14, "its own subscription reads nothing either"


@in_virtual_time
async def test_rules_run_in_the_log_scope_of_whoever_joined() -> None:
    seen = []

    def judge(_: GossipMessage) -> Verdict:
        seen.append(current_log_scope())
        return Verdict.ACCEPT

    async with open_listeners("ab") as (_, (a, b)):
        with log_scope(job=7):
            async with b.port.join_topic(TOPIC, judge):
                await a.port.publish(TOPIC, build_bitmap(1))
                await trio.sleep(1)
    assert seen == [{"job": 7}]


def test_rules_that_raise_end_the_run() -> None:
    def fail(number: int) -> Verdict:
        raise ZeroDivisionError(number)

    async def run() -> None:
        async with open_listeners("ab") as (_, (a, b)):
            b.judge = fail
            await a.port.publish(TOPIC, build_bitmap(1))
            await trio.sleep(1)

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        run_in_virtual_time(run, seed=1)


# --- hostile nodes


@in_virtual_time
async def test_a_hostile_node_sends_what_it_likes_instead() -> None:
    def twist(topic: str, message: GossipMessage) -> Sequence[GossipMessage]:
        assert topic == TOPIC
        number = message.round_index  # type: ignore[union-attr]
        return [build_bitmap(number + 100), build_bitmap(number + 200)] if number else []

    async with open_listeners("ab", hostile=twist) as (_, (a, b)):
        await a.port.publish(TOPIC, build_bitmap(0))
        await a.port.publish(TOPIC, build_bitmap(1))
        await b.port.publish(TOPIC, build_bitmap(2))
        await trio.sleep(1)
        assert (a.numbers, b.numbers) == ([2], [101, 201])


@in_virtual_time
async def test_both_sides_of_an_equivocation_get_round_if_they_are_accepted() -> None:
    def equivocate(_: str, message: GossipMessage) -> Sequence[Whisper]:
        return [Whisper(build_bitmap(1), {b"b"}), Whisper(build_bitmap(2), {b"c", b"d"})]

    async with open_listeners("abcd", hostile=equivocate) as (_, (a, b, c, d)):
        d.judge = lambda number: Verdict.IGNORE if number == 1 else Verdict.ACCEPT
        await a.port.publish(TOPIC, build_bitmap(0))
        await trio.sleep(1)
        assert (b.numbers, c.numbers, d.numbers) == ([1, 2], [2, 1], [2, 1])


@in_virtual_time
async def test_who_ignores_a_message_does_not_pass_it_on() -> None:
    def whisper(_: str, message: GossipMessage) -> Sequence[Whisper]:
        return [Whisper(message, {b"b"})]

    async with open_listeners("abc", hostile=whisper) as (_, (a, b, c)):
        b.judge = lambda _: Verdict.IGNORE
        await a.port.publish(TOPIC, build_bitmap(0))
        await trio.sleep(1)
        assert (b.numbers, c.numbers) == ([0], [])


@in_virtual_time
async def test_who_breaks_the_codec_or_the_rules_is_banned_and_comes_back_in_time() -> None:
    async with open_listeners("abc") as (_, (a, b, c)):
        a.port._outgoing = lambda _, message: [  # as `adversaries` would
            build_bitmap(message.round_index - 1)  # type: ignore[union-attr]
        ]
        b.judge = lambda number: Verdict.REJECT if number < 7 else Verdict.ACCEPT
        for number in (0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
            await a.port.publish(TOPIC, build_bitmap(number))
        await trio.sleep(2)
        reading = b.port.measure()
        # Four with a number below zero, and seven against the rules. The first ones fade a little.
        assert (reading.faults, reading.bans) == (11, 1)
        # What it says after that comes by those who accept it.
        assert b.numbers == [0, 1, 2, 3, 4, 5, 6, 7, 8]
        assert c.port.measure().bans == 0
        b.port.set_address_book({b"a": "somewhere"})
        (status,) = b.port.peers()
        assert not status.connected
        assert status.last_error is not None
        assert "against the rules" in status.last_error
        with pytest.raises(PeerUnreachable, match="banned"):
            await b.port.fetch_messages(b"a", BITMAPS)
        with pytest.raises(PeerUnreachable, match="takes no connection"):
            await a.port.fetch_messages(b"b", BITMAPS)
        await trio.sleep(LIMITS.ban_seconds)
        assert list(await b.port.fetch_messages(b"a", BITMAPS)) == []


# --- crashes


@in_virtual_time
async def test_a_node_that_was_gone_hears_what_is_said_after_it_is_back() -> None:
    async with open_listeners("ab") as (fabric, (a, b)), trio.open_nursery() as nursery:
        await a.port.publish(TOPIC, build_bitmap(1))
        b.crash()
        await trio.sleep(1)
        again = Listener(b"b", fabric)
        await nursery.start(again.run)
        await trio.sleep(1)
        await a.port.publish(TOPIC, build_bitmap(2))
        await trio.sleep(1)
        assert (b.numbers, again.numbers) == ([], [2])
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_what_a_crashed_node_had_queued_is_never_sent_and_the_rest_arrives() -> None:
    limits = replace(LIMITS, publish_pause_seconds=1.0)
    async with open_listeners("ab", limits=limits) as (_, (a, b)):
        for number in range(5):
            await a.port.publish(TOPIC, build_bitmap(number))
        await trio.sleep(2.0001)
        a.crash()
        await trio.sleep(10)
    assert b.numbers == [0, 1, 2]


@in_virtual_time
async def test_a_node_cannot_be_there_twice() -> None:
    async with open_fabric(FabricOptions(seed=1)) as fabric, fabric.open_port(b"a", Shelf()):
        with pytest.raises(ValueError, match="connected already"):
            async with fabric.open_port(b"a", Shelf()):
                pass


# --- streams


async def fetch(asker: Listener, *sources: bytes) -> tuple[float, bytes]:
    """Fetch the blob; return the time it took, too."""
    started_at = trio.current_time()
    blob = await asker.port.fetch_blob(DIGEST, sources=sources, max_bytes=len(BLOB))
    return trio.current_time() - started_at, blob


@in_virtual_time
async def test_a_blob_takes_a_way_there_and_back() -> None:
    async with open_listeners("ab") as (fabric, (a, b)):
        fabric.set_link(b"a", b"b", delay_seconds=0.25)
        b.shelf.blobs[DIGEST] = BLOB
        assert await fetch(a, b"b") == (0.5, BLOB)
        assert b.port.measure().sent_bytes == {"blobs": len(BLOB)}
        assert a.port.measure().received_bytes == {"blobs": len(BLOB)}


@in_virtual_time
async def test_all_who_fetch_from_one_node_share_its_upload() -> None:
    async with open_listeners("abc", bytes_per_second=len(BLOB), delay_seconds=(0.0, 0.0)) as (
        _,
        (a, b, c),
    ):
        c.shelf.blobs[DIGEST] = BLOB
        times = []

        async def note(asker: Listener) -> None:
            times.append((await fetch(asker, b"c"))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, a)
            nursery.start_soon(note, b)
    # By turns, a piece each: both are done at the end of what both have asked for.
    pieces = -(-len(BLOB) // (16 * 1024))
    assert max(times) == pytest.approx(2 * (1 - 1 / (2 * pieces)), abs=0.15)
    assert min(times) > 1.7


@in_virtual_time
async def test_a_node_behind_a_cut_does_not_answer_and_the_next_source_is_used() -> None:
    async with open_listeners("abc") as (fabric, (a, _, c)):
        c.shelf.blobs[DIGEST] = BLOB
        fabric.partition([{b"b"}])
        took, blob = await fetch(a, b"b", b"c")
        assert blob == BLOB
        assert LIMITS.dial_seconds < took < LIMITS.dial_seconds + 1
        with pytest.raises(PeerUnreachable, match="does not answer"):
            await a.port.fetch_messages(b"b", BITMAPS)


@in_virtual_time
async def test_a_stream_times_out_if_its_link_is_cut() -> None:
    async with open_listeners("ab") as (fabric, (a, _)):
        fabric.set_link(b"a", b"b", delay_seconds=1.0)

        async def cut() -> None:
            await trio.sleep(1.5)
            fabric.partition([{b"a"}])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            with pytest.raises(StreamTimeout):
                await a.port.fetch_messages(b"b", BITMAPS)
        assert trio.current_time() == 2 + LIMITS.io_seconds


@in_virtual_time
async def test_a_stream_breaks_when_its_server_crashes() -> None:
    async with open_listeners("abc", bytes_per_second=1000) as (_, (a, b, c)):
        b.shelf.blobs[DIGEST] = c.shelf.blobs[DIGEST] = BLOB

        async def crash() -> None:
            await trio.sleep(50)
            b.crash()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            took, blob = await fetch(a, b"b", b"c")
        assert blob == BLOB
        assert 50 + 80 < took < 50 + len(BLOB) / 1000 + 1
        with pytest.raises(PeerUnreachable, match="takes no connection"):
            await a.port.fetch_messages(b"b", BITMAPS)


@in_virtual_time
async def test_a_hostile_answer_is_no_answer_and_held_against_its_sender() -> None:
    async with open_listeners("ab") as (_, (a, b)):
        b.shelf.messages = [build_bitmap(1), build_bitmap(-1)]
        with pytest.raises(PeerUnreachable, match="no message of this protocol"):
            await a.port.fetch_messages(b"b", BITMAPS)
        assert a.port.measure().faults == 1


# --- counts and options


@in_virtual_time
async def test_no_peer_is_in_two_groups_of_a_partition() -> None:
    async with open_listeners("ab") as (fabric, _):
        with pytest.raises(ValueError, match="two groups"):
            fabric.partition([{b"a", b"b"}, {b"b"}])


@in_virtual_time
async def test_traffic_is_counted_by_kind_and_topic() -> None:
    async with open_listeners("abc") as (fabric, (a, b, c)):
        b.shelf.blobs[DIGEST] = BLOB
        b.shelf.messages = [build_bitmap(1), build_bitmap(2)]
        await a.port.publish(TOPIC, build_bitmap(1))
        await c.port.publish("elsewhere", build_bitmap(1))
        await fetch(a, b"b")
        await a.port.fetch_messages(b"b", BITMAPS)
        await trio.sleep(1)
        traffic = fabric.traffic
        assert traffic.messages == {
            ("gossip", TOPIC): 2,
            ("gossip", "elsewhere"): 0,
            ("blobs", ""): 1,
            ("messages", ""): 1,
        }
        assert traffic.bytes == {
            ("gossip", TOPIC): 2 * MESSAGE_BYTES,
            ("gossip", "elsewhere"): 0,
            ("blobs", ""): len(BLOB),
            ("messages", ""): 2 * MESSAGE_BYTES,
        }
        assert traffic.published == {"AvailabilityBitmap": 2}
        assert a.port.measure().sent_bytes == {"gossip": MESSAGE_BYTES}
        assert b.port.measure().verdicts == {"accept": 1}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"delay_seconds": (0.2, 0.1)}, "delay_seconds: 0.2 to 0.1 is no range"),
        ({"loss": 1.5}, "loss: 1.5 is no chance"),
        ({"duplicate": -0.1}, "duplicate: -0.1 is no chance"),
        ({"tick_seconds": 0.0}, "tick_seconds must be positive"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        FabricOptions(seed=1, **options)
