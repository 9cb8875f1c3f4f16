"""What a store must hold after steps of which the last may have been cut short by a crash."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from d2m_node.ports import Purpose, Reference
from d2m_node.storage.blob_files import DAMAGED, UNFINISHED
from d2m_node.storage.database import BLOB_FOLDER, Store, open_store
from protocol.hashing import keccak
from protocol.types import JobId
from tests.support.disk_faults import Outcome, Step

COLLECTABLE = {purpose.value for purpose in Purpose} - {"own-request", "model"}


@dataclass
class StoreModel:
    """Told what steps returned, it knows what must be there, and what may be."""

    journal: dict[tuple[str, str], str] = field(default_factory=dict)
    blobs: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    """What each blob is kept for."""
    nonces: dict[int, str] = field(default_factory=dict)
    """State of what was signed for each nonce."""
    keys: dict[int, str] = field(default_factory=dict)
    in_doubt: Step | None = None
    """A step that was begun and did not return."""

    def take(self, steps: Sequence[Step], outcome: Outcome) -> None:
        """Learn what became of steps."""
        for step, result in zip(steps, outcome.done, strict=False):
            self._return(step, result)
        cut = steps[len(outcome.done) :]
        self.in_doubt = cut[0] if cut else None

    def _return(self, step: Step, result: Any) -> None:
        match step:
            case ["remember", kind, key, _]:
                # What the journal said before stays said.
                assert result == self.journal.setdefault((kind, key), result)
            case ["put", text, purpose, job]:
                self.blobs.setdefault(text, set()).add((purpose, job))
            case ["get", text]:
                assert result or not self._is_kept(text)
            case ["add", key, nonce]:
                if self.nonces.setdefault(nonce, "open") == "open":
                    self.keys[nonce] = key
            case ["settle", nonce, state]:
                if self.nonces.get(nonce) == "open":
                    self.nonces[nonce] = state
            case ["clean", _, over]:
                self._collect(over)

    def _collect(self, over: Sequence[int]) -> None:
        for kept_for in self.blobs.values():
            kept_for -= {one for one in kept_for if one[1] in over and one[0] in COLLECTABLE}

    def _is_kept(self, text: str) -> bool:
        return bool(self.blobs.get(text))

    async def check(self, folder: Path) -> None:
        """Open the store as the next start does, and compare. What is in doubt is settled."""
        with capture_logs() as logs:
            await self._check(folder)
        # Only a disk that damages files may be said to have done so.
        assert {one["event"] for one in logs} <= {"orphans_dropped"}

    async def _check(self, folder: Path) -> None:
        async with open_store(folder) as store:
            await self._check_journal(store)
            await self._check_blobs(store)
            await self._check_transactions(store)
            rows = await store.run(
                lambda connection: connection.execute("SELECT digest FROM blobs").fetchall()
            )
        self._check_files(folder, {digest.hex() for (digest,) in rows})
        self.in_doubt = None

    async def _check_journal(self, store: Store) -> None:
        for (kind, key), value in self.journal.items():
            assert await store.journal.recall(kind, key) == value.encode()
        match self.in_doubt:
            case ["remember", kind, key, value] if (kind, key) not in self.journal:
                found = await store.journal.recall(kind, key)
                assert found in (None, value.encode())
                if found is not None:
                    self.journal[kind, key] = value

    async def _check_blobs(self, store: Store) -> None:
        match self.in_doubt:
            case ["clean", _, over]:
                self._collect(over)  # some may be gone, and none has to be
            case ["put", text, purpose, job]:
                digest = keccak(text.encode())
                assert await store.blobs.get(digest) in (None, text.encode())
                # Another reference may have brought the bytes: they do not tell of this one.
                kept_for = await store.blobs.references(digest)
                if Reference(Purpose(purpose), JobId(job)) in kept_for:
                    self.blobs.setdefault(text, set()).add((purpose, job))
        for text in self.blobs:
            found = await store.blobs.get(keccak(text.encode()))
            assert found == text.encode() if self._is_kept(text) else found in (None, text.encode())

    async def _check_transactions(self, store: Store) -> None:
        watched = {one.nonce: one.key for one in await store.transactions.load_watched()}
        match self.in_doubt:
            case ["add", key, nonce] if nonce not in self.nonces and nonce in watched:
                self.nonces[nonce], self.keys[nonce] = "open", key
            case ["settle", nonce, state] if self.nonces.get(nonce) == "open":
                if nonce not in watched:
                    self.nonces[nonce] = state
        still_open = {nonce for nonce, state in self.nonces.items() if state == "open"}
        assert watched == {nonce: self.keys[nonce] for nonce in still_open}
        for nonce, state in self.nonces.items():
            if state == "confirmed":
                assert await store.transactions.is_confirmed(self.keys[nonce])
        highest = await store.transactions.find_highest_nonce()
        assert highest == max(self.nonces, default=None)

    def _check_files(self, folder: Path, digests: set[str]) -> None:
        """No file without a row, no row without a file, nothing half written or damaged."""
        files = [one for one in (folder / BLOB_FOLDER).rglob("*") if one.is_file()]
        assert {one.name for one in files} == digests
        assert not [one for one in files if one.parent.name in (UNFINISHED, DAMAGED)]
