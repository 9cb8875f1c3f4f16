"""Who this node should know: the chain is the address book, and its own jobs come first."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from d2m_node.calls import BindPeer
from d2m_node.ports import Ports
from protocol.activity import find_roles
from protocol.earnings import Role
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.types import Address

log = structlog.get_logger(__name__)

MAX_RIVALS: Final = 3
"""Accounts beside the first that are believed to know where a peer is."""

MAX_LOGGED: Final = 8

_NEEDS_OTHERS: Final = frozenset(
    (JobPhase.ENROLMENT, JobPhase.VALIDATION, JobPhase.TRAINING, JobPhase.SETTLING)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquaintances:
    """What the chain says of peers."""

    addresses: Mapping[bytes, str]
    """Peer id to multiaddr, of every registered peer but this node."""
    rivals: Mapping[bytes, tuple[str, ...]]
    """Where further accounts say that a peer of these is."""
    needed: frozenset[bytes]
    """Those of accounts that this one is in a job with."""
    namesakes: tuple[Address, ...]
    """Other accounts that name this node's own peer: nobody asked it."""


def find_acquaintances(state: MarketState, account: Address) -> Acquaintances:
    """Read the registry, and who takes part in the jobs of an account."""
    own = state.peers[account].peer_id if account in state.peers else None
    partners = {
        one
        for job in state.jobs.values()
        for one in _list_partners(job, account)
        if one in state.peers
    }
    told: dict[bytes, list[str]] = {}
    # Anybody may name a peer id. Who has a stake in a job is believed first, then who came first:
    # that is whose peer it is. What a few others say is tried too, for the peer has the last word:
    # only its key answers.
    for one in sorted(state.peers, key=lambda one: one not in partners):
        peer = state.peers[one]
        if peer.peer_id != own:
            found, address = told.setdefault(peer.peer_id, []), _read_address(peer.multiaddr)
            if len(found) <= MAX_RIVALS and address not in found:
                found.append(address)
    needed = frozenset(state.peers[one].peer_id for one in partners)
    return Acquaintances(
        addresses={peer_id: first for peer_id, (first, *_) in told.items()},
        rivals={peer_id: tuple(rest) for peer_id, (_, *rest) in told.items() if rest},
        needed=needed & told.keys(),
        namesakes=tuple(
            one for one in state.peers if one != account and state.peers[one].peer_id == own
        ),
    )


async def run_acquaintances(ports: Ports) -> None:
    """Tell the network who there is, after each change, until cancelled."""
    me = ports.signer.address
    known: Acquaintances | None = None
    seen: tuple[object, object] = (None, None)

    def changed(state: MarketState) -> Acquaintances | None:
        nonlocal seen
        if seen[0] is state.peers and seen[1] is state.jobs:
            return None
        seen = state.peers, state.jobs
        found = find_acquaintances(state, me)
        return found if found != known else None

    while True:
        before = () if known is None else known.namesakes
        known = await ports.chain.wait_for(changed)
        if news := [one for one in known.namesakes if one not in before]:
            # It gives them nothing, and this node their access: see THREATS.md.
            named = [one.hex() for one in news[:MAX_LOGGED]]
            log.warning("peer_named_by_others", count=len(news), accounts=named)
        ports.network.set_address_book(known.addresses, known.needed, known.rivals)


async def bind_peer(ports: Ports, multiaddr: str) -> None:
    """Bind this node's libp2p identity and address to its account on the chain."""
    me = ports.signer.address
    entry = ports.chain.state.peers.get(me)
    address = multiaddr.encode()
    if entry is None or (entry.peer_id, entry.multiaddr) != (ports.network.peer_id, address):
        call = BindPeer(peer_id=ports.network.peer_id, multiaddr=address)
        key = f"bind-peer/{ports.network.peer_id.hex()}/{multiaddr}"
        await ports.chain.submit(call, key=f"{key}/{ports.chain.state.block_number}")


def _list_partners(job: JobState, account: Address) -> Iterator[Address]:
    """Yield whom an account deals with in a job; a seller needs no other seller."""
    if job.phase not in _NEEDS_OTHERS:
        return
    roles = find_roles(job, account)
    if not roles:
        return
    others: list[Collection[Address | None]] = [
        [job.buyer],
        [one.account for one in job.cones or job.cone_applications],
    ]
    if roles != (Role.SELLER,):
        others.append([one.account for one in job.sellers or job.seller_applications])
    for group in others:
        yield from (one for one in group if one is not None and one != account)


def _read_address(multiaddr: bytes) -> str:
    """Read what anybody may have written, without what a terminal would obey."""
    text = multiaddr.decode("ascii", errors="replace")
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
