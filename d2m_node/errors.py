"""Operational errors, and who handles them.

NodeError                   something around us failed
├── TransientError          try again                       handled in retry.py
│   ├── ChainUnavailable
│   ├── PeerUnreachable
│   ├── StreamTimeout
│   ├── DiskFull
│   └── TrainingStopped
├── PeerFault               that peer misbehaved             handled in network/
├── TransactionReverted     the contract said no             handled by the role
├── PrivacyBudgetSpent      a training would tell too much    handled by the seller
├── JobFailed               this job cannot go on            handled at the job boundary
│   └── DataMismatch
├── UserError               bad input; one line, exit code   handled in cli.py
└── FatalError              the node must stop               handled in cli.py
    ├── StoreCorrupted
    ├── StoreInUse
    ├── WrongNetwork
    └── KeyUnavailable
"""

from typing import Final

from protocol.errors import ProtocolError

MAX_LINE: Final = 4000
"""Characters of an error that people read; the longest honest one lists all settings."""


class NodeError(Exception):
    """Something around the node failed."""


class TransientError(NodeError):
    """It may work if tried again."""


class ChainUnavailable(TransientError):
    """The chain's endpoint does not answer, or answers nonsense."""


class PeerUnreachable(TransientError):
    """A peer cannot be dialled, or does not have what it should."""


class StreamTimeout(TransientError):
    """A peer stopped talking in the middle of a stream."""


class DiskFull(TransientError):
    """There is no room for a blob. What was there is as it was; a job waits until there is."""


class TrainingStopped(TransientError):
    """The training process crashed or was killed; the next training starts another one."""


class PeerFault(NodeError):
    """A peer broke a rule; drop what it sent and penalise it."""

    def __init__(self, peer_id: bytes, cause: ProtocolError) -> None:
        super().__init__(f"peer {peer_id.hex()}: {cause}")
        self.peer_id = peer_id
        self.cause = cause


class TransactionReverted(NodeError):
    """A contract refused a call. ``reason`` is the contract's own word."""

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call} reverted: {reason}")
        self.call = call
        self.reason = reason


class JobFailed(NodeError):
    """One job cannot go on at this node; the node and its other jobs do."""

    code = "failed"
    """Of the refusal that is kept."""

    def __init__(self, job_id: int, reason: str) -> None:
        super().__init__(f"job {job_id}: {reason}")
        self.job_id = job_id
        self.reason = reason


class DataMismatch(JobFailed):
    """Local data are not what a job was promised, or what it asks for."""

    code = "data"


class PrivacyBudgetSpent(NodeError):
    """A job, or another round of one, does not fit into the privacy budget of a dataset."""


def _show(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else repr(character)[1:-1]


class UserError(NodeError):
    """Bad input by a person: one clear line that names the field and the fix.

    The message may quote what a file holds: what would break the line becomes a blank, what
    would command a terminal is shown as an escape, and what is endless is cut.
    """

    def __init__(self, message: str) -> None:
        printable = (_show(one) for one in message[:MAX_LINE])
        super().__init__("".join(printable))


class FatalError(NodeError):
    """The node must stop; the message says what to do."""


class StoreCorrupted(FatalError):
    """The data directory does not hold what the node wrote."""


class StoreInUse(FatalError):
    """Another process holds the data directory."""


class WrongNetwork(FatalError):
    """The chain is not the one the node was set up for, or lacks the contracts."""


class KeyUnavailable(FatalError):
    """A key file is missing, or its password is wrong."""
