"""Accounts that name peers are kept in the order in which they did."""

from collections.abc import Iterable

from protocol.events import PeerBound, RecordedEvent
from protocol.market import MarketState, Peer, apply_event
from protocol.types import Address, BlockNumber

OLDEST, OWNER, OTHER = (Address(bytes([one]) * 20) for one in range(1, 4))


def fold(events: Iterable[tuple[Address, bytes, bytes]]) -> MarketState:
    state = MarketState()
    for account, peer_id, multiaddr in events:
        event = PeerBound(account=account, peer_id=peer_id, multiaddr=multiaddr)
        recorded = RecordedEvent(
            block_number=BlockNumber(1), log_index=0, transaction_hash=bytes(32), event=event
        )
        state = apply_event(state, recorded)
    return state


FIRST = ((OLDEST, b"x", b""), (OWNER, b"y", b""), (OTHER, b"z", b""))


def test_who_names_another_peer_than_before_comes_last() -> None:
    """However old its account is: it cannot come before whose peer it copies."""
    state = fold([*FIRST, (OLDEST, b"y", b"somewhere")])
    assert list(state.peers) == [OWNER, OTHER, OLDEST]
    assert state.peers[OLDEST] == Peer(b"y", b"somewhere")


def test_who_moves_with_its_peer_keeps_its_place() -> None:
    state = fold([*FIRST, (OWNER, b"y", b"elsewhere")])
    assert list(state.peers) == [OLDEST, OWNER, OTHER]
    assert state.peers[OWNER] == Peer(b"y", b"elsewhere")


def test_an_account_names_one_peer_the_last_one() -> None:
    state = fold([*FIRST, (OWNER, b"w", b"")])
    assert state.peers[OWNER].peer_id == b"w"
    assert state.accounts_of_peer(b"y") == frozenset()
