"""Keeps the nodes of a simulation from logging: it has a log of its own."""

import logging

import structlog


def silence_logs(level: int = logging.CRITICAL) -> None:
    """Drop what nodes log below a level. A hundred of them say much, and formatting it is slow."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
