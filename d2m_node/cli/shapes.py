"""What commands print with `--json`, where that is not a method's own result."""

from typing import Literal

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


class CopiedStore(Shape, frozen=True, kw_only=True):
    """What is in a backup, or came out of one."""

    file: str
    journal_rows: int
    blobs: int
    missing: int
    """Blobs without their bytes: to be fetched from peers, or lost."""


class DoctorReport(Shape, frozen=True, kw_only=True):
    ok: bool
    """Nothing must be mended; there may be warnings."""
    checks: list[Check]


class Submitted(Shape, frozen=True, kw_only=True):
    job: int
    """Number of the auction, and of the job if the bid wins."""
    idempotency_key: str


class SavedModel(Shape, frozen=True, kw_only=True):
    job: int
    path: str
    size_bytes: int
    is_delivered: bool
    """The copy of the buyer that paid for it; else it was fetched from the job's nodes."""


class ReadyLine(Shape, frozen=True, kw_only=True):
    """One line on standard output once the node takes calls."""

    event: Literal["ready"]
    account: str
    socket: str


class SettingOrigin(Shape, frozen=True, kw_only=True):
    value: object
    origin: str
    """flag, environment and its variable, config.toml, default, or "not set"."""


class SettingsChecked(Shape, frozen=True, kw_only=True):
    ok: bool
    """Always true: what is wrong is an error with code 3."""


class CompletionScript(Shape, frozen=True, kw_only=True):
    shell: str
    script: str
    install: str
    """The command that makes it work from the next shell on."""


class AuditedBallot(Shape, frozen=True, kw_only=True):
    kind: str
    round: int
    attempt: int
    decided: str
    computed: str
    agrees: bool


class ConditionView(Shape, frozen=True, kw_only=True):
    """A condition holds if left is at least right. None is no limit."""

    byzantine: int
    left: float | None
    right: float
    right_per_round: float
    margin: float | None
    holds: bool


class IncentivesView(Shape, frozen=True, kw_only=True):
    execution_set_sizes: list[int]
    lead: int
    beta: float
    """Chance of a wrong digest per round."""
    beta_job: float
    undecided: float
    expected_votes: float
    pay_per_vote: float
    q_caught: float
    margins: dict[str, ConditionView]
    """Of seller, cone and system."""
    k_star: int
    minimum_stake: float | None
    value_at_risk: float
    honest: bool


class LogRecord(Shape, frozen=True, kw_only=True):
    """One line of the log; more fields as the event has them, as text or numbers."""

    timestamp: str
    level: str
    event: str


class DevnetEvent(Shape, frozen=True, kw_only=True):
    """One line per event; more fields as the event has them."""

    event: str


class DataFileView(Shape, frozen=True, kw_only=True):
    dataset: str
    path: str
    """Below the folder."""
    good: bool
    """Whether it is there, byte for byte as it is published."""
    state: str
    """One of "here" and "fetched", or what is wrong."""


class ReportResult(Shape, frozen=True, kw_only=True):
    report: str
    """The page that was written."""
