"""What `GET /events` tells: facts of chain and node, each with a cursor to go on from."""

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import Meta

from d2m_node.client.method import Result

STREAM_OPENED: Final = "stream.opened"
"""First of a stream. Its cursor is where the stream begins."""
STREAM_ENDED: Final = "stream.ended"
"""Last of a stream; `facts.reason` says why, and one may go on from its cursor."""
CHAIN_REORGANISED: Final = "chain.reorganised"
"""The chain turned: what was told of blocks after `block` holds no more. What holds follows."""
BLOCK_FOLLOWED: Final = "block.followed"
"""The node has followed the chain up to `block`. Told only to those who ask for this kind."""

START: Final = "start"
"""Stands for the cursor before everything that is kept."""

Cursor = Annotated[str, Meta(min_length=1, max_length=80)]


class NodeEvent(Result, frozen=True, kw_only=True):
    """One fact."""

    cursor: Cursor
    kind: str
    """Like round.decided: the contracts' own word for it. See docs/RPC.md."""
    job: int | None = None
    block: int | None = None
    """Of a fact of the chain."""
    log_index: int | None = None
    transaction: str | None = None
    facts: Mapping[str, object] = {}
    """The fields of the contracts' event, or of what happened at the node."""
