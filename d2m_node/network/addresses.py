"""Addresses to dial: read strictly, and held against what strangers may make us dial.

Whoever may write into the registry, answers a query or speaks on the LAN is a stranger. An address
of theirs could make this node knock at the operator's own router, or at a service of this machine.
"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

import trio

MAX_LENGTH: Final = 256
MAX_RESOLVED: Final = 2
"""Of the addresses behind a name, so many are dialled."""

_ENDPOINT = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/([^/\s]+)/tcp/([0-9]{1,5})")
_CIRCUIT = re.compile(r"(/.+)/p2p/([1-9A-HJ-NP-Za-km-z]+)/p2p-circuit")
_FAMILIES: Final = {
    "dns": socket.AF_UNSPEC,
    "dns4": socket.AF_INET,
    "dns6": socket.AF_INET6,
}

_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""Where a translator of the network's turns the last 32 bits into an IPv4 address."""

IpAddress = IPv4Address | IPv6Address


class Source(Enum):
    """Who told an address, in the order in which a peer's addresses are tried."""

    BOOTSTRAP = "bootstrap"
    """The operator."""
    REGISTRY = "registry"
    """The chain: whoever owns the account."""
    LAN = "lan"
    """Somebody on the local network."""
    CACHE = "cache"
    """This node: it reached the peer there."""
    DHT = "dht"
    """The peer, by a record that it signed and another node passed on."""


class Scope(Enum):
    """Which addresses a source may name."""

    PUBLIC = "public"
    PRIVATE = "private"
    """And those of private networks, but not of this machine."""
    ANY = "any"
    """And those of this machine."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a TCP connection goes: an IP address, or a name to look up."""

    protocol: str
    host: str
    port: int

    @property
    def is_name(self) -> bool:
        """Say whether the host has to be looked up."""
        return self.protocol in _FAMILIES


def parse_endpoint(multiaddr: str) -> Endpoint:
    """Read ``/ip4/…/tcp/…``, or the same with ip6 or a name. Raises ValueError."""
    found = _ENDPOINT.fullmatch(multiaddr) if len(multiaddr) <= MAX_LENGTH else None
    if found is None:
        raise ValueError(f"{multiaddr[:MAX_LENGTH]!r} is no /ip4/…/tcp/… address")
    endpoint = Endpoint(found[1], found[2], int(found[3]))
    if not 0 < endpoint.port < 2**16:
        raise ValueError(f"{multiaddr}: no port has the number {endpoint.port}")
    if not endpoint.is_name and ip_address(endpoint.host).version != int(found[1][2]):
        raise ValueError(f"{multiaddr}: {endpoint.host} is no {endpoint.protocol} address")
    return endpoint


def split_circuit(multiaddr: str) -> tuple[str, str] | None:
    """Split the address of a peer behind a relay into the relay's address and id."""
    found = _CIRCUIT.fullmatch(multiaddr) if len(multiaddr) <= MAX_LENGTH else None
    return None if found is None else (found[1], found[2])


def check_address(multiaddr: str) -> None:
    """Check an address, direct or through a relay. Raises ValueError."""
    circuit = split_circuit(multiaddr)
    parse_endpoint(multiaddr if circuit is None else circuit[0])


def is_anywhere(multiaddr: str) -> bool:
    """Say whether an address stands for every interface of a machine, and so for none."""
    if split_circuit(multiaddr) is not None:
        return False
    endpoint = parse_endpoint(multiaddr)
    return not endpoint.is_name and ip_address(endpoint.host).is_unspecified


def explain_refusal(address: IpAddress, scope: Scope) -> str | None:
    """Say why an IP address is not dialled; None if it may be."""
    inner = _unwrap(address)
    if inner.is_multicast or inner.is_unspecified or _is_broadcast(inner):
        return f"{address} is no address of a machine"
    if inner.is_global or scope is Scope.ANY:
        return None
    if inner.is_loopback:
        return f"{address} is this machine; set network.dial_private if peers are on it"
    if scope is Scope.PRIVATE:
        return None
    return f"{address} is a private address; set network.dial_private if peers are on this network"


async def resolve(endpoint: Endpoint, scope: Scope) -> Sequence[str]:
    """Return the multiaddrs to dial, without names. Raises ValueError if none may be dialled."""
    if not endpoint.is_name:
        found = [ip_address(endpoint.host)]
    else:
        found = await _look_up(endpoint)
    refusals = [explain_refusal(address, scope) for address in found]
    allowed = [one for one, refusal in zip(found, refusals, strict=True) if refusal is None]
    if not allowed:
        raise ValueError(f"not dialled: {refusals[0]}")
    return [f"/ip{one.version}/{one}/tcp/{endpoint.port}" for one in allowed[:MAX_RESOLVED]]


async def _look_up(endpoint: Endpoint) -> list[IpAddress]:
    try:
        answers = await trio.socket.getaddrinfo(
            endpoint.host, endpoint.port, _FAMILIES[endpoint.protocol], socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise ValueError(f"the name {endpoint.host} is not found: {reason}") from exc
    # A scope of a link-local address, as in fe80::1%eth0, names one of our own interfaces.
    found = (ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in answers)
    return list(dict.fromkeys(found))


def _unwrap(address: IpAddress) -> IpAddress:
    """Find the IPv4 address inside an IPv6 address that stands for one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(address.packed[-4:])
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _is_broadcast(address: IpAddress) -> bool:
    return address == IPv4Address("255.255.255.255")
