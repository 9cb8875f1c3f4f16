"""Whether a folder holds the files of the benchmark data sets, byte for byte."""

import hashlib
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from d2m_node.benchmark_data.files import DataFile

CHUNK_BYTES: Final = 1 << 20
_LZMA_MEMORY_BYTES: Final = 256 << 20


def find_flaw(file: DataFile, folder: Path) -> str | None:
    """Say what is wrong with one file of a folder; None if it is what it should be.

    Reads no more than a chunk beyond the size that it should have, packed or not.
    """
    path = folder / file.path
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            chunks = iter(lambda: stream.read(CHUNK_BYTES), b"")
            for chunk in _unpack(chunks) if file.is_packed else chunks:
                digest.update(chunk)
                size += len(chunk)
                if size > file.size_bytes:
                    return f"is longer than its {file.size_bytes} bytes"
    except FileNotFoundError:
        return "is missing"
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    except (lzma.LZMAError, EOFError) as exc:
        return f"is a damaged archive: {exc}"
    if size < file.size_bytes:
        return f"has {size} of its {file.size_bytes} bytes"
    if digest.hexdigest() != file.sha256:
        return "has another checksum than the published file"
    return None


def _unpack(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack xz, at most a chunk at a time. Raises LZMAError and EOFError."""
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES)
    for packed in chunks:
        data = packed
        while not unpacker.eof:
            yield unpacker.decompress(data, CHUNK_BYTES)
            data = b""
            if unpacker.needs_input:
                break
        if unpacker.eof:
            break
    if not unpacker.eof:
        raise EOFError("it is cut off")
    if unpacker.unused_data or next(chunks, b""):
        raise EOFError("something follows its end")
