import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_keys import keys
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidSignature
from protocol.hashing import Domain, keccak
from protocol.signatures import (
    Availability,
    TypedMessage,
    UpdateCommitment,
    UpdateOpening,
    ValidationOffer,
    ValidationReceipt,
    Vote,
    compact,
    expand,
    recover_signer,
)
from protocol.types import Address, Digest, JobId, RoundIndex
from tests.protocol.test_shared_vectors import parse
from tests.protocol.vectors import load_vectors

DOMAIN = Domain(1337, Address(b"\x11" * 20))
SIGNER = keys.PrivateKey(keccak(b"signer"))
SIGNER_ADDRESS = Address(SIGNER.public_key.to_canonical_address())
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
JOB, ROUND = JobId(7), RoundIndex(3)
HASH, SALT = Digest(b"\x22" * 32), b"\x33" * 32

MESSAGES: list[tuple[TypedMessage, dict[str, object]]] = [
    (
        UpdateCommitment(JOB, ROUND, HASH),
        {"job": 7, "round": 3, "commitment": HASH},
    ),
    (
        UpdateOpening(job=JOB, round_index=ROUND, update_digest=HASH, salt=SALT),
        {"job": 7, "round": 3, "digest": HASH, "salt": SALT},
    ),
    (
        Availability(job=JOB, round_index=ROUND, attempt=1, bitmap=5),
        {"job": 7, "round": 3, "attempt": 1, "bitmap": 5},
    ),
    (
        Vote(job=JOB, round_index=ROUND, mini=65536, commitment=HASH),
        {"job": 7, "round": 3, "mini": 65536, "commitment": HASH},
    ),
    (ValidationReceipt(JOB, 1), {"job": 7, "part": 1}),
    (
        ValidationOffer(job=JOB, part=0, part_digest=HASH, size_bytes=99),
        {"job": 7, "part": 0, "digest": HASH, "size": 99},
    ),
]


def sign(digest: bytes) -> bytes:
    signature = SIGNER.sign_msg_hash(digest).to_bytes()
    return bytes(signature[:64]) + bytes([signature[64] + 27])


@pytest.mark.parametrize(("message", "values"), MESSAGES)
def test_digest_is_that_of_a_wallet(message: TypedMessage, values: dict[str, object]) -> None:
    name, _, members = message.TYPE.rstrip(")").partition("(")
    pairs = [member.split(" ") for member in members.split(",")]
    typed = encode_typed_data(
        domain_data={
            "name": "D2M",
            "version": "1",
            "chainId": DOMAIN.chain_id,
            "verifyingContract": "0x" + DOMAIN.market.hex(),
        },
        message_types={name: [{"type": kind, "name": member} for kind, member in pairs]},
        message_data=values,
    )
    signed = Account.sign_message(typed, SIGNER.to_bytes())
    assert recover_signer(message.digest(DOMAIN), signed.signature) == SIGNER_ADDRESS


def test_digest_depends_on_chain_and_market() -> None:
    message = ValidationReceipt(JOB, 1)
    digests = {
        message.digest(DOMAIN),
        message.digest(Domain(1, DOMAIN.market)),
        message.digest(Domain(1337, Address(b"\x12" * 20))),
    }
    assert len(digests) == 3


def test_another_digest_recovers_another_account() -> None:
    signature = sign(HASH)
    assert recover_signer(HASH, signature) == SIGNER_ADDRESS
    assert recover_signer(Digest(SALT), signature) != SIGNER_ADDRESS


def test_the_twin_with_high_s_is_refused() -> None:
    signature = sign(HASH)
    twin_s = ORDER - int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + twin_s.to_bytes(32, "big") + bytes([55 - signature[64]])
    with pytest.raises(InvalidSignature, match="upper half"):
        recover_signer(HASH, twin)


@pytest.mark.parametrize("length", [0, 64, 66])
def test_a_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidSignature, match="65 bytes"):
        recover_signer(HASH, bytes(length))


@pytest.mark.parametrize("recovery", [0, 1, 26, 29, 255])
def test_a_wrong_v_is_refused(recovery: int) -> None:
    with pytest.raises(InvalidSignature, match="v is"):
        recover_signer(HASH, sign(HASH)[:64] + bytes([recovery]))


@pytest.mark.parametrize("r", [0, 5, ORDER, (1 << 256) - 1])
def test_a_signature_no_key_can_have_made_is_refused(r: int) -> None:
    forged = r.to_bytes(32, "big") + (0 if r == 0 else 1).to_bytes(32, "big") + b"\x1b"
    with pytest.raises(InvalidSignature, match="no key"):
        recover_signer(HASH, forged)


@pytest.mark.parametrize("case", load_vectors("enrolment")["signatures"], ids=range(6))
def test_two_words_and_65_bytes_are_the_same_signature(case: dict[str, str]) -> None:
    fields = parse(case)
    assert compact(fields["signature"]) == (fields["r"], fields["vs"])
    assert expand(fields["r"], fields["vs"]) == fields["signature"]
    assert (
        recover_signer(fields["digest"], expand(*compact(fields["signature"]))) == fields["signer"]
    )


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_any_two_words_are_65_bytes_that_a_check_takes_or_refuses(r: bytes, vs: bytes) -> None:
    signature = expand(r, vs)
    assert len(signature) == 65
    assert signature[64] in (27, 28)
    try:
        assert compact(signature) == (r, vs)
    except InvalidSignature:
        with pytest.raises(InvalidSignature):
            recover_signer(HASH, signature)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (bytes(64), "65 bytes, not 64"),
        (bytes(65), "v is 0"),
        (bytes(64) + b"\x1d", "v is 29"),
        (bytes(32) + b"\xff" * 32 + b"\x1b", "upper half"),
    ],
)
def test_what_has_no_form_of_two_words_is_refused(signature: bytes, reason: str) -> None:
    with pytest.raises(InvalidSignature, match=reason):
        compact(signature)
