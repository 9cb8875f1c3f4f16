"""Structured logs: fixed event names with fields, to standard error and perhaps to a file.

Library loggers (libp2p, hypercorn) come out the same way. Bytes are shown in hex; fields that
could hold a secret are not shown at all.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from d2m_node.errors import UserError
from d2m_node.settings import LogSettings

HIDDEN: Final = "<hidden>"

_SECRET_FIELD = re.compile(r"password|passphrase|secret|salt|token|private|mnemonic|chain_element")
_QUIET_LIBRARIES: Final = ("libp2p", "httpx", "httpcore", "hypercorn", "multiaddr")


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
    handlers[0].setFormatter(_make_formatter(settings, shared, colors=sys.stderr.isatty()))
    if settings.file is not None:
        handlers.append(_open_log_file(settings.file))
        handlers[1].setFormatter(_make_formatter(settings, shared, colors=False))
    # basicConfig with force closes the handlers of an earlier set-up.
    logging.basicConfig(handlers=handlers, level=settings.level.upper(), force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET_LIBRARIES:
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        library.propagate = True  # libp2p switches it off when it is imported


def hide_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001
    """Blank every field whose name says that it may be secret, nested ones too."""
    _hide_in(event)
    return event


def show_bytes_as_hex(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001
    """Write bytes as people compare them: 0x and hexadecimal digits."""
    for name, value in event.items():
        if isinstance(value, bytes):
            event[name] = "0x" + value.hex()
    return event


def _hide_in(table: MutableMapping[str, object]) -> None:
    for name, value in table.items():
        if _SECRET_FIELD.search(name.lower()):
            table[name] = HIDDEN
        elif isinstance(value, dict):
            # A copy: what the caller passed is the caller's.
            inner = dict(value)
            _hide_in(inner)
            table[name] = inner


def _make_formatter(
    settings: LogSettings, shared: list[Processor], *, colors: bool
) -> logging.Formatter:
    last: list[Processor]
    if settings.format == "json":
        last = [
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=str),
        ]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=colors)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _open_log_file(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as exc:
        raise UserError(f"logs.file: {path}: {exc.strerror}") from exc
