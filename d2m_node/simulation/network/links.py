"""Who can speak to whom in a simulated network, how long it takes, and what gets lost.

All chance is a function of the seed and of what it is about, never of the order in which tasks run:
two runs that send the same messages lose the same ones.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from d2m_node.errors import UserError
from d2m_node.network.settings import NetworkSettings

LIMITS: Final = NetworkSettings(identity_path=Path(), listen="")
"""What a daemon allows its peers, by default."""

_WORD: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricOptions:
    """How a simulated network behaves."""

    seed: int
    delay_seconds: tuple[float, float] = (0.02, 0.2)
    """The shortest and the longest way between two nodes; each pair has its own, by the seed."""
    jitter_seconds: float = 0.0
    """So much longer at most, and differently, each gossiped message takes."""
    bytes_per_second: int = 0
    """What a node uploads of blobs, shared by turns between those who ask; 0 is no limit."""
    loss: float = 0.0
    """Chance that a node misses a gossiped message; streams repeat what is lost."""
    duplicate: float = 0.0
    """Chance that a node hears a gossiped message twice."""
    tick_seconds: float = 0.005
    """Gossip arrives at multiples of this, rounded up: what arrives together costs less."""
    limits: NetworkSettings = LIMITS
    """Queues, patience, penalties and bans, as of the daemon."""

    def __post_init__(self) -> None:
        """Check the numbers. Raises UserError."""
        shortest, longest = self.delay_seconds
        if not 0 <= shortest <= longest:
            raise UserError(f"delay_seconds: {shortest} to {longest} is no range of times")
        for name in ("loss", "duplicate"):
            chance = getattr(self, name)
            if not 0 <= chance <= 1:
                raise UserError(f"{name}: {chance} is no chance; give a number from 0 to 1")
        if self.jitter_seconds < 0 or self.bytes_per_second < 0 or self.tick_seconds <= 0:
            raise UserError(
                "jitter_seconds and bytes_per_second must not be negative, and tick_seconds"
                " must be positive"
            )


def draw_word(*about: bytes | int) -> int:
    """Return 64 bits that follow from what they are about."""
    words = (one if isinstance(one, bytes) else one.to_bytes(8, "big") for one in about)
    text = b"".join(len(word).to_bytes(2, "big") + word for word in words)
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def mix(word: int) -> int:
    """Return 64 bits that follow from a word, as splitmix64 makes them: fast, and spread well."""
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


def as_fraction(word: int) -> float:
    """Return a number from 0 to below 1 that follows from 64 bits."""
    return (word >> 11) * 2.0**-53


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How one pair of nodes differs from all others."""

    delay_seconds: float | None = None
    loss: float | None = None
    is_cut: bool = False


class Links:
    """The links between all nodes. Each is the same both ways."""

    def __init__(self, options: FabricOptions) -> None:
        self._options = options
        self._settings: dict[tuple[bytes, bytes], LinkSettings] = {}
        self._groups: dict[bytes, int] = {}
        self._delays: dict[tuple[bytes, bytes], float] = {}
        self.is_by_chance = bool(options.loss or options.duplicate or options.jitter_seconds)
        """Whether anything of a message's way is left to chance."""

    def partition(self, groups: Sequence[Collection[bytes]]) -> None:
        """Let peers speak within their group only; those that are in none are one group more.

        Raises ValueError if one is in two groups.
        """
        peers = [peer for group in groups for peer in group]
        if len(set(peers)) < len(peers):
            raise ValueError("a peer is in two groups of a partition")
        self._groups = {peer: number for number, group in enumerate(groups) for peer in group}

    def heal(self) -> None:
        """End the partition."""
        self._groups = {}

    def set_link(self, first: bytes, second: bytes, settings: LinkSettings) -> None:
        """Let one pair of nodes differ from all others."""
        for pair in ((first, second), (second, first)):
            self._settings[pair] = settings
            self._delays.pop(pair, None)
        self.is_by_chance = self.is_by_chance or settings.loss is not None

    def is_open(self, first: bytes, second: bytes) -> bool:
        """Tell whether two nodes can speak to each other."""
        if self._groups and self._groups.get(first) != self._groups.get(second):
            return False
        if not self._settings:
            return True
        settings = self._settings.get((first, second))
        return settings is None or not settings.is_cut

    def find_loss(self, first: bytes, second: bytes) -> float:
        """Return the chance that a gossiped message is lost between two nodes."""
        settings = self._settings.get((first, second))
        return self._options.loss if settings is None or settings.loss is None else settings.loss

    def find_delay(self, first: bytes, second: bytes) -> float:
        """Return the seconds from one node to another."""
        delay = self._delays.get((first, second))
        if delay is None:
            delay = self._delays[first, second] = self._choose_delay(first, second)
        return delay

    def _choose_delay(self, first: bytes, second: bytes) -> float:
        settings = self._settings.get((first, second))
        if settings is not None and settings.delay_seconds is not None:
            return settings.delay_seconds
        shortest, longest = self._options.delay_seconds
        word = draw_word(b"delay", self._options.seed, *sorted((first, second)))
        return shortest + (longest - shortest) * as_fraction(word)
