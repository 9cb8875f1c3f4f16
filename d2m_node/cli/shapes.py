"""What commands print with `--json`, where that is not a method's own result."""

from msgspec import Struct

from d2m_node.doctor.check import Check


class Shape(Struct, frozen=True, kw_only=True):
    """A JSON document of the command line. Fields are only ever added."""


class InitResult(Shape, frozen=True, kw_only=True):
    account: str
    peer_id: str
    data_dir: str
    config: str
    password_file: str | None
    """None if the password was typed, and is kept nowhere."""


class KeyResult(Shape, frozen=True, kw_only=True):
    account: str
    path: str
    """The key file that was written."""


class KeyView(Shape, frozen=True, kw_only=True):
    account: str | None
    """None if there is no key file, or it does not say."""
    account_file: str
    password_file: str | None
    peer_id: str | None
    """None before the first start."""
    peer_file: str
    is_backed_up: bool


class Confirmed(Shape, frozen=True, kw_only=True):
    account: str
    is_backed_up: bool


class RawKey(Shape, frozen=True, kw_only=True):
    account: str
    private_key: str
    """64 hexadecimal digits: whoever has them, has the account."""


class DoctorReport(Shape, frozen=True, kw_only=True):
    ok: bool
    """Nothing must be mended; there may be warnings."""
    checks: list[Check]
