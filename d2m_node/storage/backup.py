"""A copy of a node's memory in one file, made while the node runs, and put back in place.

The file is a SQLite database: the store itself, and the bytes of those blobs that nobody else may
have. What peers keep is fetched again. It carries a mark, so that a node that starts on it signs
nothing new in what was open then: it may have signed since the copy was made.

Keys are not in it.
"""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from d2m_node.errors import StoreCorrupted, UserError
from d2m_node.storage.blob_files import BlobFiles, is_intact, sync_folder
from d2m_node.storage.blobs import ONLY_COPIES
from d2m_node.storage.connection import check_integrity, translated_errors
from d2m_node.storage.database import BLOB_FOLDER, DATABASE_NAME, lock_folder
from d2m_node.storage.marks import RESTORED
from d2m_node.storage.schema import MIGRATIONS
from protocol.types import Digest

REPLACED: Final = "replaced"
"""Folder to which a restore moves what it takes the place of."""

CHECK_SECONDS: Final = 3600.0
_PAGES: Final = 1024
"""Copied at a time, so that the node may write in between."""
_SIDE_FILES: Final = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Copied:
    """What is in a backup, or was put in place from one."""

    journal_rows: int
    blobs: int
    missing: int
    """Blobs whose bytes are not there: from peers, or lost."""


def write_backup(folder: Path, target: Path) -> Copied:
    """Copy the store of a node that may be running.

    Raises
    ------
    UserError
        If there is no store, or the target exists.
    StoreCorrupted
        If the store is damaged; nothing is left at the target then.
    """
    source_path = folder / DATABASE_NAME
    if not source_path.is_file():
        raise UserError(f"{folder} holds no node's store; give the data directory")
    if target.exists():
        raise UserError(f"{target} exists; name another file, a backup never replaces one")
    draft = target.with_name(target.name + ".part")
    with translated_errors(target):
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with translated_errors(draft):
            copied = _copy(source_path, BlobFiles(folder / BLOB_FOLDER, reserve_bytes=0), draft)
            _sync_file(draft)
            os.link(draft, target)  # unlike a rename it never takes another file's place
            sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)
    return copied


def _copy(source_path: Path, files: BlobFiles, draft: Path) -> Copied:
    source = sqlite3.connect(f"{source_path.absolute().as_uri()}?mode=ro", uri=True)
    copy = sqlite3.connect(draft, isolation_level=None)
    try:
        source.backup(copy, pages=_PAGES)
        copy.execute("PRAGMA journal_mode = DELETE")
        check_integrity(copy, source_path, seconds=CHECK_SECONDS)
        _check_version(copy, source_path)
        copy.execute("BEGIN")
        copy.execute("CREATE TABLE backup_blobs (digest BLOB PRIMARY KEY, data BLOB NOT NULL)")
        found, missing = 0, 0
        for digest in _list_only_copies(copy):
            data = files.read(digest)
            if data is None or not is_intact(data, digest):
                missing += 1
                continue
            copy.execute("INSERT INTO backup_blobs VALUES (?, ?)", (digest, data))
            found += 1
        copy.execute("INSERT OR REPLACE INTO marks (name, value) VALUES (?, 1)", (RESTORED,))
        copy.execute("COMMIT")
        return Copied(_count(copy, "journal"), found, missing)
    finally:
        copy.close()
        source.close()


def restore_backup(backup: Path, folder: Path) -> Copied:
    """Put a backup in the place of a stopped node's store; what was there is moved aside.

    Blobs that are in the folder stay and are used.

    Raises
    ------
    UserError
        If the file is no backup of a node, or damaged; the store is as it was then.
    StoreInUse
        If the node runs.
    FatalError
        If the disk fails.
    """
    if not backup.is_file():
        raise UserError(f"{backup}: no such file; give what d2m-node backup wrote")
    with lock_folder(folder), translated_errors(backup):
        draft = folder / (DATABASE_NAME + ".part")
        draft.unlink(missing_ok=True)
        files = BlobFiles(folder / BLOB_FOLDER, reserve_bytes=0)
        files.prepare()
        try:
            try:
                copied = _unpack(backup, files, draft)
            except sqlite3.OperationalError:
                raise  # of the disk
            except (sqlite3.DatabaseError, StoreCorrupted) as exc:
                raise UserError(
                    f"{backup} is damaged, or no backup; the node's store is as it was"
                ) from exc
            _sync_file(draft)
            _move_aside(folder)
            draft.rename(folder / DATABASE_NAME)
            sync_folder(folder)
        finally:
            draft.unlink(missing_ok=True)
        return copied


def _unpack(backup: Path, files: BlobFiles, draft: Path) -> Copied:
    source = sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro", uri=True)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    copy = sqlite3.connect(draft, isolation_level=None)
    try:
        source.backup(copy)
        check_integrity(copy, backup, seconds=CHECK_SECONDS)
        if not copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'backup_blobs'").fetchone():
            raise UserError(f"{backup} is no backup; give what d2m-node backup wrote")
        _check_version(copy, backup)
        unpacked = 0
        for digest, data in copy.execute("SELECT digest, data FROM backup_blobs"):
            if is_intact(data, Digest(digest)):
                files.adopt(files.write_draft(data), Digest(digest))
                unpacked += 1
        missing = _drop_missing(copy, files)
        copy.execute("DROP TABLE backup_blobs")
        copy.execute("VACUUM")
        return Copied(_count(copy, "journal"), unpacked, missing)
    finally:
        copy.close()
        source.close()


def _drop_missing(copy: sqlite3.Connection, files: BlobFiles) -> int:
    """Drop the rows of blobs that have no file here: they are fetched when they are needed."""
    held = files.list_sizes()
    listed = copy.execute("SELECT digest FROM blobs").fetchall()
    missing = [(one,) for (one,) in listed if Digest(one) not in held]
    for table in ("blobs", "blob_references"):
        copy.executemany(f"DELETE FROM {table} WHERE digest = ?", missing)  # noqa: S608
    return len(missing)


def _move_aside(folder: Path) -> None:
    """Make place for a store, and keep what was there.

    A log whose database is gone, as after a restore that was cut off here, goes as well: SQLite
    would replay it over whatever database it finds beside it.
    """
    # The database goes first: a log without its file would be taken for another file's.
    found = [folder / (DATABASE_NAME + side) for side in _SIDE_FILES]
    found = [path for path in found if path.exists()]
    if not found:
        return
    number = 1
    while (target := folder / f"{REPLACED}-{number}").exists():
        number += 1
    target.mkdir(mode=0o700)
    for path in found:
        path.rename(target / path.name)
    sync_folder(target)
    sync_folder(folder)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != len(MIGRATIONS):
        raise UserError(
            f"{path}: schema {version}, and this d2m-node has {len(MIGRATIONS)}; start the node of"
            " this version on it once, or take the d2m-node that wrote it"
        )


def _list_only_copies(connection: sqlite3.Connection) -> list[Digest]:
    names = ", ".join(f"'{one.value}'" for one in ONLY_COPIES)
    rows = connection.execute(
        f"SELECT DISTINCT digest FROM blob_references WHERE purpose IN ({names})"  # noqa: S608
    )
    return [Digest(digest) for (digest,) in rows]


def _count(connection: sqlite3.Connection, table: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    return int(count)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
