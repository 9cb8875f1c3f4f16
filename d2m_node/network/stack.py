"""One life of the libp2p stack: a host, its gossip, its streams, and who is borrowing them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.tools.anyio_service import background_trio_service

from d2m_node.errors import FatalError, PeerUnreachable
from d2m_node.measures import Reach, Reachability
from d2m_node.network.addresses import Source, is_anywhere
from d2m_node.network.audience import AudienceGossipSub, AudiencePubsub
from d2m_node.network.doorway import Doorway
from d2m_node.network.hardening import guard_streams
from d2m_node.network.host import start_listening
from d2m_node.network.kademlia import Kademlia
from d2m_node.network.lasting import Lasting
from d2m_node.network.peers import Peers
from d2m_node.network.punch import Puncher
from d2m_node.network.reach import DialBackServer, ReachCheck
from d2m_node.network.records import sign_record
from d2m_node.network.relay import Relay
from d2m_node.network.reservations import Reservations
from d2m_node.network.serving import StreamServer
from d2m_node.network.streams import StreamClient


class Stack:
    """What is built anew when the network is restarted."""

    def __init__(self, host: BasicHost, tasks: trio.Nursery, lasting: Lasting) -> None:
        settings, conduct, gossip = lasting.settings, lasting.conduct, lasting.gossip
        self.host = host
        self.tasks = tasks
        self.peers = Peers(host, tasks, lasting)
        self.router = AudienceGossipSub(settings.heartbeat_seconds, lasting.library.place_in)
        self.pubsub = AudiencePubsub(
            host,
            self.router,
            judge=gossip.judge,
            blame=conduct.blame,
            first_sequence=gossip.next_sequence,
        )
        self.peers.on_fewer_connections = self.pubsub.mend_stream
        self.client = StreamClient(host, self.peers, settings, lasting.counts)
        self.reach = ReachCheck(
            self.peers, self.client.open_stream, settings, lambda: self.listening
        )
        puncher = Puncher(host, self.peers, settings, tasks, self._list_direct)
        self.reservations = Reservations(
            host, self.peers, settings, lambda: self.reach.result.reach, puncher
        )
        self.peers.open_circuit = self.reservations.open_circuit
        if settings.relay.serve:
            Relay(host, self.peers, settings, lasting.counts, self._list_direct)
        self.kademlia: Kademlia | None = None
        if settings.dht:
            self.kademlia = Kademlia(host, self.peers, settings, self._sign_own)
            self.peers.search = self.kademlia.find
            self.reservations.on_change = self.kademlia.tell_soon
        DialBackServer(host, self.peers, settings, lasting.counts)
        self._lasting = lasting
        swarm = host.get_network()
        assert isinstance(swarm, Swarm)
        Doorway(
            swarm,
            lasting.counts,
            max_strangers=settings.max_strangers,
            is_known=self._is_known,
            drop=self.peers.drop,
        )
        self._gossip = gossip
        self._borrowers: set[trio.CancelScope] = set()
        self._server = StreamServer(
            host,
            lasting.library,
            settings,
            lasting.counts,
            self._is_known,
        )
        guard_streams(
            host,
            max_streams_per_peer=settings.max_streams_per_peer,
            blame=conduct.blame,
            refuse=lasting.counts.refuse,
            crash=lambda error: tasks.start_soon(_raise, error),
        )

    @asynccontextmanager
    async def run(self, listen: str) -> AsyncIterator[None]:
        """Gossip and listen while the context is open. Raises UserError."""
        async with (
            background_trio_service(self.pubsub),
            background_trio_service(self.router),
        ):
            await self.pubsub.wait_until_ready()
            await start_listening(self.host, listen)
            await self._gossip.attach(self.pubsub)
            self.tasks.start_soon(self._gossip.run_publisher, self.pubsub)
            self.tasks.start_soon(self._server.run)
            self.tasks.start_soon(self.client.tidy)
            self.tasks.start_soon(self.peers.run)
            if self.kademlia is not None:
                self.tasks.start_soon(self.kademlia.run)
            self.tasks.start_soon(self.reach.run)
            if self._lasting.settings.relay.use != "never":
                self.tasks.start_soon(self.reservations.run)
            try:
                yield
            finally:
                self._gossip.detach()

    def _is_known(self, peer_id: bytes) -> bool:
        """Say whether the operator, a job or the registry names a peer."""
        known = self._lasting.book.find(peer_id)
        return known is not None and (known.is_kept or Source.REGISTRY in known.addresses)

    def reachability(self) -> Reachability:
        """Say whether others reach this node, if need be through relays."""
        direct = self.reach.result
        relays = self.reservations.list_addresses()
        if direct.reach is Reach.REACHABLE or not relays:
            return direct
        return Reachability(Reach.RELAYED, direct.advice)

    @property
    def listening(self) -> Sequence[str]:
        """The multiaddrs listened on, with real ports, without /p2p."""
        return [str(address) for address in self.host.get_transport_addrs()]

    def _sign_own(self) -> bytes | None:
        """Sign where this node is, if that can be said."""
        addresses = [*self._list_direct(), *self.reservations.list_addresses()]
        return sign_record(self._lasting.key_pair, addresses) if addresses else None

    def _list_direct(self) -> Sequence[str]:
        """List where this node says that it is to be dialled."""
        announced = self._lasting.settings.announce
        told = [announced] if announced else self.listening
        return [one for one in told if not is_anywhere(one)]

    @contextmanager
    def borrow(self) -> Iterator[None]:
        """Use the stack in a task that outlives it. Raises PeerUnreachable when it ends."""
        with trio.CancelScope() as scope:
            self._borrowers.add(scope)
            try:
                yield
            finally:
                self._borrowers.discard(scope)
        if scope.cancelled_caught:
            raise PeerUnreachable("the network was restarted meanwhile")

    def end_borrowing(self) -> None:
        """Let nobody wait for what this stack will never do."""
        for scope in tuple(self._borrowers):
            scope.cancel()


async def _raise(error: FatalError) -> None:
    raise error
