"""Structured logs: fixed event names with fields, to standard error and to a file.

Standard error carries them for people or as JSON; the file has a line of JSON per event, is for
its owner alone, and is rotated. `log_scope` puts role, job, round and peer into every line that is
logged inside it. Library loggers (libp2p, hypercorn) come out the same way. Bytes are shown in
hex; what could be a secret is not shown at all (`redaction.py`).
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from d2m_node.errors import UserError
from d2m_node.redaction import hide_secrets, hide_secrets_in_text
from d2m_node.settings import LogSettings

FILE_MODE: Final = 0o600

_QUIET_LIBRARIES: Final = ("libp2p", "httpx", "httpcore", "hypercorn", "multiaddr")


@contextmanager
def log_scope(
    *,
    role: str | None = None,
    job: int | None = None,
    round_index: int | None = None,
    peer: bytes | None = None,
    is_new_task: bool = False,
) -> Iterator[None]:
    """Put what is given into every line that is logged inside.

    Tasks and worker threads that are started inside inherit it. With ``is_new_task``, what the
    starter of this task was about is forgotten: for tasks that many share, like a job's room. Not
    for generators, async ones included: their body may run in somebody else's context.
    """
    if is_new_task:
        structlog.contextvars.clear_contextvars()
    given = {"role": role, "job": job, "round": round_index, "peer": peer}
    fields = {name: value for name, value in given.items() if value is not None}
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def current_log_scope() -> dict[str, object]:
    """Return the fields of the scope that this task is in, to log for it from another task."""
    return structlog.contextvars.get_contextvars()


def configure_logs(settings: LogSettings) -> None:
    """Set up logging for the whole process.

    Raises UserError if the log file cannot be written.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
        show_bytes_as_hex,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    for_stderr = _render_json() if settings.format == "json" else _render_for_people()
    handlers[0].setFormatter(_make_formatter(shared, for_stderr))
    if settings.file is not None:
        handlers.append(_open_log_file(settings.file, settings))
        handlers[1].setFormatter(_make_formatter(shared, _render_json()))
    # basicConfig with force closes the handlers of an earlier set-up.
    logging.basicConfig(handlers=handlers, level=settings.level.upper(), force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET_LIBRARIES:
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        library.propagate = True  # libp2p switches it off when it is imported


def show_bytes_as_hex(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001
    """Write bytes as people compare them: 0x and hexadecimal digits."""
    for name, value in event.items():
        if isinstance(value, bytes):
            event[name] = "0x" + value.hex()
    return event


def _render_json() -> list[Processor]:
    # Without the local variables of each frame: those may hold keys and passwords.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(transformer),
        structlog.processors.JSONRenderer(default=str),
    ]


def _render_for_people() -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The default shows local variables as well.
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]


def _make_formatter(shared: list[Processor], last: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *last,
            # Once more, on the whole line: an exception's text is part of it by now.
            lambda _logger, _method, line: hide_secrets_in_text(str(line)),
        ],
    )


class _PrivateFileHandler(RotatingFileHandler):
    """A rotated file that nobody but its owner can read.

    A disk that takes no more is told once, in one line, and when it takes lines again.
    """

    _failed_lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        failed_before = self._failed_lines
        super().emit(record)
        if failed_before and self._failed_lines == failed_before:
            self._tell(f"written again; {failed_before} lines went to standard error alone")
            self._failed_lines = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Say what keeps the file from being written; the node goes on."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        if not self._failed_lines:
            self._tell(f"{error.strerror}; until it can be written, lines are lost to it")
        self._failed_lines += 1

    def _tell(self, text: str) -> None:
        sys.stderr.write(f"d2m-node: logs.file: {self.baseFilename}: {text}\n")

    def _open(self):  # type: ignore[no-untyped-def]  # the base class's type is private
        path = Path(self.baseFilename)
        path.touch(mode=FILE_MODE)
        path.chmod(FILE_MODE)  # one that was there already may be of another mode
        return super()._open()


def _open_log_file(path: Path, settings: LogSettings) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _PrivateFileHandler(
            path,
            maxBytes=settings.file_bytes,
            backupCount=settings.files_kept - 1,
            encoding="utf-8",
        )
    except OSError as exc:
        raise UserError(f"logs.file: {path}: {exc.strerror}") from exc
