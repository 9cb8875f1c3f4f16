"""Calls and events against the compiled contracts: nothing is missing, all comes back as it was."""

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest
from eth_abi.abi import decode

from d2m_node.calls import ApproveToken, ContractCall, RevealBid, SettleJob
from d2m_node.chain.artifacts import CONTRACTS, TOKEN, load_artifact
from d2m_node.chain.bindings import event_classes
from d2m_node.chain.counts import add_fees
from d2m_node.errors import ChainUnavailable
from d2m_node.transaction_store import PaidFee
from protocol.course import Course
from protocol.events import CourseChanged, Event
from protocol.hashing import word
from protocol.terms import JobTerms, Metric
from protocol.types import Address, Digest, JobId, Wei
from tests.support.chain import ADDRESSES, make_bindings, make_log

EVENTS = sorted(event_classes().values(), key=lambda event_class: event_class.__name__)
CALLS: tuple[Any, ...] = get_args(ContractCall)
PLACE = {"blockNumber": "0x7", "logIndex": "0x2", "transactionHash": "0x" + "ab" * 32}


def make_terms() -> JobTerms:
    values: dict[str, Any] = {field.name: 3 for field in fields(JobTerms)}
    return JobTerms(**{**values, "target": -5, "metric": Metric.NEG_CE})


def make_course() -> Course:
    types = load_artifact("Rounds").events["CourseChanged"].fields[1].abi_type
    names = (field.name for field in fields(Course))
    return Course(**dict(zip(names, make_value(types), strict=True)))


def make_value(abi_type: str) -> Any:
    """Make some value of a type, as our classes hold it."""
    if abi_type.endswith("]"):
        item_type, _, length = abi_type[:-1].rpartition("[")
        return (make_value(item_type),) * int(length or 2)
    if abi_type.startswith("("):
        return tuple(make_value(member) for member in abi_type[1:-1].split(","))
    if abi_type == "address":
        return b"\x0a" * 20
    if abi_type == "bytes32":
        return b"\x0b" * 32
    if abi_type == "bytes":
        return b"some bytes"
    if abi_type == "bool":
        return True
    return -3 if abi_type.startswith("int") else 3


def make_event(event_class: type[Event]) -> Event:
    signature = next(
        artifact.events[event_class.__name__]
        for artifact in map(load_artifact, CONTRACTS)
        if event_class.__name__ in artifact.events
    )
    types = {field.name: field.abi_type for field in signature.fields}
    values = {
        name: make_terms() if hint is JobTerms else make_value(types[name])
        for name, hint in get_type_hints(event_class).items()
    }
    if event_class is CourseChanged:
        values["course"] = make_course()
    return event_class(**values)


def test_every_event_of_the_contracts_has_a_class_with_its_fields() -> None:
    for artifact in map(load_artifact, CONTRACTS):
        for event in artifact.events.values():
            event_class = event_classes()[event.name]
            assert [one.name for one in event.fields] == [one.name for one in fields(event_class)]


@pytest.mark.parametrize("event_class", EVENTS, ids=lambda event_class: event_class.__name__)
def test_an_event_comes_back_as_it_was_logged(event_class: type[Event]) -> None:
    event = make_event(event_class)
    recorded = make_bindings().decode_log({**make_log(event), **PLACE})
    assert recorded.event == event
    assert (recorded.block_number, recorded.log_index) == (7, 2)
    assert recorded.transaction_hash == b"\xab" * 32


@pytest.mark.parametrize("event_class", EVENTS, ids=lambda event_class: event_class.__name__)
def test_a_truncated_log_is_the_endpoints_fault(event_class: type[Event]) -> None:
    entry = make_log(make_event(event_class))
    if entry["data"] == "0x":
        entry["topics"].pop()
    else:
        entry["data"] = entry["data"][:-64]
    with pytest.raises(ChainUnavailable):
        make_bindings().decode_log({**entry, **PLACE})


@pytest.mark.parametrize("call_class", CALLS, ids=lambda call_class: call_class.__name__)
def test_a_calls_fields_are_the_functions_arguments(call_class: Any) -> None:
    artifact = TOKEN if call_class is ApproveToken else load_artifact(call_class.contract)
    function = artifact.functions[call_class.function]
    arguments = [one.name for one in fields(call_class) if one.name != "value_wei"]
    assert arguments == [parameter.name for parameter in function.inputs]


def test_terms_are_encoded_as_the_struct_of_the_contract() -> None:
    call = RevealBid(
        auction=JobId(4),
        amount_wei=Wei(9),
        terms=make_terms(),
        body_hash=Digest(b"\x01" * 32),
        salt=b"\x02" * 32,
    )
    encoded = make_bindings().encode_call(call)
    function = load_artifact("Market").functions["reveal_bid"]
    assert encoded.to == ADDRESSES["Market"]
    assert encoded.label == "Market.reveal_bid"
    assert encoded.data[:4] == function.selector
    values = decode([one.abi_type for one in function.inputs], encoded.data[4:])
    assert values[:2] == (4, 9)
    assert values[2][:3] == (3, -5, 1)


def test_accounts_inside_lists_are_encoded() -> None:
    payee = Address(b"\xcd" * 20)
    leaves = ((payee, 4), (payee, 5))
    call = SettleJob(job=JobId(1), terms=make_terms(), course=make_course(), leaves=leaves)
    assert make_bindings().encode_call(call).data.count(payee) == 2


def test_an_allowance_names_the_address_of_its_contract() -> None:
    call = ApproveToken(spender="SellerDeposits", amount_wei=Wei(7))
    encoded = make_bindings().encode_call(call)
    assert encoded.to == ADDRESSES["Token"]
    # The selector of every ERC-20's approve(address,uint256).
    assert encoded.data[:4].hex() == "095ea7b3"
    assert encoded.data[4:] == ADDRESSES["SellerDeposits"].rjust(32, b"\x00") + word(7)


def test_the_tokens_logs_are_not_followed() -> None:
    followed = make_bindings().addresses
    assert set(followed) == {ADDRESSES[name] for name in CONTRACTS}


def test_fees_are_added_up_by_job_and_function() -> None:
    bindings = make_bindings()
    rounds = load_artifact("Rounds").functions["execute_slashes"].selector
    stake = load_artifact("StakePool").functions["deposit"].selector

    def fee(nonce: int, name: str, head: bytes, fee_wei: int) -> PaidFee:
        callee = ADDRESSES[name]
        return PaidFee(nonce=nonce, callee=callee, call_head=head, fee_wei=Wei(fee_wei))

    fees = [
        fee(0, "Rounds", rounds + word(3), 5),
        fee(1, "Rounds", rounds + word(3), 2**70),
        fee(2, "Rounds", rounds + word(4), 1),
        fee(3, "StakePool", stake, 2),
        PaidFee(nonce=4, callee=None, call_head=b"", fee_wei=Wei(9)),
    ]
    totals = add_fees(fees, bindings)
    assert [(one.job_id, one.call, one.count, one.fees_wei) for one in totals] == [
        (None, "StakePool.deposit", 1, 2),
        (None, "other", 1, 9),
        (3, "Rounds.execute_slashes", 2, 5 + 2**70),
        (4, "Rounds.execute_slashes", 1, 1),
    ]
