"""What must not be shown: passwords, keys, salts, bearer tokens. For logs and error lines."""

import re
from collections.abc import Mapping
from typing import Final

from structlog.types import EventDict, WrappedLogger

HIDDEN: Final = "<hidden>"

_SECRET_FIELD: Final = re.compile(
    r"passw(or)?d|passphrase|secret|salt|token|private|mnemonic|seed_phrase|chain_element"
    r"|authorization|bearer|cookie|credential|api_?key",
    re.IGNORECASE,
)

# Repetitions are bounded, or hostile text could make a line take for ever.
_SECRET_TEXT: Final = (
    # Authorization: Bearer abc.def
    re.compile(r"(?P<kept>\b(?:bearer|basic)\s+)[\w.~+/=-]{12,}", re.IGNORECASE),
    # https://user:password@host
    re.compile(r"(?P<kept>://[^\s/:@\"']*:)[^\s/@\"']+(?=@)"),
    # password=abc, ?token=abc, "api_key": "abc"
    re.compile(
        r"(?P<kept>\b(?:[\w-]{0,40}?(?:password|secret|token)|passphrase|api[_-]?key|mnemonic)"
        r"[\"']?\s*[=:]\s*[\"']?)(?!<hidden>)[^\s\"'&,;)}\]]{2,}",
        re.IGNORECASE,
    ),
)


def hide_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001
    """Blank what a line's fields hold that may be secret, nested ones too."""
    for name, value in event.items():
        event[name] = HIDDEN if _SECRET_FIELD.search(name) else _hide_in(value)
    return event


def hide_secrets_in_text(text: str) -> str:
    """Blank what looks like a secret within a text: bearer tokens, passwords in URLs."""
    for pattern in _SECRET_TEXT:
        text = pattern.sub(rf"\g<kept>{HIDDEN}", text)
    return text


def _hide_in(value: object) -> object:
    """Return a value without its secrets. A copy where it holds some: the caller's stays."""
    if isinstance(value, str):
        return hide_secrets_in_text(value)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(key, str) and _SECRET_FIELD.search(key) else _hide_in(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_hide_in(inner) for inner in value)
    return value
