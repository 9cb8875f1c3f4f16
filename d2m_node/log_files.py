"""The log files of a data directory, read: the newest lines, and those to come, across rotation.

`node.log` is being written; `node.log.1` is older, `node.log.2` older still. Rotation renames, so
a file is known by its inode, not by its name.
"""

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from d2m_node.errors import UserError

POLL_SECONDS: Final = 0.25
MAX_LINE_BYTES: Final = 1024 * 1024
"""A longer line is read in pieces: something else than a node wrote it."""

LEVELS: Final = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line, and what it says if it is an event."""

    text: str
    fields: dict[str, object] | None
    """None for a line that is no JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which lines are wanted. A line that is no event has no job, role or time."""

    job: int | None = None
    role: str | None = None
    level: str | None = None
    """This one and graver ones."""
    since: datetime | None = None

    def accepts(self, line: LogLine) -> bool:
        """Tell whether a line is wanted."""
        if line.fields is None:
            return self == LogFilter()
        return (
            (self.job is None or line.fields.get("job") == self.job)
            and (self.role is None or line.fields.get("role") == self.role)
            and (self.level is None or _is_as_grave(line.fields.get("level"), self.level))
            and (self.since is None or _is_since(line.fields.get("timestamp"), self.since))
        )


def read_last_lines(path: Path, wanted: LogFilter, count: int) -> list[LogLine]:
    """Return the last ``count`` wanted lines of all files. Raises UserError."""
    with LogReader(path) as reader:
        return list(deque((line for line in reader if wanted.accepts(line)), maxlen=count))


def follow_lines(path: Path, wanted: LogFilter, count: int) -> Iterator[LogLine]:
    """Yield the last ``count`` wanted lines, then each that is written, for ever.

    A file that is not there yet is waited for. Raises UserError.
    """
    with LogReader(path, is_patient=True) as reader:
        yield from deque((line for line in reader if wanted.accepts(line)), maxlen=count)
        while True:
            time.sleep(POLL_SECONDS)
            yield from (line for line in reader if wanted.accepts(line))


class LogReader:
    """Reads on from file to file. Each iteration goes on where the last one had to end."""

    def __init__(self, path: Path, *, is_patient: bool = False) -> None:
        """Start with the oldest file. Raises UserError if there is none, unless patient."""
        self._path = path
        self._file: BinaryIO | None = None
        self._half = b""
        """A line that is still being written."""
        if not _list_files(path) and not is_patient:
            raise UserError(f"{path}: no log; the node has not run yet, or logs.file is another")

    def __enter__(self) -> "LogReader":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[LogLine]:
        while True:
            if self._file is not None:
                yield from self._read_lines(self._file)
            following = self._find_next()
            if following is None:
                return
            if self._file is not None:
                # Renaming comes after the last write: what came meanwhile is read first.
                yield from self._read_lines(self._file)
                self._file.close()
            self._file, self._half = following, b""

    def _read_lines(self, file: BinaryIO) -> Iterator[LogLine]:
        while piece := file.readline(MAX_LINE_BYTES):
            self._half += piece
            if self._half.endswith(b"\n") or len(self._half) >= MAX_LINE_BYTES:
                text, self._half = self._half.decode(errors="replace"), b""
                yield _parse(text.rstrip("\n"))

    def _find_next(self) -> BinaryIO | None:
        """Open the file that follows the one that was read, if there is one."""
        files = _list_files(self._path)
        position = 0
        if self._file is not None:
            own = _identify(os.fstat(self._file.fileno()))
            known = [identity for identity, _ in files]
            # One that is no longer there was deleted as the oldest: all others are newer.
            position = known.index(own) + 1 if own in known else 0
        for identity, path in files[position:]:
            try:
                file = path.open("rb")
            except FileNotFoundError:
                return None  # renamed just now: the next look finds it
            except OSError as exc:
                raise UserError(f"{path}: {exc.strerror}") from exc
            if _identify(os.fstat(file.fileno())) == identity:
                return file
            file.close()
            return None
        return None


def _list_files(path: Path) -> list[tuple[tuple[int, int], Path]]:
    """List the log's files with their identities, the oldest first. Raises UserError."""
    numbered: list[tuple[int, Path]] = [(0, path)]
    try:
        for one in path.parent.glob(f"{path.name}.*"):
            suffix = one.name.removeprefix(f"{path.name}.")
            if suffix.isdecimal():
                numbered.append((int(suffix), one))
        files = []
        for _, one in sorted(numbered, reverse=True):
            try:
                files.append((_identify(one.stat()), one))
            except FileNotFoundError:
                continue
    except OSError as exc:
        raise UserError(f"{path}: {exc.strerror}") from exc
    return files


def _identify(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _parse(text: str) -> LogLine:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    return LogLine(text, fields if isinstance(fields, dict) else None)


def _is_as_grave(level: object, least: str) -> bool:
    return level in LEVELS and LEVELS.index(str(level)) >= LEVELS.index(least)


def _is_since(timestamp: object, since: datetime) -> bool:
    try:
        moment = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return False
    return moment.tzinfo is not None and moment >= since
