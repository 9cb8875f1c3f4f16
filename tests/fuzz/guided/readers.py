"""Every reader of hostile bytes.

The first byte of an input is a place in this list: a corpus is of no use to another list.
"""

from tests.fuzz.guided import blobs, doors, lanes, messages, peers, rooms

READERS = (
    *messages.READERS,
    *peers.READERS,
    *blobs.READERS,
    *rooms.READERS,
    *doors.READERS,
    *lanes.READERS,
)
