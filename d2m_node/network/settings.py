"""What an operator may set about the network; every limit is here."""

from dataclasses import dataclass, field
from pathlib import Path

from d2m_node.relay_settings import RelaySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Where to listen, whom to know, and how much a peer may ask for."""

    identity_path: Path
    """The libp2p private key; made at the first start."""
    listen: str
    """Multiaddr to listen on; port 0 lets the system choose."""
    bootstrap: tuple[str, ...] = ()
    """Multiaddrs with /p2p of peers to stay connected with."""
    first_sequence: int | None = None
    """Number of the first message to gossip; the clock's nanoseconds if nobody keeps a mark."""

    announce: str | None = None
    """What others are told to dial, if that is not the address listened on."""
    first_check_seconds: float = 20.0
    """After the start, until peers are asked whether they reach us; sooner would find nobody."""
    check_seconds: float = 900.0
    """Between two such questions; a sixth of it while the answer is no."""

    heartbeat_seconds: float = 1.0
    """How often GossipSub mends its mesh and tells what it has."""
    dial_seconds: float = 10.0
    """Longest wait for a connection, or for a stream's protocol to be agreed on."""
    io_seconds: float = 20.0
    """Longest wait for a peer to take or to send the next piece."""
    min_bytes_per_second: int = 32 * 1024
    """A peer that sends a blob slower than this is left for the next source."""
    close_seconds: float = 3.0
    """Longest wait for goodbyes when the node stops."""

    peers_target: int = 48
    """With so many peers the node stays connected; with those that its jobs need in any case."""
    dial_private: bool = False
    """Whether strangers may name addresses of this machine and of private networks."""
    lan: bool = False
    """Whether peers on the local network are told and asked by multicast DNS."""
    lan_interfaces: tuple[str, ...] = ()
    """IPv4 addresses of the interfaces to do so on; all of them if none is named."""
    dht: bool = True
    """Whether other nodes are asked, and told, where peers are."""
    first_search_seconds: float = 5.0
    """After the start, and while there is no peer, until those next to us are told where we are."""
    search_seconds: float = 600.0
    """Between two times that they are told."""
    search_pause_seconds: float = 60.0
    """Before others are asked again where the same peer is."""
    relay: RelaySettings = field(default_factory=RelaySettings)
    max_dials: int = 32
    """At once, of those that nobody waits for."""
    redial_seconds: float = 0.5
    """First pause before a lost peer is dialled again; doubles each time."""
    max_redial_seconds: float = 30.0
    """Longest pause for a peer of the bootstrap list, or one that a job needs."""
    max_idle_redial_seconds: float = 600.0
    """Longest pause for any other."""

    restart_seconds: float = 0.5
    """First pause before a network that failed is started again; doubles each time."""
    max_restart_seconds: float = 60.0

    max_connections: int = 384
    """Open at once: 256 sellers and 64 CONE nodes of a job, and a reserve for others."""
    max_strangers: int = 128
    """Of these, peers that came by themselves and are not in the address book."""
    max_streams_per_peer: int = 32
    """Streams a peer may have open to us at once; more are reset."""
    max_serving_count: int = 16
    """Requests for blobs answered at once, over all peers; more wait. As many for messages."""
    serving_turn_seconds: float = 10.0
    """While others wait, a peer that has taken a blob for so long gives way, the slowest first."""
    message_turn_seconds: float = 2.0
    """The same for messages."""
    max_open_blob_bytes: int = 512 * 1024 * 1024
    """Blobs in memory to be served; more wait, unless one alone is larger."""
    upload_bytes_per_second: int = 0
    """Of blobs, shared by turns between the peers that ask; 0 is no limit."""
    partial_folder: Path | None = None
    """Where parts of large blobs are kept until they are whole; None keeps nothing."""
    partial_bytes: int = 1024 * 1024 * 1024
    """Of them together; the oldest go first."""
    max_fetches_per_peer: int = 4
    """Streams we open at once to one peer for blobs; more wait. As many for all else."""

    queue_length: int = 1024
    """Messages kept per subscription; the oldest is dropped when full."""
    publish_queue_length: int = 256
    """Own messages waiting to be gossiped; publishing waits when full."""
    publish_pause_seconds: float = 0.003
    """Pause between two own messages: receivers drop what comes faster."""
    messages_per_second: float = 200.0
    """Gossip taken from one peer, ten seconds' worth at once; more is dropped and penalised."""

    max_penalty: float = 10.0
    """Faults, weighted by age, at which a peer is disconnected and banned."""
    penalty_half_life_seconds: float = 60.0
    ban_seconds: float = 300.0
    deny: tuple[str, ...] = ()
    """Peer ids never talked to."""
