"""Files that only their owner may read: written whole or not at all, and refused if others can
read them.
"""

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Final

from d2m_node.errors import KeyUnavailable

DRAFT_SUFFIX: Final = ".new"

_OTHERS: Final = 0o077


def draft_of(path: Path) -> Path:
    """Return where the next content of a file is prepared."""
    return path.with_name(path.name + DRAFT_SUFFIX)


def check_private(path: Path) -> None:
    """Raise KeyUnavailable, with the command to run, if others may use a file or folder."""
    try:
        status = path.stat()
    except OSError as exc:
        raise KeyUnavailable(f"{path}: {exc.strerror}") from exc
    if status.st_mode & _OTHERS:
        mode = "700" if path.is_dir() else "600"
        raise KeyUnavailable(
            f"{path}: others may read it; run chmod {mode} {shlex.quote(str(path))}"
        )


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a small file. Raises KeyUnavailable."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as exc:
        raise KeyUnavailable(f"{path}: cannot be read: {exc.strerror}") from exc
    if len(data) > max_bytes:
        raise KeyUnavailable(f"{path}: longer than {max_bytes} bytes")
    return data


def write_draft(path: Path, data: bytes) -> Path:
    """Write what ``path`` is to hold beside it, durably. An old draft is dropped.

    Raises KeyUnavailable.
    """
    draft = draft_of(path)
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except OSError as exc:
        raise KeyUnavailable(f"{draft}: cannot be written: {exc.strerror}") from exc
    return draft


def adopt_draft(path: Path) -> None:
    """Put the draft in the place of its file, at once and durably. Raises KeyUnavailable."""
    try:
        draft_of(path).replace(path)
        _sync_folder(path.parent)
    except OSError as exc:
        raise KeyUnavailable(f"{path}: cannot be replaced: {exc.strerror}") from exc


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet, whole or not at all. Raises KeyUnavailable."""
    draft = write_draft(path, data)
    try:
        # Unlike a rename, a link never takes the place of what is there.
        os.link(draft, path)
        _sync_folder(path.parent)
    except OSError as exc:
        raise KeyUnavailable(f"{path}: cannot be written: {exc.strerror}") from exc
    finally:
        with suppress(OSError):
            draft.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a new name durable: it lives in the folder, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
