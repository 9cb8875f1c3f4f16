"""The rules' own errors.

ProtocolError               a rule was broken
├── InvalidMessage          bytes that are no message
├── InvalidSignature        not signed by whom it claims
├── RuleViolation           well-formed, not allowed
├── TooFewUpdates           the robust rule cannot hold
└── InvalidParams           parameters that cannot work together
"""


class ProtocolError(Exception):
    """A rule of the protocol was broken."""


class InvalidMessage(ProtocolError):
    """The bytes are no message of this protocol."""


class InvalidSignature(ProtocolError):
    """The signature was not made by the account that the message names."""


class RuleViolation(ProtocolError):
    """A well-formed thing that is not allowed here."""


class TooFewUpdates(ProtocolError):
    """Fewer updates arrived than the robust rule needs."""

    def __init__(self, received: int, required: int) -> None:
        super().__init__(f"received {received} updates, need {required}")
        self.received = received
        self.required = required


class InvalidParams(ProtocolError):
    """A parameter is out of range, or two of them cannot work together."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
