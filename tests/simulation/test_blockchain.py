"""The simulated chain under random calls, blocks and reorganisations: what must always hold."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from d2m_node.calls import ContractCall, DepositStake, RequestUnbond, WithdrawStake
from d2m_node.errors import TransactionReverted
from d2m_node.ports import UNTOLD, TakenBack
from d2m_node.simulation.chain.blockchain import Blockchain, LedgerOptions
from protocol.market import MarketState, advance, apply_event
from protocol.types import Address, Wei
from tests.support.params import PARAMS

ONE_ETHER = Wei(10**18)
ACCOUNTS = [Address(bytes([one]) * 20) for one in (10, 11, 12)]
CALLS: dict[str, ContractCall] = {
    "deposit": DepositStake(value_wei=Wei(3)),
    "unbond": RequestUnbond(amount_wei=Wei(2)),
    "withdraw": WithdrawStake(),
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(CALLS)), st.sampled_from(ACCOUNTS)),
        st.tuples(st.just("mine"), st.integers(1, 12)),
        st.tuples(st.just("reorganise"), st.integers(1, 20)),
        st.tuples(st.just("retime"), st.integers(1, 100)),
    ),
    max_size=40,
)


class Story:
    """One chain, what was sent to it, and what was true of it at its start."""

    def __init__(self) -> None:
        balances = dict.fromkeys(ACCOUNTS, ONE_ETHER)
        self.chain = Blockchain(PARAMS, balances, LedgerOptions(seed=3, reorg_blocks=12))
        self.deployed = len(self.chain.blocks)
        self.total_wei = self.count_wei()
        self.sent: list[str] = []

    def count_wei(self) -> int:
        return sum(self.chain.balances.values()) + self.chain.burned_wei

    def take(self, step: tuple[str, Any]) -> None:
        name, argument = step
        if name in CALLS:
            self.send(name, argument)
        elif name == "mine":
            for _ in range(argument):
                self.chain.mine()
        elif name == "retime":
            self.chain.retime(self.chain.blocks[-1].timestamp + argument)
        else:
            depth = min(argument, self.chain.deepest_reorganisation)
            if depth > 0:
                self.chain.reorganise(depth)

    def send(self, name: str, account: Address) -> None:
        key = f"{name} {len(self.sent)}"
        try:
            self.chain.send(account, self.chain.bindings.encode_call(CALLS[name]), key=key)
        except TransactionReverted:
            return
        self.sent.append(key)

    def check(self) -> None:
        chain = self.chain
        assert self.count_wei() == self.total_wei
        assert [block.number for block in chain.blocks] == list(range(len(chain.blocks)))
        for parent, block in zip(chain.blocks, chain.blocks[1:], strict=False):
            assert block.parent is parent
            assert block.timestamp > parent.timestamp
        state = MarketState()
        for block in chain.blocks:
            for recorded in block.events:
                state = apply_event(state, recorded)
            state = advance(state, block.number)
        assert chain.state == state
        held = chain.balances.get(chain.bindings.address_of("StakePool"), 0)
        stakes = chain.state.stakes.values()
        assert held == sum(stake.free_wei + stake.unbonding_wei for stake in stakes)

    def tell(self) -> list[object]:
        """Return the events that whoever read the history believes."""
        told: list[Any] = []
        for entry in self.chain.history:
            if isinstance(entry, TakenBack):
                told = [one for one in told if one.block_number <= entry.block_number]
            else:
                told.append(entry)
        return told


@settings(max_examples=25)
@given(STEPS)
def test_the_chain_holds_together(steps: list[tuple[str, Any]]) -> None:
    story = Story()
    for step in steps:
        story.take(step)
        if step[0] not in CALLS:
            story.check()
    story.chain.mine()
    story.check()
    blocks = story.chain.blocks[story.deployed :]
    assert sorted(call.key for block in blocks for call in block.calls) == sorted(story.sent)
    assert story.tell() == [
        recorded
        for block in story.chain.blocks
        for recorded in block.events
        if not isinstance(recorded.event, UNTOLD)
    ]


@settings(max_examples=10)
@given(STEPS)
def test_the_same_steps_make_the_same_chain(steps: list[tuple[str, Any]]) -> None:
    stories = Story(), Story()
    for story in stories:
        for step in steps:
            story.take(step)
    first, second = (story.chain for story in stories)
    assert [one.block_hash for one in first.blocks] == [one.block_hash for one in second.blocks]
    assert list(first.history) == list(second.history)
