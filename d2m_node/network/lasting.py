"""What outlives a stack: it is made once, and handed to each."""

from dataclasses import dataclass

from libp2p.crypto.keys import KeyPair

from d2m_node.network.book import AddressBook
from d2m_node.network.conduct import Conduct
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.gossip import Gossip
from d2m_node.network.memory import AddressMemory
from d2m_node.network.settings import NetworkSettings
from d2m_node.ports import Library


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """The settings, and all that is remembered."""

    settings: NetworkSettings
    key_pair: KeyPair
    library: Library
    conduct: Conduct
    gossip: Gossip
    counts: NetworkCounts
    book: AddressBook
    memory: AddressMemory
