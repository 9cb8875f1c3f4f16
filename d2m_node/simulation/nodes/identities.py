"""Keys, peer identities and randomness of simulated nodes: all follow from a seed and a name.

Nothing here guards anything. Whoever knows the seed knows all of it.
"""

from dataclasses import dataclass

from d2m_node.keys import LocalSigner
from d2m_node.sealing import IdentitySeal
from protocol.hashing import hash_domain, word
from protocol.types import Address


class SeededEntropy:
    """`EntropyPort`: a stream that goes on where it was when its node crashed."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._drawn = 0

    def token_bytes(self, count: int, /) -> bytes:
        """Return the next bytes of the stream."""
        taken = bytearray()
        while len(taken) < count:
            taken += hash_domain("entropy", self._seed, word(self._drawn))
            self._drawn += 1
        return bytes(taken[:count])


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a simulated node is."""

    name: str
    signer: LocalSigner
    seal: IdentitySeal
    secret: bytes
    """What the node's own randomness comes from."""

    @property
    def peer_id(self) -> bytes:
        """Its name in the network."""
        return self.seal.peer_id

    @property
    def account(self) -> Address:
        """Its account on the chain."""
        return self.signer.address


def make_identity(seed: int, name: str) -> Identity:
    """Make a node's keys."""
    root = hash_domain("simulated-node", word(seed), name.encode())
    return Identity(
        name=name,
        signer=LocalSigner(hash_domain("account", root)),
        seal=IdentitySeal(hash_domain("peer", root)),
        secret=hash_domain("secret", root),
    )


def draw_between(seed: int, purpose: str, span: tuple[float, float]) -> float:
    """Draw a number of a span, for a purpose that is named once."""
    drawn = hash_domain("draw", word(seed), purpose.encode())
    share = int.from_bytes(drawn[:8], "big") / (1 << 64)
    return span[0] + share * (span[1] - span[0])
