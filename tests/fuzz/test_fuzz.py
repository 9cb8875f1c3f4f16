"""A short siege of hostile frames over real sockets, and frames that are what they should be."""

from pathlib import Path

import trio

from protocol.wire.codec import decode_message
from tests.fuzz.frames import Arsenal, prefix_length
from tests.fuzz.siege import Report, Usage, run_siege
from tests.support.network import start_network


async def test_hostile_frames_on_every_protocol_harm_neither_the_node_nor_its_peers(
    tmp_path: Path,
) -> None:
    with trio.fail_after(120):
        report = await run_siege(
            tmp_path, frames=3000, seed=1, settle_seconds=0.0, say=lambda _: None
        )
    assert report.find_harm() == []
    assert report.total >= 3000
    assert report.honest_fetches >= 4


async def test_every_protocol_of_a_node_is_attacked_with_frames_of_its_own(tmp_path: Path) -> None:
    arsenal = Arsenal(1)
    async with start_network(tmp_path / "node") as node:
        for protocol in node.stack.host.get_mux().get_protocols():
            assert any(part in str(protocol) for part in arsenal.parts), protocol


def test_the_same_seed_draws_the_same_frames() -> None:
    first, second = Arsenal(7), Arsenal(7)
    for protocol in ("/d2m/blob/1", "/d2m/kad/1", "/ipfs/ping/1.0.0"):
        assert [first.draw(protocol) for _ in range(50)] == [
            second.draw(protocol) for _ in range(50)
        ]


def test_whole_frames_are_read_to_their_end() -> None:
    arsenal = Arsenal(1)
    for _ in range(100):
        frame = arsenal.draw_whole("/d2m/blob/1")
        assert prefix_length(frame[4:]) == frame
        decode_message(frame[4:])


def test_growth_and_unserved_peers_are_harm() -> None:
    usage = Usage(rss_bytes=100 * 2**20, fds=20, threads=5)
    report = Report(1, start=usage, warm=usage, end=usage)
    assert report.find_harm() == []
    report.end = Usage(rss_bytes=200 * 2**20, fds=200, threads=5)
    report.honest_failures.append("too slow")
    assert report.find_harm() == [
        "an honest peer got nothing",
        "memory grew",
        "descriptors grew",
    ]
