"""Files that may be packed, unpacked within bounds; a flaw is one UserError with the file's name.

A packed file says little about how large it is unpacked, so unpacking stops at the bound.
"""

import io
import lzma
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from d2m_node.errors import UserError

MAX_DATA_BYTES: Final = 1 << 29
"""Of one dataset, unpacked; the CIFAR-10 training set has 154 MB."""
MAX_MEMBERS: Final = 1 << 10
"""Of a tar archive."""

_LZMA_MEMORY_BYTES: Final = 256 << 20
_GZIP_MAGIC: Final = b"\x1f\x8b"
_XZ_MAGIC: Final = b"\xfd7zXZ\x00"


def read_tar(path: Path, data: bytes, names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return files of an unpacked tar by their last names, each with its place for an error."""
    found: dict[str, bytes] = {}
    try:
        # "r:" takes no compression: what is packed was unpacked within bounds before.
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise UserError(f"{path}: an archive of more than {MAX_MEMBERS} files")
                name = member.name.rpartition("/")[2]
                # A sparse file would unpack to more than its bytes; a link has none.
                if name in names and member.isreg() and member.sparse is None:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    found[name] = stream.read(len(data))
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as exc:
        raise UserError(f"{path}: damaged tar archive: {str(exc)[:200]!r}") from exc
    for name in names:
        if name not in found:
            raise UserError(f"{path}: the archive holds no file {name!r}; name others in members")
    return [(f"{path}: {name}", found[name]) for name in names]


def check_size(path: Path, max_bytes: int) -> None:
    """Raise UserError if a file is larger than it may be."""
    try:
        size = path.stat().st_size
    except OSError as exc:
        raise UserError(f"{path}: cannot be read: {exc.strerror}") from exc
    if size > max_bytes:
        raise UserError(f"{path}: {size} bytes; a dataset has at most {MAX_DATA_BYTES}")


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a file and unpack it if it begins like gzip or xz, whatever its name says."""
    check_size(path, max_bytes)
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP_MAGIC):
            data = _unpack_gzip(data, max_bytes)
        elif data.startswith(_XZ_MAGIC):
            data = _unpack_xz(data, max_bytes)
    except OSError as exc:
        raise UserError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (zlib.error, lzma.LZMAError, EOFError) as exc:
        raise UserError(f"{path}: damaged archive: {exc}") from exc
    if len(data) > max_bytes:
        raise UserError(f"{path}: unpacks to more than a dataset's {MAX_DATA_BYTES} bytes")
    return data


def _unpack_gzip(data: bytes, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    unpacked = unpacker.decompress(data, max_bytes + 1)
    if len(unpacked) <= max_bytes and (not unpacker.eof or unpacker.unused_data):
        raise EOFError("gzip stream cut off, or followed by other bytes")
    return unpacked


def _unpack_xz(data: bytes, max_bytes: int) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES)
    unpacked = unpacker.decompress(data, max_bytes + 1)
    if len(unpacked) <= max_bytes and (not unpacker.eof or unpacker.unused_data):
        raise EOFError("xz stream cut off, or followed by other bytes")
    return unpacked
