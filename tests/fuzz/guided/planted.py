"""A reader with a bug that only bytes of one kind reach: whoever guides must find them."""

from protocol.errors import InvalidMessage
from tests.fuzz.guided.reader import Reader


def read_planted(data: bytes) -> int:
    """Read a number behind a mark and a length; a length that is a lie was forgotten."""
    if len(data) < 4:
        raise InvalidMessage("no mark, or no length")
    first, second, third, length = data[:4]
    if first != 0xD2 or second != 0x4D or third != 0x01:
        raise InvalidMessage("another mark")
    if length > 8:
        raise InvalidMessage("too long")
    return sum(data[4 + index] for index in range(length))


READERS = (Reader("planted", read_planted, (InvalidMessage,), [b"a seed of another kind"]),)
