"""One finding."""

from typing import Literal

from msgspec import Struct

Status = Literal["ok", "warn", "fail"]


class Check(Struct, frozen=True, kw_only=True):
    """What was looked at, and what to do about it."""

    name: str
    status: Status
    detail: str
    fix: str
    """One line; empty if all is well."""


def ok(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name=name, status="ok", detail=detail, fix="")


def warn(name: str, detail: str, fix: str) -> Check:
    """The node works; the operator should know."""
    return Check(name=name, status="warn", detail=detail, fix=fix)


def fail(name: str, detail: str, fix: str) -> Check:
    """The node does not work, or loses money, until this is mended."""
    return Check(name=name, status="fail", detail=detail, fix=fix)
