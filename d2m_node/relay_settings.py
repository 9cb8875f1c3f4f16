"""Settings of relays: to be one, and to be reached through one."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from d2m_node.user_input import ByteCount


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Circuit relay v2. What goes through a relay is encrypted between its two ends."""

    use: Literal["auto", "always", "never"] = "auto"
    """Whether to be reached through relays; "auto" is when peers say that they cannot connect."""
    through: tuple[str, ...] = ()
    """Relays to use, with the peer id: /ip4/…/tcp/…/p2p/…. Without any, peers that serve as one."""
    punch: bool = True
    """Whether to try for a direct connection with who calls through a relay."""
    serve: bool = False
    """Whether to serve as one, for peers that the registry names."""
    reservations: Annotated[int, Meta(ge=1, le=4096)] = 128
    """Peers that may be reached through this node, at once."""
    circuits: Annotated[int, Meta(ge=1, le=4096)] = 128
    """Connections through this node, at once. A peer may have a quarter of them."""
    circuit_bytes: ByteCount = ByteCount(256 * 2**20)
    """A connection through this node ends after so many bytes, of both directions together."""
    circuit_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 3600.0
    """And after so long."""
    bytes_per_second: ByteCount = ByteCount(0)
    """Of all connections through this node together; 0 is no limit."""
