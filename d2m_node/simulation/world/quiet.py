"""Keeps the nodes of a simulation from logging: it has a log of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def silenced_logs() -> Iterator[None]:
    """Drop what nodes log. A hundred of them say much, and formatting it is slow."""
    former, was_configured = structlog.get_config(), structlog.is_configured()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        if was_configured:
            structlog.configure(**former)
        else:
            structlog.reset_defaults()
