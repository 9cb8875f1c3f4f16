"""Whom the chain tells a node to know."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import trio
from structlog.testing import capture_logs

from d2m_node.roles.acquaintances import MAX_RIVALS, find_acquaintances, run_acquaintances
from protocol.enrolment import EnrolledCone, EnrolledSeller
from protocol.events import PeerBound, RecordedEvent
from protocol.job import Bid, JobPhase, JobState
from protocol.market import MarketState, Peer, apply_event
from protocol.types import NO_DIGEST, Address, BlockNumber, Wei
from tests.support.market import Market, NodeChain
from tests.support.market_states import make_job

ME = Address(b"\x01" * 20)
BUYER, SELLER, CONE, STRANGER, LIAR = (Address(bytes([one]) * 20) for one in range(2, 7))
EVERYBODY = (LIAR, ME, BUYER, SELLER, CONE, STRANGER)


def peer_of(account: Address) -> bytes:
    return b"peer of " + account[:1]


def address_of(account: Address) -> str:
    return f"/ip4/192.0.2.{account[0]}/tcp/9393"


def make_market(job: JobState | None = None) -> MarketState:
    peers = {one: Peer(peer_of(one), address_of(one).encode()) for one in EVERYBODY}
    jobs = {} if job is None else {job.job_id: job}
    return MarketState(block_number=BlockNumber(5), peers=peers, jobs=jobs)


def make_partners(phase: JobPhase, *, seller: Address = SELLER, cone: Address = CONE) -> JobState:
    bid = Bid(bidder=BUYER, commitment=NO_DIGEST, deposit_wei=Wei(1))
    return replace(
        make_job(1, phase),
        bids={BUYER: bid},
        buyer=BUYER,
        sellers=(EnrolledSeller(seller, 1), EnrolledSeller(STRANGER, 2)),
        seller_applications=(EnrolledSeller(seller, 1), EnrolledSeller(STRANGER, 2)),
        cones=(EnrolledCone(cone, NO_DIGEST),),
        cone_applications=(EnrolledCone(cone, NO_DIGEST),),
    )


def test_all_registered_peers_are_known_but_none_is_needed_without_a_job() -> None:
    found = find_acquaintances(make_market(), ME)
    others = set(EVERYBODY) - {ME}
    assert found.addresses == {peer_of(one): address_of(one) for one in others}
    assert found.needed == frozenset()


def test_a_cone_node_needs_all_who_take_part() -> None:
    job = make_partners(JobPhase.TRAINING, cone=ME)
    found = find_acquaintances(make_market(job), ME)
    assert found.needed == {peer_of(one) for one in (BUYER, SELLER, STRANGER)}


def test_a_seller_needs_buyer_and_cone_nodes_and_no_other_seller() -> None:
    job = make_partners(JobPhase.ENROLMENT, seller=ME)
    found = find_acquaintances(make_market(job), ME)
    assert found.needed == {peer_of(BUYER), peer_of(CONE)}


@pytest.mark.parametrize("phase", [JobPhase.SETTLED, JobPhase.CANCELLED])
def test_a_job_that_is_over_needs_nobody(phase: JobPhase) -> None:
    found = find_acquaintances(make_market(make_partners(phase, cone=ME)), ME)
    assert found.needed == frozenset()


def test_a_job_of_others_needs_nobody() -> None:
    found = find_acquaintances(make_market(make_partners(JobPhase.TRAINING)), ME)
    assert found.needed == frozenset()


def fold(state: MarketState, event: PeerBound) -> MarketState:
    recorded = RecordedEvent(
        block_number=state.block_number, log_index=0, transaction_hash=bytes(32), event=event
    )
    return apply_event(state, recorded)


def with_lie(state: MarketState, about: Address) -> MarketState:
    lie = Peer(peer_of(about), b"/ip4/198.51.100.66/tcp/1")
    return replace(state, peers={LIAR: lie} | {a: p for a, p in state.peers.items() if a != LIAR})


def test_of_two_that_name_one_peer_a_partner_is_believed() -> None:
    state = with_lie(make_market(make_partners(JobPhase.TRAINING, cone=ME)), SELLER)
    assert find_acquaintances(state, ME).addresses[peer_of(SELLER)] == address_of(SELLER)


def test_of_two_strangers_that_name_one_peer_the_first_is_believed() -> None:
    state = with_lie(make_market(), SELLER)
    assert find_acquaintances(state, ME).addresses[peer_of(SELLER)] == "/ip4/198.51.100.66/tcp/1"


def test_what_others_say_of_a_peer_is_tried_too() -> None:
    """So that a lie costs a dial, and no more."""
    state = with_lie(make_market(), SELLER)
    assert find_acquaintances(state, ME).rivals == {peer_of(SELLER): (address_of(SELLER),)}


def test_a_partner_that_lies_about_another_partner_comes_after_it() -> None:
    job = make_partners(JobPhase.TRAINING, seller=ME, cone=LIAR)
    honest = make_market(job)
    lie = PeerBound(account=LIAR, peer_id=peer_of(BUYER), multiaddr=b"/ip4/198.51.100.66/tcp/1")
    assert next(iter(honest.peers)) == LIAR, "its account is the oldest of all"
    found = find_acquaintances(fold(honest, lie), ME)
    assert found.addresses[peer_of(BUYER)] == address_of(BUYER)
    assert found.rivals == {peer_of(BUYER): ("/ip4/198.51.100.66/tcp/1",)}


def test_who_names_the_same_peer_again_keeps_its_place() -> None:
    moved = PeerBound(account=BUYER, peer_id=peer_of(BUYER), multiaddr=b"/ip4/192.0.2.99/tcp/1")
    copied = PeerBound(account=LIAR, peer_id=peer_of(BUYER), multiaddr=b"/ip4/192.0.2.66/tcp/1")
    state = fold(fold(make_market(), copied), moved)
    assert list(state.peers) == [ME, BUYER, SELLER, CONE, STRANGER, LIAR]
    assert find_acquaintances(state, ME).addresses[peer_of(BUYER)] == "/ip4/192.0.2.99/tcp/1"


def test_a_crowd_of_liars_is_believed_in_part_only() -> None:
    state = make_market()
    for number in range(20):
        lie = PeerBound(
            account=Address(bytes([100 + number]) * 20),
            peer_id=peer_of(SELLER),
            multiaddr=f"/ip4/198.51.100.{number}/tcp/1".encode(),
        )
        state = fold(state, lie)
    found = find_acquaintances(state, ME)
    assert found.addresses[peer_of(SELLER)] == address_of(SELLER)
    assert len(found.rivals[peer_of(SELLER)]) == MAX_RIVALS


def test_who_names_our_own_peer_is_ignored() -> None:
    state = with_lie(make_market(), ME)
    found = find_acquaintances(state, ME)
    assert peer_of(ME) not in found.addresses
    assert found.namesakes == (LIAR,)


async def test_who_names_our_own_peer_is_told_to_the_operator_once(nursery: trio.Nursery) -> None:
    market = Market()
    chain = NodeChain(market, ME)
    network = SimpleNamespace(set_address_book=lambda *_: None)
    ports = SimpleNamespace(chain=chain, network=network, signer=SimpleNamespace(address=ME))

    def bind(account: Address, peer_id: bytes) -> PeerBound:
        return PeerBound(account=account, peer_id=peer_id, multiaddr=b"")

    market.apply(bind(ME, b"mine"), bind(SELLER, b"other"))
    with capture_logs() as logs:
        nursery.start_soon(run_acquaintances, ports)
        await market.mine()
        assert logs == []
        market.apply(bind(LIAR, b"mine"))
        await market.mine()
        market.apply(bind(STRANGER, b"another"))
        await market.mine()
    assert [(one["event"], one["accounts"]) for one in logs] == [
        ("peer_named_by_others", [LIAR.hex()])
    ]


def test_an_address_holds_nothing_that_a_terminal_obeys() -> None:
    peers = {STRANGER: Peer(b"x", b"/ip4/\x1b[2J\xff\n/tcp/1")}
    found = find_acquaintances(MarketState(peers=peers), ME)
    assert found.addresses[b"x"].isprintable()
