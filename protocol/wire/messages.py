"""Every message between nodes, one frozen struct each.

Positional MessagePack (``array_like``): the first element is the tag below, then the fields in
order. Messages cannot grow: any change is a new tag, and a tag is never used again.

=====  =====================  =========================================
tag    message                where
=====  =====================  =========================================
1      UpdateCommit           gossip, job topic ``updates``
2      UpdateOpening          gossip, job topic ``updates``
3      AvailabilityBitmap     gossip, job topic ``votes``
4      VoteCommit             gossip, job topic ``votes``
5      retired                a vote's opening with a salt of its own
6      ValidationOffer        gossip, topic ``validation``
7      ValidationReceipt      gossip, topic ``validation``
8      VoteOpening            gossip, job topic ``votes``
9      StateKey               in a ``MessageBatch`` alone
32     BlobRequest            stream ``blob``, client to server
33     BlobHeader             stream ``blob``, server to client
34     MessagesRequest        stream ``messages``, client to server
35     MessageBatch           stream ``messages``, server to client
36     ChunkListRequest       stream ``chunks``, client to server
37     ChunkList              stream ``chunks``, server to client
38     ChunkRequest           stream ``chunks``, client to server
39     ChunkHeader            stream ``chunks``, server to client
40     DialBackRequest        stream ``dial-back``, client to server
41     DialBackAnswer         stream ``dial-back``, server to client
=====  =====================  =========================================

Signatures are EIP-712 (`protocol.signatures`), 65 bytes ``r | s | v``, by the account that the
index names in the job. An index is the position in the job's list of sellers or CONE nodes.
"""

from typing import Annotated

from msgspec import Meta, Struct

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=65, max_length=65)]
Number = Annotated[int, Meta(ge=0, le=2**62)]
"""Job numbers, rounds and mini-rounds."""
Index = Annotated[int, Meta(ge=0, lt=256)]
BlobSize = Annotated[int, Meta(ge=0, le=2**31)]
ChunkCount = Annotated[int, Meta(ge=0, le=2048)]
EncodedMessage = Annotated[bytes, Meta(max_length=1024)]


class Message(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True, tag=0
):
    """What all messages share; never sent itself."""


class UpdateCommit(Message, frozen=True, array_like=True, kw_only=True, tag=1):
    """A sampled seller binds itself to one update before it sees any other (MECHANISM 6.2)."""

    job_id: Number
    round_index: Number
    seller_index: Index
    commitment: Bytes32
    signature: Signature


class UpdateOpening(Message, frozen=True, array_like=True, kw_only=True, tag=2):
    """The digest behind an `UpdateCommit`; the update itself is fetched by it (MECHANISM 6.3)."""

    job_id: Number
    round_index: Number
    seller_index: Index
    digest: Bytes32
    salt: Bytes32
    signature: Signature


class AvailabilityBitmap(Message, frozen=True, array_like=True, kw_only=True, tag=3):
    """Which sellers' updates a CONE node holds, bit ``i`` for seller ``i`` (MECHANISM 6.4)."""

    job_id: Number
    round_index: Number
    attempt: Index
    cone_index: Index
    bitmap: Bytes32
    """256 bits, big-endian."""
    signature: Signature


class VoteCommit(Message, frozen=True, array_like=True, kw_only=True, tag=4):
    """A commitment to a vote; the signature is the one the contract checks (MECHANISM 9.2)."""

    job_id: Number
    round_index: Number
    mini: Number
    """Kind, attempt and mini-round in one number, as inside every hash (MECHANISM 0.3)."""
    cone_index: Index
    commitment: Bytes32
    signature: Signature


class VoteOpening(Message, frozen=True, array_like=True, kw_only=True, tag=8):
    """What opens a vote. No signature: the element opens a signed commitment (MECHANISM 9.2)."""

    job_id: Number
    round_index: Number
    mini: Number
    cone_index: Index
    digest: Bytes32
    trace: Bytes32
    chain_element: Bytes32


class ValidationOffer(Message, frozen=True, array_like=True, kw_only=True, tag=6):
    """The buyer serves one part of its validation set (MECHANISM 12)."""

    job_id: Number
    part: Index
    digest: Bytes32
    """Keccak-256 of the encoded part; checked after the fetch."""
    size_bytes: BlobSize
    signature: Signature


class ValidationReceipt(Message, frozen=True, array_like=True, kw_only=True, tag=7):
    """A CONE node holds one whole, proven part; the contract counts these (MECHANISM 12)."""

    job_id: Number
    part: Index
    cone_index: Index
    signature: Signature


class StateKey(Message, frozen=True, array_like=True, kw_only=True, tag=9):
    """What opens one blob of a state that travels sealed, for the peer that asks (`ModelAccess`).

    No signature: the digest on the chain tells whether the key was right.
    """

    job_id: Number
    round_index: Number
    digest: Bytes32
    """Keccak-256 of the blob itself."""
    sealed_digest: Bytes32
    """Keccak-256 of the sealed blob, under which it is served."""
    box: Annotated[bytes, Meta(max_length=256)]
    """Its key, sealed to the peer that asks."""


class BlobRequest(Message, frozen=True, array_like=True, kw_only=True, tag=32):
    """Ask for a blob by its Keccak-256, from ``offset`` to its end."""

    digest: Bytes32
    offset: BlobSize


class BlobHeader(Message, frozen=True, array_like=True, kw_only=True, tag=33):
    """The whole blob's size, before its bytes; ``available`` is false if it is not for you."""

    available: bool
    size_bytes: BlobSize


class MessagesRequest(Message, frozen=True, array_like=True, kw_only=True, tag=34):
    """Ask a peer for the gossip it holds of one kind and one step of a job.

    Gossip is an optimisation: each phase ends with this pull.
    """

    job_id: Number
    kind: Index
    """Tag of the messages wanted, 1 to 9."""
    step: Number
    """Round for updates, ``mini`` for votes, part for validation; as in `step_of`."""


class MessageBatch(Message, frozen=True, array_like=True, kw_only=True, tag=35):
    """The answer to a `MessagesRequest`."""

    messages: Annotated[list[EncodedMessage], Meta(max_length=512)]


class ChunkListRequest(Message, frozen=True, array_like=True, kw_only=True, tag=36):
    """Ask what a blob consists of."""

    digest: Bytes32


class ChunkList(Message, frozen=True, array_like=True, kw_only=True, tag=37):
    """What a server claims that a blob consists of; ``available`` is false if it is not for you.

    Nobody else says so: the digest does not bind the list. See `protocol.wire.chunks`.
    """

    available: bool
    size_bytes: BlobSize
    hashes: Annotated[bytes, Meta(max_length=65536)]
    """32 bytes for each chunk, in order."""


class ChunkRequest(Message, frozen=True, array_like=True, kw_only=True, tag=38):
    """Ask for ``count`` chunks of a blob, from the chunk ``first``."""

    digest: Bytes32
    first: ChunkCount
    count: ChunkCount


class ChunkHeader(Message, frozen=True, array_like=True, kw_only=True, tag=39):
    """How many bytes follow; ``available`` is false if they are not for you, or do not exist."""

    available: bool
    size_bytes: BlobSize


class DialBackRequest(Message, frozen=True, array_like=True, kw_only=True, tag=40):
    """Ask a peer to connect to the address that it knows of us; it takes none from the request."""


class DialBackAnswer(Message, frozen=True, array_like=True, kw_only=True, tag=41):
    """What came of it."""

    outcome: Annotated[int, Meta(ge=0, le=2)]
    """0: reached; 1: not reached; 2: not tried, for want of an address or too soon."""


GossipMessage = (
    UpdateCommit
    | UpdateOpening
    | AvailabilityBitmap
    | VoteCommit
    | VoteOpening
    | ValidationOffer
    | ValidationReceipt
)

PulledMessage = GossipMessage | StateKey
"""What a `MessageBatch` may hold."""

AnyMessage = (
    PulledMessage
    | BlobRequest
    | BlobHeader
    | MessagesRequest
    | MessageBatch
    | ChunkListRequest
    | ChunkList
    | ChunkRequest
    | ChunkHeader
    | DialBackRequest
    | DialBackAnswer
)
