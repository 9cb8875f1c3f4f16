"""The bytes of messages: one encoding each, bounded, and safe to decode from anybody."""

from collections.abc import Callable
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from protocol.errors import InvalidMessage
from protocol.hashing import Domain
from protocol.terms import MAX_SELLERS
from protocol.types import Address, JobId
from protocol.wire import messages as wire
from protocol.wire.codec import (
    MAX_BATCH_BYTES,
    MAX_MESSAGE_BYTES,
    decode_message,
    encode_message,
)
from protocol.wire.messages import AnyMessage, GossipMessage, Message, MessageBatch, UpdateCommit
from protocol.wire.topics import Topic, find_topic, name_topic, parse_topic

KINDS: tuple[type[Any], ...] = get_args(AnyMessage)
COMMIT = UpdateCommit(
    job_id=1, round_index=2, seller_index=3, commitment=bytes(32), signature=bytes(65)
)


def build_messages(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any valid message of one kind, from the bounds that its fields state."""
    bounds = {
        wire.Bytes32: st.binary(min_size=32, max_size=32),
        wire.Signature: st.binary(min_size=65, max_size=65),
        wire.Number: st.integers(0, 2**62),
        wire.Index: st.integers(0, 255),
        wire.BlobSize: st.integers(0, 2**31),
        bool: st.booleans(),
        wire.StateKey.__annotations__["box"]: st.binary(max_size=256),
        wire.ChunkCount: st.integers(0, 2048),
        wire.DialBackAnswer.__annotations__["outcome"]: st.integers(0, 2),
        wire.ChunkList.__annotations__["hashes"]: st.binary(max_size=256),
        wire.MessageBatch.__annotations__["messages"]: st.lists(
            st.binary(max_size=1024), max_size=8
        ),
    }
    return st.builds(kind, **{name: bounds[t] for name, t in kind.__annotations__.items()})


any_message = st.one_of([build_messages(kind) for kind in KINDS])


@given(message=any_message)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode_message(encode_message(message), MAX_BATCH_BYTES) == message


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_invalid(data: bytes) -> None:
    try:
        message = decode_message(data)
    except InvalidMessage:
        return
    assert encode_message(message) == data


@given(message=any_message, where=st.integers(0, 2**16), value=st.integers(0, 255))
def test_a_changed_byte_is_another_message_or_invalid(
    message: Message, where: int, value: int
) -> None:
    data = bytearray(encode_message(message))
    data[where % len(data)] = value
    try:
        decoded = decode_message(bytes(data), MAX_BATCH_BYTES)
    except InvalidMessage:
        return
    assert encode_message(decoded) == data


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=3), inner),
    max_leaves=10,
)


@given(tag=st.integers(0, 40), fields=st.lists(plain_values, max_size=7))
def test_any_fields_behind_any_tag_are_a_message_or_invalid(tag: int, fields: list[Any]) -> None:
    data = msgpack.packb([tag, *fields])
    try:
        message = decode_message(data)
    except InvalidMessage:
        return
    assert encode_message(message) == data


@given(message=any_message, extra=st.binary(min_size=1, max_size=4))
def test_bytes_after_a_message_are_invalid(message: Message, extra: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_message(encode_message(message) + extra, MAX_BATCH_BYTES)


@given(message=any_message, cut=st.integers(1, 10))
def test_a_message_cut_short_is_invalid(message: Message, cut: int) -> None:
    with pytest.raises(InvalidMessage):
        decode_message(encode_message(message)[:-cut], MAX_BATCH_BYTES)


def test_a_longer_encoding_of_the_same_number_is_invalid() -> None:
    encoded = encode_message(COMMIT)
    assert encoded[1:3] == b"\x01\x01", "tag and job"
    with pytest.raises(InvalidMessage, match="canonical"):
        decode_message(encoded[:2] + b"\xcc\x01" + encoded[3:])


def test_a_longer_encoding_of_the_list_is_invalid() -> None:
    encoded = encode_message(COMMIT)
    with pytest.raises(InvalidMessage, match="canonical"):
        decode_message(b"\xdc\x00\x06" + encoded[1:])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job_id", -1),
        ("job_id", 2**62 + 1),
        ("job_id", True),
        ("job_id", 1.0),
        ("job_id", None),
        ("job_id", b"1"),
        ("seller_index", 256),
        ("commitment", bytes(31)),
        ("commitment", bytes(33)),
        ("commitment", "x" * 32),
        ("signature", bytes(64)),
        ("signature", bytes(66)),
    ],
)
def test_a_field_outside_its_bounds_is_invalid(field: str, value: Any) -> None:
    with pytest.raises(InvalidMessage):
        decode_message(encode_message(replace(COMMIT, **{field: value})))


def test_a_field_too_many_or_too_few_is_invalid() -> None:
    fields = msgpack.unpackb(encode_message(COMMIT))
    for wrong in (fields[:-1], [*fields, 0], fields[:1], []):
        with pytest.raises(InvalidMessage):
            decode_message(msgpack.packb(wrong))


@pytest.mark.parametrize("tag", [0, 8, 31, 36, -1, None, b"\x01"])
def test_an_unknown_tag_is_invalid(tag: Any) -> None:
    fields = msgpack.unpackb(encode_message(COMMIT))[1:]
    with pytest.raises(InvalidMessage):
        decode_message(msgpack.packb([tag, *fields]))


def test_what_is_no_list_is_invalid() -> None:
    for value in ({}, {b"job_id": 1}, 1, b"", None, "text", msgpack.Timestamp(1)):
        with pytest.raises(InvalidMessage):
            decode_message(msgpack.packb(value))


def test_a_deep_nest_is_invalid() -> None:
    with pytest.raises(InvalidMessage):
        decode_message(b"\x91" * 60_000)


def test_a_length_beyond_the_bytes_is_invalid() -> None:
    for claim in (b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
        with pytest.raises(InvalidMessage):
            decode_message(claim)


def test_too_many_bytes_are_invalid_before_they_are_read() -> None:
    with pytest.raises(InvalidMessage, match="at most"):
        decode_message(bytes(MAX_MESSAGE_BYTES + 1))


def test_a_full_batch_fits_and_a_larger_one_is_invalid() -> None:
    full = MessageBatch(messages=[bytes(1024)] * 512)
    assert decode_message(encode_message(full), MAX_BATCH_BYTES) == full
    for wrong in ([b""] * 513, [bytes(1025)]):
        with pytest.raises(InvalidMessage):
            decode_message(encode_message(MessageBatch(messages=wrong)), MAX_BATCH_BYTES)


@given(message=st.one_of([build_messages(kind) for kind in get_args(GossipMessage)]))
def test_every_gossip_message_fits_a_batch(message: Message) -> None:
    assert len(encode_message(message)) <= 1024


def test_every_tag_is_used_once_and_listed_in_the_table() -> None:
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(tags)) == len(tags)
    defined = {
        value
        for value in vars(wire).values()
        if isinstance(value, type) and issubclass(value, Struct) and value is not Message
    } - {Struct}
    assert defined == set(KINDS)
    assert wire.__doc__ is not None
    for kind in KINDS:
        assert f"{kind.__struct_config__.tag:<6} {kind.__name__}" in wire.__doc__


def test_topics_differ_by_chain_market_job_and_purpose() -> None:
    markets = [Address(bytes(19) + bytes([last])) for last in (1, 2)]
    topics = {
        name_topic(Domain(chain_id, market), JobId(job), topic)
        for topic in Topic
        for chain_id in (1, 11)
        for market in markets
        for job in (1, 11)
    }
    assert len(topics) == 24


@pytest.mark.parametrize("topic", Topic)
@pytest.mark.parametrize("job", [0, 1, 2**62])
def test_a_topic_is_found_behind_its_name(topic: Topic, job: int) -> None:
    domain = Domain(1, Address(b"\x11" * 20))
    assert parse_topic(domain, name_topic(domain, JobId(job), topic)) == (job, topic)


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace("/5/", "/05/"),
        lambda name: name.replace("/5/", "/-5/"),
        lambda name: name.replace("/5/", "/\u0665/"),
        lambda name: name.replace("/5/", "/" + "9" * 5000 + "/"),
        lambda name: name.replace("d2m/2/1/", "d2m/2/11/"),
        lambda name: name.replace("d2m/2/", "d2m/1/"),
        lambda name: name + "/",
        lambda name: name + "\n",
        lambda name: name.replace("votes", "Votes"),
        lambda _: "",
        lambda _: "5/votes",
    ],
)
def test_a_name_that_is_not_exactly_a_topics_is_none(change: Callable[[str], str]) -> None:
    domain = Domain(1, Address(b"\x11" * 20))
    assert parse_topic(domain, change(name_topic(domain, JobId(5), Topic.VOTES))) is None


@given(message=any_message.filter(lambda one: isinstance(one, GossipMessage)))
def test_every_kind_of_gossip_has_one_topic(message: GossipMessage) -> None:
    name = type(message).__name__
    expected = (
        Topic.UPDATES
        if name.startswith("Update")
        else Topic.VALIDATION
        if name.startswith("Validation")
        else Topic.VOTES
    )
    assert find_topic(message) is expected


def test_a_batch_holds_both_commitments_of_every_seller_of_the_largest_job() -> None:
    commits = [
        encode_message(
            replace(COMMIT, job_id=2**62, seller_index=index, commitment=bytes([side]) * 32)
        )
        for index in range(MAX_SELLERS)
        for side in (1, 2)
    ]
    batch = MessageBatch(messages=commits)
    assert decode_message(encode_message(batch), MAX_BATCH_BYTES) == batch
    with pytest.raises(InvalidMessage):
        decode_message(encode_message(replace(COMMIT, seller_index=MAX_SELLERS)))
