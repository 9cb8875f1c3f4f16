"""Peers on the local network: found, and told of this one, by multicast DNS.

Records are libp2p's: a text `dnsaddr=/ip4/…/tcp/…/p2p/…` for each address. What somebody on the LAN
says is an address to try, no more: whoever answers there must hold the peer's key.
"""

import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

import ifaddr
import structlog
import trio
import zeroconf
from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from d2m_node.network.addresses import MAX_LENGTH, Source, is_anywhere, parse_endpoint
from d2m_node.network.book import MAX_FOUND, AddressBook
from d2m_node.network.naming import split_named
from d2m_node.network.settings import NetworkSettings

log = structlog.get_logger(__name__)

SERVICE: Final = "_d2m._tcp.local."
LOOKUP_MILLISECONDS: Final = 3000
MAX_TEXTS: Final = 16
CLOSE_SECONDS: Final = 3.0
RETRY_SECONDS: Final = 30.0
MAX_RETRY_SECONDS: Final = 600.0


class Lan:
    """Tells and asks the local network for as long as it runs."""

    def __init__(
        self,
        peer_name: str,
        settings: NetworkSettings,
        book: AddressBook,
        listening: Callable[[], Sequence[str]],
    ) -> None:
        self._peer_name = peer_name
        self._settings = settings
        self._book = book
        self._listening = listening
        self._heard: dict[str, bytes] = {}
        """Peer by the name of its record."""

    async def run(self) -> None:
        """Run until cancelled. A network without multicast is tried again, for ever."""
        pause = RETRY_SECONDS
        while True:
            try:
                await self._serve()
            except (OSError, zeroconf.Error) as exc:
                log.warning("lan_failed", error=str(exc) or repr(exc), retry_seconds=pause)
            await trio.sleep(pause)
            pause = min(2 * pause, MAX_RETRY_SECONDS)

    async def _serve(self) -> None:
        """Raises OSError and zeroconf's errors."""
        interfaces = list(self._settings.lan_interfaces) or InterfaceChoice.All
        responder = await trio.to_thread.run_sync(Zeroconf, interfaces)
        try:
            ear = _Ear(self, trio.lowlevel.current_trio_token())
            ServiceBrowser(responder, SERVICE, ear)
            await trio.to_thread.run_sync(responder.register_service, self._describe())
            log.info("lan_joined", addresses=list(self._list_own()))
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                # Says goodbye, and ends the browser.
                await trio.to_thread.run_sync(responder.close, abandon_on_cancel=True)

    def hear(self, name: str, texts: Mapping[bytes, bytes | None]) -> None:
        """Take what a record says."""
        found: dict[bytes, list[str]] = {}
        for value in _list_addresses(texts):
            with suppress(ValueError):
                peer_id, address = split_named(value)
                found.setdefault(peer_id, []).append(address)
        if len(found) != 1:
            return
        ((peer_id, addresses),) = found.items()
        self.forget(name)
        if len(self._heard) < MAX_FOUND:
            self._heard[name] = peer_id
            self._book.add(Source.LAN, peer_id, *addresses)

    def forget(self, name: str) -> None:
        """Take back what a record said: it is gone, or there is a newer one."""
        peer_id = self._heard.pop(name, None)
        if peer_id is not None:
            self._book.forget(Source.LAN, peer_id)

    def _describe(self) -> ServiceInfo:
        own = list(self._list_own())
        # A name of this run alone: an earlier one's may still be in the caches of others.
        name = secrets.token_hex(16)
        texts = {
            f"dnsaddr{number or ''}".encode(): f"{address}/p2p/{self._peer_name}".encode()
            for number, address in enumerate(own[:MAX_TEXTS])
        }
        return ServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port=parse_endpoint(own[0]).port if own else 0,
            properties=texts,
            server=f"{name}.local.",
            addresses=[
                socket.inet_aton(parse_endpoint(address).host)
                for address in own
                if address.startswith("/ip4/")
            ],
        )

    def _list_own(self) -> Iterable[str]:
        """Yield where this node listens: on all interfaces, or on the one that it was told."""
        for address in self._listening():
            endpoint = parse_endpoint(address)
            if is_anywhere(address):
                for host in self._list_interfaces():
                    yield f"/ip4/{host}/tcp/{endpoint.port}"
            else:
                yield address

    def _list_interfaces(self) -> Iterable[str]:
        if self._settings.lan_interfaces:
            yield from self._settings.lan_interfaces
            return
        for adapter in ifaddr.get_adapters():
            for one in adapter.ips:
                if isinstance(one.ip, str) and not ip_address(one.ip).is_loopback:
                    yield one.ip


class _Ear(ServiceListener):
    """Hears records in a thread of zeroconf's, and hands them to trio."""

    def __init__(self, lan: Lan, trio_token: trio.lowlevel.TrioToken) -> None:
        self._lan = lan
        self._trio_token = trio_token

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        info = ServiceInfo(type_, name)
        if info.load_from_cache(zc) or info.request(zc, LOOKUP_MILLISECONDS):
            self._tell(self._lan.hear, name, info.properties)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002
        self._tell(self._lan.forget, name)

    def _tell(self, take: Callable[..., None], *words: object) -> None:
        with suppress(trio.RunFinishedError):  # heard while the node ends
            self._trio_token.run_sync_soon(take, *words)


def _list_addresses(texts: Mapping[bytes, bytes | None]) -> Iterable[str]:
    """Yield what looks like an address among a record's texts."""
    for key, value in list(texts.items())[:MAX_TEXTS]:
        if key.startswith(b"dnsaddr") and value is not None and len(value) <= MAX_LENGTH:
            with suppress(UnicodeDecodeError):
                yield value.decode("ascii")
