"""Who is offered which message: those that may lack it, and not again and again.

Stock offers each message for some heartbeats to all neighbours outside the mesh, on both sides of
each connection. With small meshes that is more traffic than the messages themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from libp2p.peer.id import ID

MAX_OFFERS: Final = 2
"""Of one message to one peer: the second is for who did not get what it asked for."""

_HAS_IT: Final = MAX_OFFERS


class Offers:
    """How often each peer was offered each message that is still kept."""

    def __init__(self, is_kept: Callable[[bytes], bool]) -> None:
        """``is_kept`` tells whether a message is still there to be offered."""
        self._is_kept = is_kept
        self._offered: dict[bytes, dict[ID, int]] = {}

    def note_has(self, peer_id: ID, message_ids: Iterable[bytes]) -> None:
        """Note that a peer has messages: it sent or offered them. Others than ours do not count."""
        for message_id in message_ids:
            if self._is_kept(message_id):
                self._offered.setdefault(message_id, {})[peer_id] = _HAS_IT

    def choose(self, peer_id: ID, message_ids: Sequence[bytes]) -> list[bytes]:
        """Return those of the messages that are worth an offer to a peer, and count them."""
        chosen = []
        for message_id in message_ids:
            offered = self._offered.setdefault(message_id, {})
            if offered.get(peer_id, 0) < MAX_OFFERS:
                offered[peer_id] = offered.get(peer_id, 0) + 1
                chosen.append(message_id)
        return chosen

    def forget_old(self) -> None:
        """Forget messages that are not kept any more."""
        self._offered = {one: told for one, told in self._offered.items() if self._is_kept(one)}
