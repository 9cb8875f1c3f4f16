"""The log of a simulation: what happened, in order, and a digest of all of it.

Two runs of one seed log the same, byte for byte. So an entry holds nothing of the machine: no
clock but the simulated one, no address, nothing that depends on Python's hash seed.
"""

import hashlib
from typing import IO, Final

import msgspec
import trio

from d2m_node.simulation.chain.blocks import MinedBlock
from protocol.hashing import keccak
from protocol.types import Address
from protocol.wire.messages import GossipMessage

SHORT_BYTES: Final = 8
"""Of hashes in the log: enough to tell messages apart."""

Field = int | float | str | bool | None | list["Field"]


class Record:
    """Takes entries, and writes them out if there is where to."""

    def __init__(self, names: dict[Address, str], output: IO[bytes] | None = None) -> None:
        """``names`` tells accounts apart; ``output`` takes one line of JSON per entry."""
        self._names = names
        self._output = output
        self._hasher = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Hexadecimal; of all entries so far."""
        return self._hasher.hexdigest()

    def note(self, kind: str, **fields: Field) -> None:
        """Add an entry at the simulated time that it is."""
        line = msgspec.json.encode({"t": round(trio.current_time(), 6), "kind": kind, **fields})
        self._hasher.update(line + b"\n")
        if self._output is not None:
            self._output.write(line + b"\n")

    def note_block(self, block: MinedBlock) -> None:
        """Add a block: its hash stands for all that it holds; calls and events are named."""
        self.note(
            "block",
            number=block.number,
            hash=block.block_hash.hex(),
            calls=[
                [self.name_of(one.sender), one.name, one.gas_used, one.is_reverted]
                for one in block.calls
            ],
            events=[type(one.event).__name__ for one in block.events],
        )

    def note_statement(self, node: str, message: GossipMessage) -> None:
        """Add what a node gossips."""
        encoded = msgspec.msgpack.encode(message)
        self.note(
            "say", node=node, what=type(message).__name__, hash=keccak(encoded)[:SHORT_BYTES].hex()
        )

    def name_of(self, account: Address) -> str:
        """Return a node's name, or the account if it is none's."""
        return self._names.get(account, account.hex())
