"""Following a scripted chain: order, depth, reorganisations, endpoints at fault."""

from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from d2m_node.chain.follower import Follower
from d2m_node.chain.history import History
from d2m_node.chain.json_rpc import Json
from d2m_node.errors import ChainUnavailable
from d2m_node.ports import TakenBack
from d2m_node.transaction_store import BlockId
from protocol.events import AuctionOpened, BidReclaimed, PayoutClaimed, PeerBound, StakeLocked
from protocol.market import MarketState
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Digest, JobId, Wei
from tests.support.chain import SETTINGS, ScriptedChain, make_bindings, make_log

SELLER = Address(b"\xa1" * 20)
CONE = Address(b"\xa2" * 20)
BUYER = Address(b"\xa3" * 20)


def peer_bound(account: Address, multiaddr: bytes) -> Json:
    return make_log(PeerBound(account=account, peer_id=b"peer", multiaddr=multiaddr))


def auction_opened() -> Json:
    return make_log(
        AuctionOpened(
            auction=JobId(1),
            opener=BUYER,
            tags=(Digest(b"\x05" * 32),),
            mode=0,
            currency=NO_ACCOUNT,
            deposit_wei=Wei(1),
            reserve_wei=Wei(1),
            commit_end=BlockNumber(10),
            reveal_end=BlockNumber(20),
        )
    )


def bid_reclaimed() -> Json:
    return make_log(
        BidReclaimed(auction=JobId(1), bidder=BUYER, amount_wei=Wei(1), forfeited_wei=Wei(0))
    )


def make_follower(chain: ScriptedChain, *, confirmations: int = 0) -> Follower:
    settings = replace(SETTINGS, confirmations=confirmations)
    return Follower(chain, make_bindings(), settings)  # type: ignore[arg-type]


async def follow_all(follower: Follower) -> None:
    while await follower.follow():
        pass


def addresses_of(follower: Follower) -> dict[bytes, bytes]:
    return {account: peer.multiaddr for account, peer in follower.state.peers.items()}


async def test_events_are_folded_in_the_order_of_the_chain() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"first"), peer_bound(CONE, b"cone"))
    chain.mine(peer_bound(SELLER, b"second"))
    await follow_all(follower)
    assert addresses_of(follower) == {SELLER: b"second", CONE: b"cone"}
    assert follower.state.block_number == 2


async def test_an_empty_block_costs_one_request() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine()
    await follow_all(follower)
    assert chain.methods == ["eth_getBlockByNumber"]
    assert follower.state.block_number == 1


async def test_a_block_counts_once_enough_blocks_are_on_top() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain, confirmations=2)
    chain.mine(peer_bound(SELLER, b"here"))
    chain.mine()
    await follow_all(follower)
    assert follower.state.block_number == 0
    chain.mine()
    await follow_all(follower)
    assert addresses_of(follower) == {SELLER: b"here"}
    assert follower.state.block_number == 1


async def test_a_reorganisation_takes_back_what_its_blocks_said() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(CONE, b"stays"))
    chain.mine(peer_bound(SELLER, b"goes"))
    await follow_all(follower)
    chain.drop(1)
    chain.mine()
    chain.mine(peer_bound(SELLER, b"comes"))
    await follow_all(follower)
    assert addresses_of(follower) == {CONE: b"stays", SELLER: b"comes"}


async def test_a_reorganisation_is_noticed_though_the_chain_is_no_longer() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine()
    chain.mine(peer_bound(SELLER, b"goes"))
    await follow_all(follower)
    chain.drop(1)
    chain.mine(peer_bound(SELLER, b"comes"))
    await follow_all(follower)
    assert addresses_of(follower) == {SELLER: b"comes"}


async def test_a_reorganisation_beyond_the_kept_blocks_starts_from_the_beginning() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"goes"))
    for _ in range(SETTINGS.reorg_blocks + 5):
        chain.mine()
        await follow_all(follower)
    chain.drop(chain.height)
    chain.mine(peer_bound(CONE, b"comes"))
    chain.mine_many(SETTINGS.reorg_blocks + 6)
    await follow_all(follower)
    assert addresses_of(follower) == {CONE: b"comes"}


async def test_an_endpoint_that_lags_behind_is_no_reorganisation() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"here"))
    chain.mine()
    await follow_all(follower)
    del chain.blocks[-1:]
    await follow_all(follower)
    assert follower.state.block_number == 2


async def test_a_long_history_is_read_in_ranges() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"old"))
    chain.mine_many(SETTINGS.range_blocks + 200)
    chain.mine(peer_bound(CONE, b"new"))
    await follow_all(follower)
    assert addresses_of(follower) == {SELLER: b"old", CONE: b"new"}
    assert follower.state.block_number == chain.height
    assert chain.methods.count("eth_getLogs") == 3


@pytest.mark.parametrize(
    "change",
    [
        {"data": "0x01"},
        {"data": None},
        {"topics": []},
        {"topics": ["0x" + "99" * 32]},
        {"address": "0x" + "99" * 20},
        {"removed": True},
    ],
)
async def test_a_log_that_does_not_decode_is_the_endpoints_fault(change: dict[str, object]) -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine({**peer_bound(SELLER, b"here"), **change})
    with pytest.raises(ChainUnavailable):
        await follow_all(follower)
    assert follower.state.block_number == 0


async def test_logs_that_were_not_asked_for_are_the_endpoints_fault() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"here"))
    chain.logs[chain.blocks[-1]["hash"]][0]["blockNumber"] = hex(99)
    with pytest.raises(ChainUnavailable, match="not asked for"):
        await follow_all(follower)


async def test_a_log_that_is_listed_twice_is_not_folded_twice() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(make_log(PayoutClaimed(payee=SELLER, currency=NO_ACCOUNT, amount_wei=Wei(7))))
    logs = chain.logs[chain.blocks[-1]["hash"]]
    logs += list(logs)
    with pytest.raises(ChainUnavailable, match="a log twice"):
        await follow_all(follower)
    del logs[1:]
    await follow_all(follower)
    assert follower.state.payouts[NO_ACCOUNT, SELLER].withdrawn_wei == 7


async def test_an_auction_left_out_is_noticed_at_the_next_event_of_its_job() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(make_log(StakeLocked(job=JobId(1), account=SELLER, amount_wei=Wei(7))))
    with pytest.raises(ChainUnavailable, match="do not fit"):
        await follow_all(follower)
    assert chain.distrusted == 1
    assert not follower.state.stakes


@pytest.mark.parametrize("missing", [1, SETTINGS.range_blocks])
async def test_another_block_than_was_asked_for_is_the_endpoints_fault(missing: int) -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine_many(2 * missing)
    chain.blocks[missing]["number"] = hex(missing + 1)
    with pytest.raises(ChainUnavailable, match=f"instead of {missing}"):
        await follow_all(follower)


async def test_a_history_with_a_gap_turns_to_another_endpoint_and_starts_over() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"here"))
    await follow_all(follower)
    chain.mine(auction_opened(), bid_reclaimed())
    with pytest.raises(ChainUnavailable, match="do not fit"):
        await follow_all(follower)
    assert chain.distrusted == 1
    assert addresses_of(follower) == {SELLER: b"here"}
    # The other endpoint knows that the first block said something else.
    chain.logs[chain.blocks[1]["hash"]] = []
    chain.logs[chain.blocks[2]["hash"]] = []
    await follow_all(follower)
    assert addresses_of(follower) == {}
    assert follower.state.block_number == 2


async def test_the_follower_outlives_an_endpoint_that_is_down(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.available = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        await trio.sleep(30)
        chain.mine(peer_bound(SELLER, b"here"))
        chain.available = True
        await follower.wait_block(1)
        nursery.cancel_scope.cancel()
    assert addresses_of(follower) == {SELLER: b"here"}


async def test_who_waits_is_asked_after_every_block() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    seen: list[int] = []
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await follower.wait_for(lambda state: seen.append(state.block_number))
            raise AssertionError("nothing to find")

        nursery.start_soon(watch)
        await wait_all_tasks_blocked()
        chain.mine_many(3)
        await follow_all(follower)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen == [0, 1, 2, 3]


async def watch_peers(follower: Follower, seen: list[tuple[int, dict[bytes, bytes]]]) -> None:
    """Note every state that a role would see."""

    def look(state: MarketState) -> None:
        addresses = {account: peer.multiaddr for account, peer in state.peers.items()}
        seen.append((state.block_number, addresses))

    await follower.wait_for(look)


async def test_what_both_branches_say_is_never_gone_in_between() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine()
    chain.mine(peer_bound(CONE, b"in both"))
    chain.mine(peer_bound(SELLER, b"goes"))
    await follow_all(follower)
    seen: list[tuple[int, dict[bytes, bytes]]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_peers, follower, seen)
        await wait_all_tasks_blocked()
        chain.drop(2)
        chain.mine()
        chain.mine(peer_bound(CONE, b"in both"))
        chain.mine()
        await follow_all(follower)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    both, cone = {CONE: b"in both", SELLER: b"goes"}, {CONE: b"in both"}
    assert seen == [(3, both), (3, cone), (4, cone)]


async def test_a_branch_that_ends_lower_is_shown_where_it_ends() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(CONE, b"stays"))
    chain.mine_many(2)
    chain.mine(peer_bound(SELLER, b"goes"))
    await follow_all(follower)
    seen: list[tuple[int, dict[bytes, bytes]]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_peers, follower, seen)
        await wait_all_tasks_blocked()
        chain.drop(3)
        chain.mine_many(2)
        await follow_all(follower)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen[1:] == [(3, {CONE: b"stays"})]


async def test_a_reorganisation_above_the_confirmed_blocks_is_not_seen() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain, confirmations=2)
    chain.mine(peer_bound(CONE, b"deep"))
    chain.mine(peer_bound(SELLER, b"shallow"))
    chain.mine()
    await follow_all(follower)
    before = follower.state
    chain.drop(2)
    chain.mine_many(2)
    await follow_all(follower)
    assert follower.state is before
    chain.mine()
    await follow_all(follower)
    assert addresses_of(follower) == {CONE: b"deep"}


async def test_a_chain_that_turned_while_the_node_was_away_is_not_continued() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(CONE, b"stays"))
    chain.mine(peer_bound(SELLER, b"goes"))
    await follow_all(follower)
    chain.drop(1)
    chain.mine_many(SETTINGS.range_blocks)
    await follow_all(follower)
    assert addresses_of(follower) == {CONE: b"stays"}
    assert follower.state.block_number == chain.height


async def test_a_range_that_an_endpoint_refuses_is_halved_until_it_fits() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"old"))
    chain.mine_many(SETTINGS.range_blocks)
    chain.logs_max = 600
    await follow_all(follower)
    assert addresses_of(follower) == {SELLER: b"old"}
    ranges = [
        int(asked.params[0]["toBlock"], 16) - int(asked.params[0]["fromBlock"], 16) + 1
        for asked in chain.asked
        if asked.method == "eth_getLogs"
    ]
    assert ranges[:3] == [1937, 968, 484]
    assert len(ranges) < 10


async def test_an_endpoint_that_refuses_a_single_block_is_at_fault() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine_many(SETTINGS.range_blocks)
    chain.refuse("eth_getLogs", -32000, "out of order")
    with pytest.raises(ChainUnavailable, match="out of order"):
        await follow_all(follower)
    assert chain.methods.count("eth_getLogs") == 11
    assert follower.state.block_number == 0


async def test_blocks_are_known_as_followed_turned_or_forgotten() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    for _ in range(SETTINGS.reorg_blocks + 10):
        chain.mine()
        await follow_all(follower)

    def block(number: int) -> BlockId:
        return BlockId(BlockNumber(number), bytes.fromhex(chain.blocks[number]["hash"][2:]))

    newest, old = block(chain.height), block(1)
    assert follower.is_followed(newest)
    assert follower.is_followed(old) is None
    chain.drop(1)
    chain.mine_many(2)
    assert follower.is_followed(block(chain.height)) is False
    await follow_all(follower)
    assert follower.is_followed(newest) is False
    assert follower.is_followed(block(chain.height))


async def test_a_header_is_not_read_before_its_block_is_followed() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine()
    with pytest.raises(ChainUnavailable):
        await follower.read_header(1)


async def test_the_history_holds_what_led_to_the_state_and_what_was_taken_back() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"first"))
    chain.mine(peer_bound(CONE, b"old"))
    await follow_all(follower)
    chain.drop(1)
    chain.mine(peer_bound(CONE, b"new"))
    chain.mine()
    await follow_all(follower)
    told = [follower.history.read(number) for number in range(follower.history.end)]
    names = [
        one.block_number if isinstance(one, TakenBack) else one.event.multiaddr  # type: ignore[union-attr]
        for one in told
    ]
    assert names == [b"first", b"old", 1, b"new"]
    assert follower.history.first == 0


async def test_the_history_of_a_turn_shows_with_its_state() -> None:
    chain = ScriptedChain()
    follower = make_follower(chain)
    chain.mine(peer_bound(SELLER, b"old"))
    chain.mine_many(2)
    await follow_all(follower)
    chain.drop(3)
    chain.mine_many(4)
    seen = [follower.history.end]
    while await follower.follow():
        seen.append(follower.history.end)
    assert (seen[0], follower.history.end) == (1, 2)
    assert follower.state.peers == {}


def test_a_long_history_keeps_its_newest_part_and_its_numbers() -> None:
    history = History(kept=3)
    for block in range(1, 6):
        history.take_back(BlockNumber(block))
    assert (history.first, history.end) == (0, 0), "nothing shows before it is published"
    history.publish()
    assert (history.first, history.end) == (2, 5)
    assert [history.read(number) for number in (2, 4)] == [
        TakenBack(BlockNumber(3)),
        TakenBack(BlockNumber(5)),
    ]
    history.take_back(BlockNumber(6))
    history.publish()
    assert (history.first, history.end) == (3, 6)
