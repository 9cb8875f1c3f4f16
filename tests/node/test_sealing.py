"""What is sealed opens with its key, for whom and as what it was sealed, and not otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from d2m_node.sealing import (
    BOX_BYTES,
    CHUNK_BYTES,
    TAG_BYTES,
    IdentitySeal,
    SealBroken,
    bind,
    box_key,
    count_sealed_bytes,
    name_peer,
    seal,
    unseal,
)
from protocol.hashing import Domain, keccak
from protocol.types import Address, JobId

DOMAIN = Domain(31337, Address(b"\x11" * 20))
DIGEST = keccak(b"state")
BINDING = bind("sealed-state", DOMAIN, JobId(1), 2, DIGEST)
SIZES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES)
OWNER, OTHER = IdentitySeal(keccak(b"owner")), IdentitySeal(keccak(b"other"))


def make_state(size: int) -> bytes:
    return (keccak(b"bytes") * (size // 32 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_opens_and_is_as_long_as_promised(size: int) -> None:
    sealed = seal(make_state(size), BINDING)
    assert len(sealed.data) == count_sealed_bytes(size)
    assert unseal(sealed.data, sealed.key, BINDING) == make_state(size)


def test_the_same_state_has_one_ciphertext_and_another_has_another_key() -> None:
    first, again = seal(b"state", BINDING), seal(b"state", BINDING)
    assert (first.data, first.key) == (again.data, again.key)
    other = bind("sealed-state", DOMAIN, JobId(1), 3, DIGEST)
    keys = {first.key, seal(b"State", BINDING).key, seal(b"state", other).key}
    assert len(keys) == 3


@pytest.mark.parametrize(
    "other",
    [
        bind("model-file", DOMAIN, JobId(1), 2, DIGEST),
        bind("sealed-state", Domain(1, DOMAIN.market), JobId(1), 2, DIGEST),
        bind("sealed-state", DOMAIN, JobId(2), 2, DIGEST),
        bind("sealed-state", DOMAIN, JobId(1), 3, DIGEST),
        bind("sealed-state", DOMAIN, JobId(1), 2, keccak(b"another")),
    ],
)
def test_nothing_opens_as_something_else(other: bytes) -> None:
    sealed = seal(b"state", BINDING)
    with pytest.raises(SealBroken):
        unseal(sealed.data, sealed.key, other)
    with pytest.raises(SealBroken):
        OWNER.open_key(box_key(sealed.key, BINDING, OWNER.peer_id), other)


SEALED = seal(make_state(3 * CHUNK_BYTES), BINDING)
STEP = CHUNK_BYTES + TAG_BYTES


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        SEALED.data[:-1],
        SEALED.data[: 2 * STEP],
        SEALED.data[STEP:],
        SEALED.data[STEP : 2 * STEP] + SEALED.data[:STEP] + SEALED.data[2 * STEP :],
        SEALED.data + SEALED.data[-STEP:],
        SEALED.data + b"\x00",
        seal(make_state(3 * CHUNK_BYTES - 1), BINDING).data,
    ],
    ids=["empty", "short", "cut off", "beheaded", "swapped", "repeated", "longer", "replaced"],
)
def test_bytes_that_were_not_sealed_so_do_not_open(damaged: bytes) -> None:
    with pytest.raises(SealBroken, match="does not open"):
        unseal(damaged, SEALED.key, BINDING)


@given(place=st.integers(0, 200), value=st.integers(1, 255))
def test_a_changed_byte_does_not_open(place: int, value: int) -> None:
    sealed = seal(make_state(200), BINDING)
    damaged = bytearray(sealed.data)
    damaged[place] ^= value
    with pytest.raises(SealBroken):
        unseal(bytes(damaged), sealed.key, BINDING)


@given(box=st.binary(max_size=256))
def test_any_bytes_are_a_box_or_broken(box: bytes) -> None:
    with pytest.raises(SealBroken):
        OWNER.open_key(box, BINDING)


def test_a_box_opens_for_its_peer_alone() -> None:
    box = box_key(SEALED.key, BINDING, OWNER.peer_id)
    assert len(box) == BOX_BYTES
    assert OWNER.open_key(box, BINDING) == SEALED.key
    with pytest.raises(SealBroken, match="another peer"):
        OTHER.open_key(box, BINDING)


def test_two_boxes_of_one_key_tell_nobody_that_they_are() -> None:
    assert box_key(SEALED.key, BINDING, OWNER.peer_id) != box_key(
        SEALED.key, BINDING, OWNER.peer_id
    )


@pytest.mark.parametrize(
    "peer_id",
    [b"", bytes([0x12, 0x20]) + bytes(32), OWNER.peer_id[:-1], name_peer(b"\xff" * 32)],
    ids=["empty", "hash of a key", "short", "no point"],
)
def test_nothing_is_sealed_to_an_identity_without_a_key(peer_id: bytes) -> None:
    with pytest.raises(SealBroken, match="holds no Ed25519 key"):
        box_key(SEALED.key, BINDING, peer_id)


def test_a_peer_is_named_as_libp2p_does() -> None:
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    pair = create_new_key_pair()
    opener = IdentitySeal(pair.private_key.to_bytes())
    assert opener.peer_id == ID.from_pubkey(pair.public_key).to_bytes()
    assert bytes(SigningKey(pair.private_key.to_bytes()).verify_key) == opener.peer_id[-32:]


def test_a_key_is_not_shown() -> None:
    assert repr(SEALED) == f"Sealed({len(SEALED.data)} bytes)"
