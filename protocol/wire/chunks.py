"""How a blob is cut, so that it can be fetched from several peers at once.

The chunks of a blob follow from its bytes alone. So two lists for one digest cannot both be true,
and who gave the false one is known as soon as the blob is.
"""

from hashlib import sha256
from typing import Final

from protocol.errors import RuleViolation
from protocol.wire.messages import ChunkList

CHUNK_BYTES: Final = 1024 * 1024
HASH_BYTES: Final = 32


def hash_chunk(chunk: bytes | memoryview) -> bytes:
    """Hash a chunk with SHA-256: most processors have instructions for it, and none for Keccak."""
    return sha256(chunk).digest()


def list_chunks(blob: bytes) -> ChunkList:
    """Say what a blob consists of."""
    view = memoryview(blob)
    starts = range(0, len(blob), CHUNK_BYTES)
    hashes = b"".join(hash_chunk(view[start : start + CHUNK_BYTES]) for start in starts)
    return ChunkList(available=True, size_bytes=len(blob), hashes=hashes)


def count_chunks(size_bytes: int) -> int:
    """Return how many chunks a blob has."""
    return -(-size_bytes // CHUNK_BYTES)


def validate_chunks(chunks: ChunkList) -> None:
    """Check a list against itself. Raises RuleViolation."""
    expected = HASH_BYTES * count_chunks(chunks.size_bytes)
    if len(chunks.hashes) != expected:
        raise RuleViolation(f"{len(chunks.hashes)} bytes of chunk hashes, not {expected}")
