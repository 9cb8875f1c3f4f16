"""The accounts of the simulated chain: plain tables with one log of what was there before.

py-evm's own database keeps tries and journals over journals, so that nodes can prove what they
hold. Nobody asks the simulation for a proof: it needs to be fast, and to go back by blocks.
"""

from collections import deque
from typing import Any, Final

from eth.abc import AccountDatabaseAPI, MetaWitnessAPI
from eth.typing import JournalDBCheckpoint
from eth_typing import Address as EthAddress
from eth_typing import Hash32

from protocol.hashing import keccak

_NO_CODE: Final = keccak(b"")
_NO_ROOT: Final = Hash32(bytes(32))
_ABSENT: Final = object()
_Change = tuple[dict[Any, Any], Any, Any]
"""Table, key, and what the table held there."""


class Accounts(AccountDatabaseAPI):
    """Balances, nonces, code and storage, each a table; every write can be undone.

    Checkpoints are places in the log of changes. Blocks are closed one by one, and the last
    ``blocks_kept`` can be undone.
    """

    def __init__(self, blocks_kept: int) -> None:
        self._balances: dict[bytes, int] = {}
        self._nonces: dict[bytes, int] = {}
        self._codes: dict[bytes, bytes] = {}
        self._code_hashes: dict[bytes, Hash32] = {}
        self._storage: dict[tuple[bytes, int], int] = {}
        self._transient: dict[tuple[bytes, int], bytes] = {}
        self._warm: dict[bytes | tuple[bytes, int], None] = {}
        self._originals: dict[tuple[bytes, int], int] = {}
        """What slots held before the current transaction, of those that it wrote."""
        self._changes: list[_Change] = []
        self._closed: deque[list[_Change]] = deque(maxlen=blocks_kept)
        self._lasting = {
            id(self._balances): "balance",
            id(self._nonces): "nonce",
            id(self._codes): "code",
            id(self._code_hashes): "code hash",
            id(self._storage): "storage",
        }
        """Names of the tables that are more than a transaction's."""

    # --- blocks and transactions -----------------------------------------------------------------

    def begin_transaction(self) -> None:
        """Forget what is of the transaction before: what is warm, and transient storage."""
        self._warm = {}
        self._transient = {}
        self._originals = {}

    def close_block(self) -> bytes:
        """End a block; return a hash of all that it wrote."""
        lasting = [change for change in self._changes if id(change[0]) in self._lasting]
        self._changes = []
        self._closed.append(lasting)
        written = {(self._lasting[id(table)], key): table for table, key, _ in lasting}
        lines = sorted(repr((*place, table[place[1]])) for place, table in written.items())
        return keccak("\n".join(lines).encode())

    def undo_block(self) -> None:
        """Take back the last closed block, and what was done since."""
        self.discard(JournalDBCheckpoint(0))
        self._changes = self._closed.pop()
        self.discard(JournalDBCheckpoint(0))

    @property
    def blocks_kept(self) -> int:
        """How many blocks can be undone."""
        return len(self._closed)

    def copy_balances(self) -> dict[bytes, int]:
        """Return all balances, as of now."""
        return dict(self._balances)

    def _write(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._changes.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    # --- checkpoints -----------------------------------------------------------------------------

    def record(self) -> JournalDBCheckpoint:
        """Return where the log of changes ends."""
        return JournalDBCheckpoint(len(self._changes))

    def discard(self, checkpoint: JournalDBCheckpoint) -> None:
        """Undo every change since a checkpoint."""
        changes = self._changes
        while len(changes) > checkpoint:
            table, key, before = changes.pop()
            if before is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = before

    def commit(self, checkpoint: JournalDBCheckpoint) -> None:
        """Keep what was changed since a checkpoint: there is nothing to do."""

    def lock_changes(self) -> None:
        """Begin another transaction."""
        self.begin_transaction()

    # --- storage ---------------------------------------------------------------------------------

    def get_storage(self, address: EthAddress, slot: int, from_journal: bool = True) -> int:
        """Return a slot's value; not ``from_journal``: as it was before the transaction."""
        key = (address, slot)
        if not from_journal and key in self._originals:
            return self._originals[key]
        return self._storage.get(key, 0)

    def set_storage(self, address: EthAddress, slot: int, value: int) -> None:
        """Write a slot."""
        key = (address, slot)
        self._originals.setdefault(key, self._storage.get(key, 0))
        self._write(self._storage, key, value)

    def delete_storage(self, address: EthAddress) -> None:
        """Empty an account's storage."""
        for key in [key for key in self._storage if key[0] == address]:
            self.set_storage(address, key[1], 0)

    def is_storage_warm(self, address: EthAddress, slot: int) -> bool:
        """Tell whether the transaction has touched a slot."""
        return (address, slot) in self._warm

    def mark_storage_warm(self, address: EthAddress, slot: int) -> None:
        """Note that the transaction has touched a slot."""
        if (address, slot) not in self._warm:
            self._write(self._warm, (address, slot), None)

    def get_transient(self, address: EthAddress, slot: int) -> bytes:
        """Return a slot of transient storage."""
        return self._transient.get((address, slot), b"")

    def set_transient(self, address: EthAddress, slot: int, value: bytes) -> None:
        """Write a slot of transient storage."""
        self._write(self._transient, (address, slot), value)

    # --- accounts --------------------------------------------------------------------------------

    def get_balance(self, address: EthAddress) -> int:
        """Return an account's ether, in wei."""
        return self._balances.get(address, 0)

    def set_balance(self, address: EthAddress, balance: int) -> None:
        """Set an account's ether, in wei."""
        self._write(self._balances, address, balance)

    def get_nonce(self, address: EthAddress) -> int:
        """Return how many transactions, or creations, an account has made."""
        return self._nonces.get(address, 0)

    def set_nonce(self, address: EthAddress, nonce: int) -> None:
        """Set an account's nonce."""
        self._write(self._nonces, address, nonce)

    def increment_nonce(self, address: EthAddress) -> None:
        """Count one more."""
        self.set_nonce(address, self.get_nonce(address) + 1)

    def set_code(self, address: EthAddress, code: bytes) -> None:
        """Write an account's code."""
        self._write(self._codes, address, code)
        self._write(self._code_hashes, address, Hash32(keccak(code)))

    def get_code(self, address: EthAddress) -> bytes:
        """Return an account's code."""
        return self._codes.get(address, b"")

    def get_code_hash(self, address: EthAddress) -> Hash32:
        """Return the hash of an account's code."""
        return self._code_hashes.get(address, Hash32(_NO_CODE))

    def delete_code(self, address: EthAddress) -> None:
        """Empty an account's code."""
        self.set_code(address, b"")

    def account_has_code_or_nonce(self, address: EthAddress) -> bool:
        """Tell whether an account is more than a balance."""
        return self.get_nonce(address) != 0 or bool(self.get_code(address))

    def delete_account(self, address: EthAddress) -> None:
        """Empty an account."""
        self.set_balance(address, 0)
        self.set_nonce(address, 0)
        self.delete_code(address)
        self.delete_storage(address)

    def account_exists(self, address: EthAddress) -> bool:
        """Tell whether there is anything at an address; empty accounts do not exist (EIP-161)."""
        return not self.account_is_empty(address)

    def touch_account(self, address: EthAddress) -> None:
        """Do nothing: empty accounts are not kept."""

    def account_is_empty(self, address: EthAddress) -> bool:
        """Tell whether nothing is at an address."""
        return not self.account_has_code_or_nonce(address) and self.get_balance(address) == 0

    def is_address_warm(self, address: EthAddress) -> bool:
        """Tell whether the transaction has touched an account."""
        return address in self._warm

    def mark_address_warm(self, address: EthAddress) -> None:
        """Note that the transaction has touched an account."""
        if address not in self._warm:
            self._write(self._warm, address, None)

    # --- what only tries have --------------------------------------------------------------------

    @property
    def state_root(self) -> Hash32:
        """Return zeros: there is no trie."""
        return _NO_ROOT

    @state_root.setter
    def state_root(self, value: Hash32) -> None:
        assert value == _NO_ROOT, "there is no trie"

    def has_root(self, state_root: bytes) -> bool:
        """Tell whether it is the only root there is."""
        return state_root == _NO_ROOT

    def make_state_root(self) -> Hash32:
        """Return zeros: there is no trie."""
        return _NO_ROOT

    def persist(self) -> MetaWitnessAPI:
        """Fail: there is nothing to persist."""
        raise NotImplementedError("the simulated chain is not persisted")
