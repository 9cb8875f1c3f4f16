"""The files of the blob folder: ``ab/ab12…``, two digits to keep directories small.

All of it blocks and belongs into a worker thread. A file has its final name only when all of its
bytes are on the disk.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from d2m_node.errors import DiskFull, FatalError
from protocol.hashing import keccak
from protocol.types import Digest

MAX_DAMAGED_FILES: Final = 16
"""So many damaged files are set aside for whoever wants to know what happened to the disk."""

UNFINISHED: Final = "unfinished"
DAMAGED: Final = "damaged"

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BlobFiles:
    """One folder of blobs. Methods raise DiskFull and FatalError."""

    def __init__(self, folder: Path, *, reserve_bytes: int) -> None:
        self.folder = folder
        self._reserve_bytes = reserve_bytes

    def prepare(self) -> None:
        """Make the folder, and drop what a crash left half written."""
        with _translated_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in (UNFINISHED, DAMAGED):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)
            for path in (self.folder / UNFINISHED).iterdir():
                path.unlink()

    def list_sizes(self) -> dict[Digest, int]:
        """Return the size of every blob that has a file."""
        sizes = {}
        with _translated_errors(self.folder):
            for shelf in self.folder.iterdir():
                if len(shelf.name) != 2:
                    continue
                for file in os.scandir(shelf):
                    with suppress(ValueError):  # not ours: left alone
                        sizes[Digest(bytes.fromhex(file.name))] = file.stat().st_size
        return sizes

    def measure_free(self) -> int:
        """Return how many bytes more the disk would take, without what is kept for the journal."""
        with _translated_errors(self.folder):
            disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize - self._reserve_bytes

    def check_room(self, size_bytes: int) -> None:
        """Raise DiskFull if writing so many bytes would touch what is kept for the journal."""
        free = self.measure_free()
        if size_bytes > free:
            raise DiskFull(
                f"{self.folder}: {size_bytes} bytes do not fit on the disk: {max(free, 0)} are left"
                f" above storage.reserve_bytes ({self._reserve_bytes}); free some space"
            )

    def write_draft(self, data: bytes) -> Path:
        """Write bytes durably under a name that the next start drops."""
        self.check_room(len(data))
        with _translated_errors(self.folder):
            descriptor, name = tempfile.mkstemp(dir=self.folder / UNFINISHED)
            draft = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                draft.unlink(missing_ok=True)
                raise
        return draft

    def adopt(self, draft: Path, digest: Digest) -> None:
        """Give a draft its final name, durably."""
        path = self.path_of(digest)
        with _translated_errors(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            # A rename is atomic: the final name never stands for half a blob.
            draft.rename(path)
            sync_folder(path.parent)
            sync_folder(self.folder)

    def holds(self, digest: Digest, size_bytes: int) -> bool:
        """Tell whether there is a file of a blob that has the blob's size."""
        with _translated_errors(self.path_of(digest)):
            try:
                return self.path_of(digest).stat().st_size == size_bytes
            except FileNotFoundError:
                return False

    def read(self, digest: Digest) -> bytes | None:
        """Return what a blob's file holds, whatever that is."""
        path = self.path_of(digest)
        with _translated_errors(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def delete(self, digest: Digest) -> None:
        """Delete a blob's file, if it is there."""
        path = self.path_of(digest)
        with _translated_errors(path):
            path.unlink(missing_ok=True)

    def set_aside(self, digest: Digest) -> Path | None:
        """Move a damaged file out of the way; return where it is, None if it was gone."""
        target = self.folder / DAMAGED / digest.hex()
        with _translated_errors(target):
            try:
                self.path_of(digest).replace(target)
            except FileNotFoundError:
                return None
            damaged = sorted(target.parent.iterdir(), key=lambda one: one.stat().st_ctime_ns)
            for oldest in damaged[:-MAX_DAMAGED_FILES]:
                oldest.unlink()
        return target

    def path_of(self, digest: Digest) -> Path:
        """Return where a blob's file is, or would be."""
        name = digest.hex()
        return self.folder / name[:2] / name


def is_intact(data: bytes, digest: Digest) -> bool:
    """Tell whether bytes are those of a blob."""
    return keccak(data) == digest


def compute_check(data: bytes) -> bytes:
    """Return what tells damage as surely as the Keccak: processors have instructions for this one.

    It is this node's word to itself, given when it knew the Keccak.
    """
    return sha256(data).digest()


def sync_folder(folder: Path) -> None:
    """Make a rename durable: the entry lives in the directory, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL:
            raise DiskFull(f"{path}: {exc.strerror}; free some space") from exc
        raise FatalError(f"{path}: {exc.strerror}") from exc
