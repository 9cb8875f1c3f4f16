"""Keys, passwords, the store, the disk."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from d2m_node.backup import HOW_TO_BACK_UP, LOCAL_CHAIN_ID, is_backed_up
from d2m_node.doctor.check import Check, fail, ok, warn
from d2m_node.errors import KeyUnavailable
from d2m_node.keys import open_signer, read_password
from d2m_node.keystore import read_keystore
from d2m_node.private_files import check_private
from d2m_node.settings import NodeSettings, StorageSettings

GIB: Final = 2**30
PEER_KEY: Final = "peer.key"


def check_files(settings: NodeSettings, *, is_running: bool) -> Iterator[Check]:
    """Check what is on the disk; a running node has opened its key already."""
    yield _check_modes(settings)
    yield _check_account(settings, is_running=is_running)
    yield _check_backup(settings)
    yield _check_writing(settings.data_dir)
    yield _check_space(settings.data_dir, settings.storage)


def _check_modes(settings: NodeSettings) -> Check:
    paths = [settings.data_dir, settings.keys.account_file, settings.data_dir / PEER_KEY]
    try:
        for path in paths:
            if path.exists():
                check_private(path)
    except KeyUnavailable as exc:
        place, _, command = str(exc).partition("; run ")
        return fail("file modes", place, f"run {command}" if command else "restore the file")
    return ok("file modes", f"{settings.data_dir} and its keys are the owner's alone")


def _check_account(settings: NodeSettings, *, is_running: bool) -> Check:
    """Open the account as `run` would, if its password is in a file."""
    name, keys = "account key", settings.keys
    try:
        address = read_keystore(keys.account_file).address
        text = str(keys.account_file) if address is None else "0x" + address.hex()
        if keys.password_file is None:
            return ok(name, f"{text}; run asks for its password")
        if str(keys.password_file).startswith("$"):
            return ok(name, f"{text}; systemd gives the password to the service alone")
        if is_running:
            read_password(keys.password_file)
        else:
            open_signer(keys.account_file, keys.password_file)
    except KeyUnavailable as exc:
        return fail(name, str(exc), "see d2m-node key --help")
    return ok(name, f"{text} opens with {keys.password_file}")


def _check_backup(settings: NodeSettings) -> Check:
    name = "key backup"
    if settings.chain.chain_id == LOCAL_CHAIN_ID:
        return ok(name, "the keys of a development chain need none")
    try:
        account = read_keystore(settings.keys.account_file).address
    except KeyUnavailable:
        return warn(name, "there is no key to back up", "d2m-node init")
    if account is not None and is_backed_up(settings.data_dir, account):
        return ok(name, "confirmed")
    return warn(name, "none that the node knows of", HOW_TO_BACK_UP)


def _check_writing(folder: Path) -> Check:
    """Write, fsync, read back and delete a small file."""
    name, data = "disk writes", os.urandom(4096)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            is_same = Path(file.name).read_bytes() == data
    except OSError as exc:
        return fail(name, f"{folder}: {exc.strerror}", "make the data directory writable")
    if not is_same:
        return fail(name, f"{folder} gives back other bytes", "replace the disk")
    return ok(name, f"{folder} takes and syncs data")


def _check_space(folder: Path, settings: StorageSettings) -> Check:
    """The disk must hold what the blobs may still grow by, and the reserve."""
    name = "disk space"
    free = shutil.disk_usage(folder).free
    used = measure_blobs(folder)
    needed = max(0, settings.blob_bytes - used) + settings.reserve_bytes
    detail = (
        f"{free / GIB:.1f} GiB free; blobs take {used / GIB:.2f} of "
        f"{settings.blob_bytes / GIB:.1f} GiB"
    )
    if free < settings.reserve_bytes:
        return fail(name, detail, "free some space: the node takes no jobs below its reserve")
    if free < needed:
        return warn(name, detail, "free some space, or lower storage.blob_bytes")
    return ok(name, detail)


def measure_blobs(folder: Path) -> int:
    """Add up the blob files; those that go away meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder / "blobs"):
        for name in names:
            try:
                total += (Path(root) / name).stat().st_size
            except OSError:
                continue
    return total
