"""Who came to which limit: counted in all and by peer, and never more than there is room for."""

from pathlib import Path

from d2m_node.client import TurnedAwayView
from d2m_node.network.counts import MAX_PEERS, NetworkCounts, PeerCounts


def test_what_is_turned_away_is_counted_in_all_and_by_peer() -> None:
    counts = NetworkCounts()
    counts.refuse("handshakes")
    counts.refuse("slow", b"one")
    counts.refuse("slow", b"other")
    counts.deny(b"one")
    counts.drop_message(b"one", "flood")
    reading = counts.read({})
    assert reading.turned_away == {
        "handshakes": 1,
        "slow": 2,
        "flood": 1,
        "outside": 0,
        "denied": 1,
    }
    assert counts.by_peer.find(b"one") == {"slow": 1, "denied": 1, "flood": 1}
    assert counts.by_peer.find(b"other") == {"slow": 1}
    assert counts.by_peer.find(b"nobody") == {}


def test_operators_are_told_what_each_count_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "NETWORK.md").read_text()
    assert all(f"| `{name}` |" in text for name in TurnedAwayView.__struct_fields__)


def test_made_up_identities_push_out_only_those_that_came_longest_ago() -> None:
    counts = PeerCounts()
    counts.note(b"flooder", "flood")
    for number in range(MAX_PEERS):
        counts.note(number.to_bytes(4, "big"), "denied")
        counts.note(b"flooder", "flood")
    assert counts.find(b"flooder") == {"flood": MAX_PEERS + 1}
    assert counts.find(bytes(4)) == {}, "the oldest is gone"
    assert counts.find(bytes([0, 0, 0, 1])) == {"denied": 1}
