"""One libp2p host: built, hardened, listening, closed."""

import errno
import socket
from contextlib import suppress

import trio
from libp2p import new_host
from libp2p.abc import INetConn
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from d2m_node.errors import UserError
from d2m_node.network.hardening import apply_patches
from d2m_node.network.settings import NetworkSettings


def build_host(key_pair: KeyPair, settings: NetworkSettings) -> BasicHost:
    """Build a host with the patches in place; it does not listen yet."""
    apply_patches()
    noise_key = create_noise_key_pair().private_key
    host = new_host(
        key_pair=key_pair,
        # By default plaintext is accepted too.
        sec_opt={NOISE_PROTOCOL: NoiseTransport(key_pair, noise_privkey=noise_key)},
        muxer_opt={TProtocol(YAMUX_PROTOCOL): Yamux},
        connection_config=ConnectionConfig(
            max_connections=settings.max_connections,
            high_watermark=settings.max_connections,
            min_connections=0,
            low_watermark=0,
            dial_timeout=settings.dial_seconds,
        ),
        disable_identify_address_discovery=True,
    )
    swarm = host.get_network()
    assert isinstance(host, BasicHost)
    assert isinstance(swarm, Swarm)
    # Our own limits are settings; the default manager's are not, and it counts wrongly.
    swarm.set_resource_manager(None)
    # Retries and their pauses are ours: stock refuses for a minute to dial who was down once.
    swarm.retry_config = RetryConfig(max_retries=0)
    swarm._negative_peer_cache._ttl = 0.0
    return host


def check_listen(listen: str) -> None:
    """Try the address first: libp2p shares a port with another process in silence.

    Raises UserError.
    """
    try:
        address = Multiaddr(listen)
        family, host = _parse_host(address)
        port = int(address.value_for_protocol("tcp") or 0)
    except (ValueError, LookupError) as exc:
        raise UserError(f"network.listen: {listen!r} is no /ip4/…/tcp/… multiaddr") from exc
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            reason = "in use" if exc.errno == errno.EADDRINUSE else exc.strerror
            raise UserError(f"network.listen: {listen} is not to be had: {reason}") from exc


def _parse_host(address: Multiaddr) -> tuple[socket.AddressFamily, str]:
    names = [protocol.name for protocol in address.protocols()]
    if names == ["ip4", "tcp"]:
        return socket.AF_INET, str(address.value_for_protocol("ip4"))
    if names == ["ip6", "tcp"]:
        return socket.AF_INET6, str(address.value_for_protocol("ip6"))
    raise ValueError(f"{address} is not over TCP")


async def start_listening(host: BasicHost, listen: str) -> None:
    """Accept connections. Raises UserError."""
    check_listen(listen)
    if not await host.get_network().listen(Multiaddr(listen)):
        raise UserError(f"network.listen: cannot listen on {listen}")


def fix_port(listen: str, listening: str) -> str:
    """Put the port that the system chose into the address to listen on."""
    port = Multiaddr(listening).value_for_protocol("tcp")
    return f"{listen.rpartition('/')[0]}/{port}"


async def close_host(host: BasicHost, seconds: float) -> None:
    """Close all connections at once: one after the other takes stock 0.2 s each.

    Where the host failed or was cancelled, stock takes a connection for closed whose socket is
    open; so each socket is closed as well. The listener goes last and has a time of its own: a
    peer that takes no goodbye must not keep the port from the next stack.
    """
    with trio.move_on_after(seconds, shield=True):
        async with trio.open_nursery() as goodbyes:
            for connection in host.get_network().get_connections():
                goodbyes.start_soon(_close_connection, connection)
    with trio.move_on_after(seconds, shield=True):
        await host.close()


async def _close_connection(connection: INetConn) -> None:
    assert isinstance(connection.muxed_conn, Yamux)
    try:
        await connection.close()
    finally:  # also when the goodbye takes too long: it waits for whoever writes
        with suppress(BaseLibp2pError, OSError):
            await connection.muxed_conn.secured_conn.close()
