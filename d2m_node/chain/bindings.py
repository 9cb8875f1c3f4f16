"""Typed calls and events to and from the ABI of the compiled contracts.

The classes of `d2m_node.calls` and `protocol.events` carry the contracts' own names, so that no
table has to be kept: a call's fields are the function's arguments in order, an event's fields
are those of its class.
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, fields
from types import UnionType
from typing import Any, Final, get_args, get_type_hints

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from d2m_node.calls import ContractCall
from d2m_node.chain.artifacts import Artifact, EventSignature, Parameter
from d2m_node.chain.json_rpc import Json, parse_bytes, parse_quantity
from d2m_node.errors import ChainUnavailable
from protocol.course import Course
from protocol.events import Event, RecordedEvent
from protocol.terms import JobTerms, Metric
from protocol.types import Address, BlockNumber, JobId, Wei

CALL_HEAD_BYTES: Final = 36
"""Of a call: the selector, and the first argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedCall:
    """A call as a transaction carries it."""

    label: str
    """Contract.function, for people."""
    to: Address | None
    """None where the data creates a contract."""
    data: bytes
    value_wei: Wei


@dataclass(frozen=True, slots=True)
class _EventDecoder:
    event_class: type[Event]
    signature: EventSignature
    structs: Mapping[str, type]
    """The fields that are structs of the rules, with their class."""


class Bindings:
    """The contracts of one deployment."""

    def __init__(self, artifacts: Mapping[str, Artifact], addresses: Mapping[str, Address]) -> None:
        """Bind artifacts to where they are deployed, both by contract name."""
        self._artifacts = artifacts
        self._addresses = addresses
        self._decoders = {
            (addresses[name], signature.topic): _bind_event(signature)
            for name, artifact in artifacts.items()
            for signature in artifact.events.values()
        }

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every contract of the deployment, whose logs make the state; not the token."""
        return tuple(
            address for name, address in self._addresses.items() if self._artifacts[name].events
        )

    def address_of(self, name: str) -> Address:
        """Return where a contract of the deployment is."""
        return self._addresses[name]

    def name_call(self, to: Address | None, selector: bytes) -> str | None:
        """Return "Contract.function" of a call's first bytes; None if it is to nothing of ours."""
        for name, address in self._addresses.items():
            if address == to:
                for function, entry in self._artifacts[name].functions.items():
                    if entry.selector == selector:
                        return f"{name}.{function}"
        return None

    def name_job(self, to: Address | None, call_head: bytes) -> JobId | None:
        """Return the job, or the auction, of a call's first 36 bytes; None if it is of none."""
        for name, address in self._addresses.items():
            if address == to and len(call_head) == CALL_HEAD_BYTES:
                for entry in self._artifacts[name].functions.values():
                    is_called = entry.selector == call_head[:4]
                    if is_called and entry.inputs and entry.inputs[0].name in ("job", "auction"):
                        return JobId(int.from_bytes(call_head[4:], "big"))
        return None

    def encode_call(self, call: ContractCall) -> EncodedCall:
        """Encode a call with its selector and the money that goes along."""
        function = self._artifacts[call.contract].functions[call.function]
        arguments = [
            self._to_abi(getattr(call, field.name))
            for field in fields(call)
            if field.name != "value_wei"
        ]
        types = [parameter.abi_type for parameter in function.inputs]
        return EncodedCall(
            label=f"{call.contract}.{call.function}",
            to=self._addresses[call.contract],
            data=function.selector + encode(types, arguments),
            value_wei=getattr(call, "value_wei", Wei(0)),
        )

    def _to_abi(self, value: Any) -> Any:
        """Turn a call's field into an argument; the name of a contract into its address."""
        return self._addresses[value] if isinstance(value, str) else _to_abi(value)

    def decode_log(self, entry: Json) -> RecordedEvent:
        """Decode one entry of an answer to eth_getLogs.

        Raises ChainUnavailable if the contracts cannot have written it: the endpoint is at fault.
        """
        if not isinstance(entry, dict):
            raise ChainUnavailable("a log that is no object")
        try:
            return self._decode_log(entry)
        except (DecodingError, ValueError, OverflowError, LookupError, TypeError) as exc:
            raise ChainUnavailable(f"a log that the contracts cannot have written: {exc}") from exc

    def _decode_log(self, entry: dict[str, Json]) -> RecordedEvent:
        if entry.get("removed", False):
            raise ValueError("it was removed by a reorganisation")
        address = Address(parse_bytes(entry["address"], 20))
        topics = [parse_bytes(topic, 32) for topic in entry["topics"]]
        decoder = self._decoders[address, topics[0]]
        return RecordedEvent(
            block_number=BlockNumber(parse_quantity(entry["blockNumber"])),
            log_index=parse_quantity(entry["logIndex"]),
            transaction_hash=parse_bytes(entry["transactionHash"], 32),
            event=_decode_event(decoder, topics[1:], parse_bytes(entry["data"])),
        )


def encode_view(artifact: Artifact, function: str) -> bytes:
    """Encode a call of a view that takes no arguments."""
    return artifact.functions[function].selector


def decode_view(artifact: Artifact, function: str, data: bytes) -> Any:
    """Decode what a view of one value returned. Raises ChainUnavailable if it is none."""
    (output,) = artifact.functions[function].outputs
    try:
        (value,) = _decode_fields([output], data)
    except (DecodingError, ValueError, OverflowError) as exc:
        raise ChainUnavailable(f"{function}() returned nonsense: {exc}") from exc
    return value


def encode_constructor(artifact: Artifact, arguments: Mapping[str, Any]) -> bytes:
    """Append the constructor's arguments, given by name, to the bytecode."""
    types = [parameter.abi_type for parameter in artifact.constructor]
    values = [_to_abi(arguments[parameter.name]) for parameter in artifact.constructor]
    return artifact.bytecode + encode(types, values)


def event_classes() -> Mapping[str, type[Event]]:
    """List the classes of `protocol.events` by the name of their event."""
    assert isinstance(Event, UnionType)
    return {event_class.__name__: event_class for event_class in get_args(Event)}


def _bind_event(signature: EventSignature) -> _EventDecoder:
    event_class = event_classes()[signature.name]
    hints = get_type_hints(event_class)
    structs = {name: hint for name, hint in hints.items() if hint in (JobTerms, Course)}
    return _EventDecoder(event_class, signature, structs)


def _decode_event(decoder: _EventDecoder, topics: list[bytes], data: bytes) -> Event:
    """Join indexed fields (one topic each) and the others (in the data) into an event."""
    indexed = [field for field in decoder.signature.fields if field.indexed]
    plain = [field for field in decoder.signature.fields if not field.indexed]
    values: dict[str, Any] = {}
    for field, topic in zip(indexed, topics, strict=True):
        (values[field.name],) = _decode_fields([field], topic)
    for field, value in zip(plain, _decode_fields(plain, data), strict=True):
        values[field.name] = value
    for name, struct in decoder.structs.items():
        values[name] = _build_struct(struct, values[name])
    build: Callable[..., Event] = decoder.event_class
    return build(**values)


def _decode_fields(parameters: list[Parameter], data: bytes) -> list[Any]:
    types = [parameter.abi_type for parameter in parameters]
    decoded = decode(types, data)
    return [_from_abi(abi_type, value) for abi_type, value in zip(types, decoded, strict=True)]


def _from_abi(abi_type: str, value: Any) -> Any:
    """Turn a decoded value into ours: addresses to bytes, lists to tuples."""
    if abi_type.endswith("]"):
        item_type = abi_type[: abi_type.rindex("[")]
        return tuple(_from_abi(item_type, item) for item in value)
    if abi_type.startswith("("):
        members = zip(_split_members(abi_type), value, strict=True)
        return tuple(_from_abi(member_type, member) for member_type, member in members)
    if abi_type == "address":
        return Address(bytes.fromhex(value.removeprefix("0x")))
    return value


def _split_members(tuple_type: str) -> list[str]:
    """Split ``(a,(b,c)[],d)`` at its outermost commas."""
    members = [""]
    depth = 0
    for character in tuple_type[1:-1]:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            members.append("")
        else:
            members[-1] += character
    return members


def _to_abi(value: Any) -> Any:
    return astuple(value) if hasattr(value, "__dataclass_fields__") else value


def _build_struct(struct: type, values: tuple[Any, ...]) -> Any:
    by_name = dict(zip((field.name for field in fields(struct)), values, strict=True))
    if struct is JobTerms:
        by_name["metric"] = Metric(by_name["metric"])
    return struct(**by_name)
