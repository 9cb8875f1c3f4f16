"""Passwords, typed without echo or read from a file. Never from arguments or the environment."""

import sys
from pathlib import Path

import click

from d2m_node.errors import UserError


def has_terminal() -> bool:
    """Tell whether there is somebody to ask."""
    return sys.stdin.isatty()


def ask_password(question: str) -> str:
    """Ask for a password that exists already. Raises UserError without a terminal."""
    if not has_terminal():
        raise UserError(f"no terminal to ask for the {question.lower()}; give it in a file")
    answer: str = click.prompt(question, hide_input=True, err=True)
    return answer


def ask_new_password(question: str) -> str:
    """Ask twice for a new password. Raises UserError without a terminal, and KeyUnavailable."""
    from d2m_node.keys import check_new_password

    if not has_terminal():
        raise UserError(f"no terminal to ask for the {question.lower()}; give it in a file")
    answer: str = click.prompt(question, hide_input=True, confirmation_prompt=True, err=True)
    check_new_password(answer)
    return answer


def read_new_password(path: Path) -> str:
    """Read a new password from a file. Raises KeyUnavailable."""
    from d2m_node.keys import check_new_password, read_password

    password = read_password(path)
    check_new_password(password)
    return password
