"""The EVM of the simulated chain: what transactions cost, see and undo."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import vyper
from eth_abi.abi import encode
from eth_typing import Address as EthAddress
from hypothesis import given
from hypothesis import strategies as st
from vyper.compiler.input_bundle import FilesystemInputBundle

from d2m_node.chain.bindings import EncodedCall
from d2m_node.chain.deployment import predict_address
from d2m_node.errors import TransactionReverted
from d2m_node.simulation.chain.accounts import Accounts
from d2m_node.simulation.chain.blockchain import Blockchain, LedgerOptions
from d2m_node.simulation.chain.evm import BlockContext, Evm, Execution, Transaction
from protocol.block_header import read_randomness, read_timestamp
from protocol.hashing import keccak
from protocol.types import Address, BlockNumber, Digest, Wei
from tests.support.params import PARAMS

ONE_ETHER = Wei(10**18)
GWEI = 10**9
SOURCES = Path(__file__).parents[2] / "contracts"
READER = """
from modules import header as block_header

@external
@view
def randomness(number: uint256, header: Bytes[1024]) -> bytes32:
    return block_header._randomness(number, header)
"""
sender = Address(b"\x0a" * 20)
proposer = Address(b"\x0f" * 20)
receiver = Address(b"\x0b" * 20)
TRANSFER = Transaction(
    sender=sender, to=receiver, value_wei=Wei(5), data=b"", gas=100_000, tip_wei=Wei(2 * GWEI)
)


def make_context(number: int) -> BlockContext:
    hashes = [keccak(one.to_bytes(8, "big")) for one in range(number - 1, -1, -1)]
    return BlockContext(
        chain_id=1,
        number=BlockNumber(number),
        timestamp=1_000 + number,
        prevrandao=keccak(b"randomness"),
        base_fee_wei=Wei(GWEI),
        proposer=proposer,
        ancestors=hashes[:256],
    )


class Desk:
    """Sends transactions of one account, and counts them."""

    def __init__(self) -> None:
        self.evm = Evm(blocks_kept=8)
        self.evm.set_balances({sender: ONE_ETHER})
        self.evm.begin_block(make_context(1))
        self.nonce = 0

    def send(self, **changes: Any) -> Execution:
        self.nonce += 1
        return self.evm.execute(replace(TRANSFER, **changes))

    def create(self, runtime: str) -> Address:
        """Create a contract of this code: the creation copies and returns what follows it."""
        code = bytes.fromhex(runtime)
        size = f"{len(code):02x}"
        creation = bytes.fromhex(f"60{size}600c60003960{size}6000f3") + code
        execution = self.send(to=None, value_wei=Wei(0), data=creation)
        assert execution.has_succeeded
        return predict_address(sender, self.nonce - 1)

    def call(self, to: Address, data: bytes = b"", **changes: Any) -> Execution:
        return self.send(to=to, value_wei=Wei(0), data=data, **changes)

    def ask(self, *opcodes: str) -> int:
        """Return what code leaves on the stack."""
        answer = self.call(self.create("".join(opcodes) + "60005260206000f3"))
        assert answer.has_succeeded
        return int.from_bytes(answer.output, "big")

    def next_block(self) -> None:
        self.evm.close_block()
        self.evm.begin_block(make_context(2))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_transfer_costs_its_base_and_splits_its_fee(desk: Desk) -> None:
    execution = desk.send()
    assert (execution.gas_used, execution.has_succeeded) == (21_000, True)
    assert execution.fee_wei == 21_000 * 3 * GWEI
    assert execution.burned_wei == 21_000 * GWEI
    assert desk.evm.read_balance(sender) == ONE_ETHER - 5 - execution.fee_wei
    assert desk.evm.read_balance(receiver) == 5
    assert desk.evm.read_balance(proposer) == 21_000 * 2 * GWEI


def test_data_cost_at_least_their_floor(desk: Desk) -> None:
    assert desk.send(data=bytes(10) + b"\x01" * 10).gas_used == 21_000 + 10 * (10 + 4 * 10)


def test_a_storage_slot_costs_as_on_a_cold_start_in_each_transaction(desk: Desk) -> None:
    counter = desk.create("60005460010160005500")  # slot 0 += 1
    first, second = desk.call(counter), desk.call(counter)
    assert first.gas_used - second.gas_used == 20_000 - 2_900
    assert second.gas_used == 21_000 + 4 * 3 + 2_100 + 2_900


def test_an_emptied_slot_gives_gas_back(desk: Desk) -> None:
    cell = desk.create("60003560005500")  # slot 0 = first word of the data
    desk.call(cell, b"\x01".rjust(32, b"\0"))
    emptied = desk.call(cell, bytes(32))
    assert emptied.gas_needed - emptied.gas_used == 4_800


def test_a_refusal_keeps_its_data_and_changes_nothing_but_the_fee(desk: Desk) -> None:
    # slot 0 = 1; the first byte of memory = 0xaa; revert with that byte
    refusing = desk.create("600160005560aa60005360016000fd")
    execution = desk.call(refusing)
    assert (execution.has_succeeded, execution.output) == (False, b"\xaa")
    assert execution.failure is None
    assert execution.fee_wei > 0
    assert desk.call(refusing).gas_used == execution.gas_used, "the slot is as empty as before"


def test_who_runs_out_of_gas_pays_for_all_of_it(desk: Desk) -> None:
    endless = desk.create("5b600056")
    execution = desk.call(endless, gas=50_000)
    assert (execution.has_succeeded, execution.gas_used) == (False, 50_000)
    assert execution.failure is not None
    assert "OutOfGas" in execution.failure


def test_transient_storage_lasts_for_one_transaction(desk: Desk) -> None:
    # return slot 0 of transient storage, after setting it to 7
    toggle = desk.create("60005c" + "600760005d" + "60005260206000f3")
    assert [desk.call(toggle).output[-1] for _ in range(2)] == [0, 0]


def test_code_sees_its_block(desk: Desk) -> None:
    assert desk.ask("43") == 1  # NUMBER
    assert desk.ask("42") == 1_001  # TIMESTAMP
    assert desk.ask("44") == int.from_bytes(keccak(b"randomness"), "big")  # PREVRANDAO
    assert desk.ask("46") == 1  # CHAINID
    assert desk.ask("48") == GWEI  # BASEFEE
    assert desk.ask("3a") == 3 * GWEI  # GASPRICE
    assert desk.ask("6000", "40") == int.from_bytes(keccak(bytes(8)), "big")  # BLOCKHASH


def test_a_block_is_undone_with_all_that_it_wrote(desk: Desk) -> None:
    counter = desk.create("6000546001018060005560005260206000f3")  # return slot 0 += 1
    desk.next_block()
    before = desk.evm.copy_balances()
    checkpoint = desk.evm.record()
    assert desk.call(counter).output[-1] == 1
    desk.evm.discard(checkpoint)
    assert desk.evm.copy_balances() == before
    assert desk.call(counter).output[-1] == 1
    assert desk.call(counter).output[-1] == 2
    desk.evm.close_block()
    desk.evm.undo_block()
    assert desk.evm.copy_balances() == before
    desk.evm.begin_block(make_context(2))
    assert desk.call(counter).output[-1] == 1


def test_a_block_that_writes_something_else_has_another_hash() -> None:
    def write(value: int) -> bytes:
        desk = Desk()
        cell = desk.create("60003560005500")
        desk.call(cell, value.to_bytes(32, "big"), tip_wei=Wei(0))
        return desk.evm.close_block()

    assert write(1) == write(1)
    assert write(1) != write(2)


WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("set_balance"), st.binary(min_size=1, max_size=1), st.integers(0, 3)),
        st.tuples(st.just("set_nonce"), st.binary(min_size=1, max_size=1), st.integers(0, 3)),
        st.tuples(st.just("set_code"), st.binary(min_size=1, max_size=1), st.binary(max_size=2)),
        st.tuples(st.just("delete_account"), st.binary(min_size=1, max_size=1)),
        st.tuples(
            st.just("set_storage"),
            st.binary(min_size=1, max_size=1),
            st.integers(0, 2),
            st.integers(0, 3),
        ),
    ),
    max_size=12,
)


def show(accounts: Accounts) -> list[object]:
    addresses = [EthAddress(bytes([one])) for one in range(256)]
    return [
        (
            accounts.get_balance(one),
            accounts.get_nonce(one),
            accounts.get_code(one),
            accounts.get_code_hash(one),
            [accounts.get_storage(one, slot) for slot in range(3)],
        )
        for one in addresses
    ]


def apply(accounts: Accounts, writes: list[Any]) -> None:
    for name, *arguments in writes:
        getattr(accounts, name)(*arguments)


@given(WRITES, WRITES, WRITES)
def test_accounts_go_back_to_every_place_they_were_at(
    first: list[Any], second: list[Any], third: list[Any]
) -> None:
    accounts = Accounts(blocks_kept=2)
    apply(accounts, first)
    accounts.close_block()
    after_first = show(accounts)
    apply(accounts, second)
    checkpoint = accounts.record()
    after_second = show(accounts)
    apply(accounts, third)
    accounts.discard(checkpoint)
    assert show(accounts) == after_second
    apply(accounts, third)
    accounts.close_block()
    accounts.undo_block()
    assert show(accounts) == after_first


@pytest.fixture(scope="module")
def reader() -> bytes:
    """A contract that reads randomness as all others do, ready to be created."""
    bundle = FilesystemInputBundle([SOURCES])
    code = vyper.compile_code(READER, input_bundle=bundle, output_formats=["bytecode"])
    return bytes.fromhex(code["bytecode"].removeprefix("0x"))


@pytest.mark.parametrize("age", [1, 255, 256, 300])
def test_the_contracts_read_randomness_out_of_headers(reader: bytes, age: int) -> None:
    """The first 256 by the block's hash, older ones by the account that keeps hashes."""
    chain = Blockchain(PARAMS, {sender: ONE_ETHER}, LedgerOptions(seed=1))
    creation = EncodedCall(label="create", to=None, data=reader, value_wei=Wei(0))
    chain.send(sender, creation, key="create")
    for _ in range(320):
        chain.mine()
    block = chain.blocks[-age]
    assert block.number == len(chain.blocks) - age
    data = keccak(b"randomness(uint256,bytes)")[:4] + encode(
        ["uint256", "bytes"], [block.number, block.header]
    )
    ask = EncodedCall(label="ask", to=predict_address(sender, 0), data=data, value_wei=Wei(0))
    asked = chain.send(sender, ask, key="ask")
    assert asked.execution is not None
    assert asked.execution.output == block.prevrandao
    assert read_randomness(block.header, Digest(block.block_hash)) == block.prevrandao
    assert read_timestamp(block.header) == block.timestamp
    forged = replace(ask, data=data[:-32] + bytes(32))
    with pytest.raises(TransactionReverted, match="header: "):
        chain.send(sender, forged, key="forged")
